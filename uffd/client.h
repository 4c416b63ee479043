/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A client of warmbox-pager that blocks: for tests and measurements. It starts a pager of its own.
 * One thread at a time.
 */

#include "snapshot/snapshot.h"
#include "uffd/control.h"

#include <sys/types.h>

/* Events that it keeps until they are asked for; more are an error. */
#define UFFD_CLIENT_EVENTS_MAX 1024

struct uffd_client;

/* program: the path of warmbox-pager. */
int uffd_client_start(const char *program, struct uffd_client **ret_client,
		      struct base_error *error);
/* Closes the socket and waits for the pager's end. */
void uffd_client_free(struct uffd_client *client);
BASE_DEFINE_CLEANUP(struct uffd_client *, uffd_client_free)

pid_t uffd_client_pid(const struct uffd_client *client);
/* The control socket; borrowed. */
int uffd_client_socket(const struct uffd_client *client);

/* Sends a request with the next sequence and waits for its reply. ret_reply may be NULL. -ETIMEDOUT
 * after 30 s, -ECONNRESET when the pager is gone. */
int uffd_client_call(struct uffd_client *client, const struct base_message *request, const int *fds,
		     size_t n_fds, struct base_message *ret_reply, struct base_error *error);

/* PAGER_OP_IMAGE for a snapshot's memory. memfd is borrowed; flags: enum pager_fill_flags. */
int uffd_client_image(struct uffd_client *client, uint64_t id, const struct snapshot *snapshot,
		      int memfd, uint64_t background_bytes_per_s, uint64_t flags,
		      struct base_error *error);

/* Waits for an event of an image: op, or PAGER_EVENT_FAILED, whose result and text it returns. */
int uffd_client_wait(struct uffd_client *client, uint64_t id, enum pager_op op,
		     struct base_message *ret_event, struct base_error *error);

/* Has a new memfd (owned by the caller) filled and sealed. ret_event (may be NULL): COMPLETE. */
int uffd_client_fill(struct uffd_client *client, uint64_t id, const struct snapshot *snapshot,
		     int *ret_fd, struct base_message *ret_event, struct base_error *error);
