/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The VMM's one event loop: an epoll set served by the main thread.
 *
 * Every callback, and every device access from a vCPU thread, runs with the VM's device lock held,
 * so devices are single-threaded. A callback may add, change and remove any source, its own
 * included.
 */

#include "base/util.h"

#include <pthread.h>
#include <stdbool.h>

struct vmm_loop {
	int epoll_fd;
	pthread_mutex_t lock; /* the device lock */
	bool stop;
	uint64_t removals; /* tells a batch that one of its sources may be gone */
};

struct vmm_source {
	int fd; /* borrowed */
	void (*fn)(struct vmm_source *source, uint32_t events);
	void *userdata;
	bool added;
};

int vmm_loop_init(struct vmm_loop *loop);
void vmm_loop_deinit(struct vmm_loop *loop);

/* source is embedded in its owner and must outlive its time in the loop. events as for epoll
 * (level-triggered). 0 or -errno. */
int vmm_loop_add(struct vmm_loop *loop, struct vmm_source *source, uint32_t events);
int vmm_loop_modify(struct vmm_loop *loop, struct vmm_source *source, uint32_t events);
/* Takes a source that was never added, too. Events that were already fetched for it are not
 * delivered. */
void vmm_loop_remove(struct vmm_loop *loop, struct vmm_source *source);

/* Serves until stop is set by a callback. Takes the lock around each batch of callbacks. 0 or
 * -errno. */
int vmm_loop_run(struct vmm_loop *loop);
