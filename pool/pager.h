/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The manager's side of uffd/control.h: images to be filled, and the VMs that use them meanwhile.
 * All on the loop's thread.
 */

#include "base/list.h"
#include "pool/helper.h"

struct pool_image;
struct pool_sandbox;

struct pool_pager {
	struct pool_helper helper;
	struct base_link images;   /* that are not complete */
	struct base_link pending;  /* requests that the socket has no room for, oldest first */
	uint64_t last_id;	   /* of images and VMs */
	uint64_t fill_limit_bytes; /* a second, of what nobody waits for; 0: none */
};

/* What the pager was told of an image. Embedded in it. */
struct pool_pager_image {
	struct base_link link; /* pager->images, or none: complete, failed or not yet added */
	struct base_link vms;
	uint64_t id;
	int fd; /* writable; -1 when it is complete */
	bool opened, complete, asked;
	uint64_t filled_bytes, faults_total, complete_ns; /* the last: it took so long */
};

/* One VM of it, until the image is complete. */
struct pool_pager_vm {
	struct base_link link; /* image's vms */
	struct pool_sandbox *sandbox;
	uint64_t id, address;
	int fd;	      /* its userfaultfd */
	bool present; /* the pager has said that it has it */
};

/* Starts nothing. 0 or -ENOMEM. */
int pool_pager_init(struct pool_pager *pager, uv_loop_t *loop, const char *path,
		    uint64_t fill_limit_bytes);
void pool_pager_deinit(struct pool_pager *pager);

void pool_pager_image_init(struct pool_pager_image *image);

/*
 * Has the image filled; its memfd must be there. pool_image_opened() is called later when
 * restores may begin or it is refused; pool_image_completed() or pool_image_failed() after that.
 */
void pool_pager_add(struct pool_pager *pager, struct pool_image *image);

/* The image is of no more use; nothing is called for it any more. */
void pool_pager_remove(struct pool_pager *pager, struct pool_image *image);

/* The sandbox's VM waits for pages of its image from now on; fd is consumed. 0 or -errno. */
int pool_pager_add_vm(struct pool_sandbox *sandbox, int fd, uint64_t address);

/* The VM is no more. */
void pool_pager_remove_vm(struct pool_sandbox *sandbox);

/* Has the counts of an image brought up to date, some time soon. */
void pool_pager_ask(struct pool_pager *pager, struct pool_image *image);
