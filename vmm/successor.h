/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Going on without the starter: a leased VM outlives it and waits for its successor to connect.
 *
 *    (not leased) ── LEASED ──▶ served ── control socket closes ──▶ waiting ── successor ──▶ served
 *                                                                      └── too late: the end
 *
 * All with the device lock, but for what ends the process: that needs nothing.
 */

#include "vmm/loop.h"

#include <stdbool.h>

struct vmm_successor {
	struct vmm_loop *loop;
	struct vmm_source *control; /* its descriptor is VMM_CONTROL_FD, whoever the other end is */
	struct vmm_source listening; /* fd -1: nobody can come */
	uint64_t timeout_ms;	     /* 0: not leased */
	bool waiting;
};

/* Installs what ends the process when nobody has come. loop and control are borrowed. 0 or -errno.
 */
int vmm_successor_init(struct vmm_successor *successor, struct vmm_loop *loop,
		       struct vmm_source *control);

/* fd (consumed): the listening SOCK_SEQPACKET socket to which a successor connects. */
void vmm_successor_listen(struct vmm_successor *successor, int fd);

/* The VM is leased: it shall wait so long (> 0). Any number of times. 0 or -errno. */
int vmm_successor_lease(struct vmm_successor *successor, uint64_t timeout_ms);

/* The control socket has closed. True: the process waits for a successor, who finds everything as
 * it is. False: it is to end. */
bool vmm_successor_await(struct vmm_successor *successor);
