/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the pager's tests share: a pager, a template with something of everything in it and its
 * content to compare with, images and VMs of it. Failures end the test.
 */

#include "tests/unit/snapshot/fixture.h"
#include "tests/unit/uffd/vm.h"
#include "uffd/client.h"

struct scene {
	struct fixture *fixture;
	struct uffd_client *client;
	uint64_t bytes, n_pages;
	int source_fd;
	const uint8_t *source; /* mapping of it */
	struct snapshot *snapshot;
};

/* For cmocka. *state is a struct scene. Skips the test's content by returning an error where the
 * host has no userfaultfd. */
int scene_setup(void **state);
int scene_teardown(void **state);

/* Makes a template of the memory (a memfd, consumed) and opens it. */
void scene_publish(struct scene *scene, int memory_fd, uint64_t bytes);
/* The same with fixture_memory(). */
void scene_publish_mixed(struct scene *scene, uint64_t bytes);

/* An empty image memfd; then one that the pager fills. */
int scene_memfd(const struct scene *scene);
int scene_image(struct scene *scene, uint64_t id, uint64_t background_bytes_per_s);

/* Ends the pager with SIGKILL and starts another. */
void scene_restart_pager(struct scene *scene);

/* Sends the request; its result. */
int scene_call(struct scene *scene, enum pager_op op, const uint64_t *args, size_t n_args,
	       const char *text, const int *fds, size_t n_fds, struct base_message *ret_reply);
/* Hands a VM over; whether the image was complete. */
bool scene_attach(struct scene *scene, uint64_t image, uint64_t id, const struct fake_vm *vm);
struct base_message scene_counters(struct scene *scene, uint64_t image);
void scene_await_complete(struct scene *scene, uint64_t image, struct base_message *ret_event);

/* All pages, from `first` on. */
struct fake_vm_order scene_order(const struct scene *scene, uint64_t first, uint64_t stride);
/* Waits for the answer, which must be that of the source. */
void scene_check(struct scene *scene, struct fake_vm *vm, struct fake_vm_order order);
