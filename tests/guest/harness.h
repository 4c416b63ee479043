/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Starting a warmbox-vmm of its own for a test, and talking to it.
 *
 * Every function that returns int gives 0 or -errno, with words in vm->error. Blocking, with a
 * timeout of HARNESS_TIMEOUT_MS for each answer. Not thread-safe.
 */

#include "base/fd.h"
#include "vmm/vmm.h"

#include <stdbool.h>
#include <sys/types.h>

#define HARNESS_TIMEOUT_MS 60000

/* fds that are -1 are made by harness_create(): a console memfd, no listener. */
struct harness_params {
	uint64_t memory_bytes; /* 0: 4 MiB */
	unsigned n_vcpus;      /* 0: 1 */
	int image_fd; /* > 0: restore from this image, mapped private; 0: own shared memory */
	int state_fd; /* > 0: what will be loaded; borrowed */
	uint64_t fingerprint;	     /* of this host, or 0 */
	bool lazy;		     /* the image has holes: vm->userfault says which are missed */
	int nice;		     /* what the VMM starts with */
	int console_fd;		     /* > 0: instead of the console memfd; borrowed */
	int listener_fd;	     /* > 0; borrowed */
	int successor_fd;	     /* > 0: what a successor connects to; borrowed */
	bool savable;		     /* it will be saved although its memory is private */
	int disk_fds[VMM_DISKS_MAX]; /* borrowed */
	unsigned n_disks;
	uint32_t read_only_disks;
	uint32_t cid; /* 0: 3 */
};

struct harness_vm {
	pid_t pid;
	int control;
	int theirs;  /* its other end, until the process has started */
	int console; /* memfd; -1 when the caller gave one */
	int memory;  /* memfd, own or the image (then borrowed) */
	bool memory_is_borrowed;
	uint64_t memory_bytes;
	uint64_t sequence;
	bool private_memory;
	int userfault;	  /* of lazy memory; -1 */
	uint64_t address; /* of lazy memory in the VMM */

	unsigned entered_count;
	uint64_t entered_ns;
	unsigned connects; /* that the guest has asked for */
	bool is_over;
	enum vmm_exit_reason over_reason;
	int over_code;
	char over_text[BASE_MESSAGE_TEXT_MAX + 1];
	struct base_error error;
	struct base_message reply; /* to the last call */
	int reply_fd;		   /* that came with it, the caller's; -1 */
};

/* The program: $WARMBOX_VMM, or the one of this build. */
const char *harness_vmm_path(void);

/* Starts the process; the control socket is there already with harness_start(). */
int harness_spawn(struct harness_vm *vm);
int harness_start(struct harness_vm *vm);
/* Closes the control socket, waits for the process (kills it after a timeout) and releases
 * everything. The exit status as of waitpid(), or -errno. Fine twice. */
int harness_stop(struct harness_vm *vm);
static inline void harness_stopp(struct harness_vm *vm)
{
	harness_stop(vm);
}
#define _cleanup_vm_ _cleanup_(harness_stopp)
#define HARNESS_VM_NONE                                                                    \
	{                                                                                  \
		.control = -1, .console = -1, .memory = -1, .userfault = -1, .theirs = -1, \
		.reply_fd = -1,                                                            \
	}

/* One request. Events that come meanwhile are noted in vm. */
int harness_call(struct harness_vm *vm, enum vmm_op op, const uint64_t *args, size_t n_args,
		 const int *fds, size_t n_fds, const char *text);

/* The halves of it: sends, and waits for the next reply, which must be to `op`. Requests may be
 * sent ahead of replies, and even of the process. */
int harness_post(struct harness_vm *vm, enum vmm_op op, const uint64_t *args, size_t n_args,
		 const int *fds, size_t n_fds, const char *text);
int harness_reply(struct harness_vm *vm, enum vmm_op op);

/* The control socket, with CREATE in it; then harness_start(); then CREATE's reply. */
int harness_prepare(struct harness_vm *vm, const struct harness_params *params);
int harness_created(struct harness_vm *vm);
/* All three. */
int harness_create(struct harness_vm *vm, const struct harness_params *params);
/* BOOT from a file. initramfs NULL: none. */
int harness_boot(struct harness_vm *vm, const char *kernel, const char *initramfs,
		 const char *cmdline);
int harness_load(struct harness_vm *vm, int state_fd);
int harness_resume(struct harness_vm *vm);
int harness_pause(struct harness_vm *vm);
/* SAVE; *ret_state_fd (a new memfd) and, for private memory, *ret_memory_fd are the caller's. */
int harness_save(struct harness_vm *vm, int *ret_state_fd, int *ret_memory_fd);

/* Waits until a vCPU has entered for the first time. */
int harness_wait_entered(struct harness_vm *vm);
/* Waits for events until the VM is over. -ETIMEDOUT. */
int harness_wait_exit(struct harness_vm *vm, int timeout_ms);
/* Waits until the console holds text. -ETIMEDOUT. */
int harness_wait_console(struct harness_vm *vm, const char *text, int timeout_ms);
/* All of the console so far, NUL-terminated, owned by the caller; NULL without memory. */
char *harness_console(struct harness_vm *vm);
