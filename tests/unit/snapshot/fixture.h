/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the tests of snapshot/ and uffd/ share: a store in a temporary directory, guest memory with
 * something of everything in it, and a template made from that. Failures end the test.
 */

#include "snapshot/snapshot.h"
#include "uffd/client.h"

#define FIXTURE_PATH_MAX 256

struct fixture {
	char root[FIXTURE_PATH_MAX]; /* temporary directory; holds the store and scratch files */
	char store_path[FIXTURE_PATH_MAX];
	struct snapshot_store *store;
	int fds_before; /* open descriptors of the process before the store was opened */
};

/* For cmocka's setup and teardown; *state is a struct fixture. The teardown fails when descriptors
 * are still open that were not before. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* The same at a given place (a mount point, say). */
int fixture_setup_at(struct fixture *fixture, const char *root);

/* rm -r */
void fixture_remove_tree(const char *path);

uint64_t fixture_random(uint64_t *seed);

/* A memfd with chunks that are zero, holes, compressible, random, and single non-zero bytes. */
int fixture_memory(uint64_t memory_bytes, uint64_t seed);

/* Page numbers for a working set: a third of the memory, from its end. Owned by the caller. */
uint32_t *fixture_working_set(uint64_t memory_bytes, size_t *ret_n);

/* Everything the caller of publish fills in. */
struct snapshot_manifest fixture_manifest(const char *name);

/* Writes and publishes a template with one disk and that working set; returns its manifest. */
struct snapshot_manifest fixture_publish(struct fixture *fixture, const char *name, int memory_fd,
					 uint64_t memory_bytes);

/* A scratch file with the given content. */
int fixture_file(struct fixture *fixture, const char *content);

/* How many entries a directory of the store has. */
int fixture_count(struct fixture *fixture, const char *directory);

/* The path of a file in a snapshot's directory. */
const char *fixture_path(struct fixture *fixture, const char *id, const char *file);

/* A whole file; owned by the caller. */
uint8_t *fixture_read(const char *path, size_t *ret_size);
void fixture_write(const char *path, const void *data, size_t size);

/* A warmbox-pager ($WARMBOX_PAGER) for the whole program: first and last thing in main(). */
void fixture_pager_start(void);
void fixture_pager_stop(void);
/* Has it fill and seal a new memfd; as uffd_client_fill(). */
int fixture_fill(const struct snapshot *snapshot, int *ret_fd, struct base_message *ret_complete,
		 struct base_error *error);

/* 0 when the two memfds hold the same bytes. */
int fixture_compare(int a, int b, uint64_t size);
