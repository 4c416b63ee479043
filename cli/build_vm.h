/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A VMM of a build: its process and its control socket. Main thread only.
 */

#include "base/error.h"
#include "vmm/vmm.h"

#include <sys/types.h>

struct cli_vm {
	pid_t pid;   /* -1: none */
	int pidfd;   /* for the monitor; -1: none */
	int control; /* -1: none */
	uint64_t sequence;
	bool exited;				   /* VMM_EVENT_EXITED has come */
	char exit_text[BASE_MESSAGE_TEXT_MAX + 1]; /* what it said */
};

#define CLI_VM_NONE ((struct cli_vm){ .pid = -1, .pidfd = -1, .control = -1 })

/* Starts the VMM program. What it prints itself goes to output_fd (borrowed), like the console. */
int cli_vm_start(struct cli_vm *vm, const char *vmm_path, int output_fd, struct base_error *error);

/* Kills and reaps. Takes CLI_VM_NONE. */
void cli_vm_stop(struct cli_vm *vm);

struct cli_vm_config {
	uint64_t memory_bytes;
	unsigned n_vcpus;
	uint32_t cid;
	uint64_t flags; /* enum vmm_create_flags */
	int memory_fd, console_fd, root_fd;
};

/* Makes the VM, with one read-only disk and no listener. The descriptors are borrowed. With
 * VMM_CREATE_LAZY *ret_userfault_fd (owned by the caller) and *ret_address say where its memory is
 * registered; without, they may be NULL. */
int cli_vm_create(struct cli_vm *vm, const struct cli_vm_config *config, int timeout_ms,
		  int *ret_userfault_fd, uint64_t *ret_address, struct base_error *error);

/* One request and its reply; ret_reply may be NULL. */
int cli_vm_call(struct cli_vm *vm, enum vmm_op op, const uint64_t arg[BASE_MESSAGE_ARGS],
		const char *text, const int *fds, size_t n_fds, int timeout_ms,
		struct base_message *ret_reply, struct base_error *error);

/* Takes what has come on the control socket since. 0: the VM goes on. -ECONNRESET: it is over, and
 * error says how it ended. Never blocks. */
int cli_vm_check(struct cli_vm *vm, struct base_error *error);

/* Connects to a port of the guest; the stream is at its end when the guest refuses. */
int cli_vm_attach(struct cli_vm *vm, uint32_t port, int *ret_stream, struct base_error *error);
