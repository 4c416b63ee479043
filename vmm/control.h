/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control protocol between warmbox-vmm and the process that started it.
 *
 * Transport: one SOCK_SEQPACKET Unix socket, descriptor VMM_CONTROL_FD in the VMM. One packet is
 * one struct vmm_message: a fixed little-endian header, `text_length` bytes of text, and
 * descriptors (SCM_RIGHTS). The VMM opens nothing itself: all it may touch arrives here. When the
 * socket closes, the VMM exits.
 *
 * Every request gets exactly one reply with the same `op` and `sequence`, in order; result is 0 or
 * -errno, and on failure the text says why. Events carry sequence 0 and may come at any time. The
 * manager does not trust what the VMM says: a message of a wrong size or unknown op kills the VMM.
 *
 *    spawn ─ CREATE ─┬─ BOOT ─────────────────┬─ RESUME ⇄ PAUSE ─ SAVE
 *                    └─ LOAD ─ ATTACH(identity)┘
 *
 * CREATE makes the VM: irqchip, memory slots, vCPUs, devices ("shell"). BOOT or LOAD gives it a
 * state; the vCPUs stay paused until RESUME. ATTACH may come at any time after LOAD or BOOT.
 */

#include "base/error.h"
#include "base/util.h"

#define VMM_CONTROL_FD 3

#define VMM_VCPUS_MAX	     8
#define VMM_DISKS_MAX	     4
#define VMM_MEMORY_MIN_BYTES MIB(1)
/* Guest memory is one piece below the 32-bit MMIO hole. */
#define VMM_MEMORY_MAX_BYTES GIB(3)
/* The kernel command line is limited by COMMAND_LINE_SIZE of x86 Linux
 * (arch/x86/include/asm/setup.h). */
#define VMM_TEXT_MAX 2048

enum vmm_op {
	/*
	 * Makes the VM. arg0 memory bytes (page multiple), arg1 vCPUs, arg2 enum vmm_create_flags,
	 * arg3 number of disks, arg4 bit n set: disk n is read-only, arg5 guest CID (>= 3).
	 * fds: memory (a memfd of exactly arg0 bytes; writable when VMM_CREATE_SHARED, else
	 * read-only), console (bytes the guest writes to its serial port go here; a file or pipe),
	 *      vsock listener (listening SOCK_STREAM Unix socket, hybrid protocol; or an
	 * unconnected Unix socket to have no listener), then the disks. Reply: arg0..arg4
	 * CLOCK_MONOTONIC ns at: start, VM created, memslot set, vCPUs created, devices ready.
	 */
	VMM_OP_CREATE = 1,

	/* Loads a kernel. fds: kernel (ELF vmlinux or bzImage), initramfs (optional). Text: kernel
	 * command line; the VMM appends the devices and what the host kind needs. Reply: arg0 enum
	 * vmm_host_kind. */
	VMM_OP_BOOT = 2,

	/* Loads a saved state. fds: state (read-only, a regular file or memfd). The whole state is
	 * validated before any of it is applied. Reply: arg0 CLOCK_REALTIME ns, arg1 the value the
	 * guest's RDTSC would have given at that instant, arg2 guest TSC kHz. The pair lets the
	 * guest work out the present time whenever it gets to it. */
	VMM_OP_LOAD = 3,

	/* Connects a stream to a guest vsock port, as if a host client had connected. fds: stream
	 * (one end of a connected SOCK_STREAM Unix socketpair). arg0 port. Bytes that are already
	 * in the stream when a VM is paused with a fresh LOAD are placed in the guest's receive
	 * queue before the first vCPU entry. The reply does not wait for the guest; a connection
	 * the guest refuses is closed. */
	VMM_OP_ATTACH = 4,

	/* Lets the vCPUs run. Reply: at once; VMM_EVENT_ENTERED follows. */
	VMM_OP_RESUME = 5,

	/* Stops the vCPUs. Reply: when all have left KVM_RUN and devices are quiet (block I/O
	   drained). */
	VMM_OP_PAUSE = 6,

	/* Writes the state. Only while paused. fds: state (writable, empty), and for a VM with
	 * private memory: memory (a writable memfd of the memory size, all holes; pages that are
	 * not zero are written to it). Open vsock connections are not part of the state: they are
	 * reset, on both sides. Reply: arg0 state bytes. The VM may be resumed afterwards. */
	VMM_OP_SAVE = 7,

	/* Answer to VMM_EVENT_CONNECT. arg0 its id, result 0 or -errno. fds: stream when result is
	   0. No reply. */
	VMM_OP_CONNECTED = 8,

	/* Event: the first vCPU is about to enter the guest after a RESUME. arg0 CLOCK_MONOTONIC
	   ns. */
	VMM_EVENT_ENTERED = 0x101,

	/* Event: the guest opened a connection to the host (CID 2). arg0 id, arg1 port. At most
	 * VMM_CONNECTS_MAX are outstanding; the manager answers each with VMM_OP_CONNECTED. */
	VMM_EVENT_CONNECT = 0x102,

	/* Event: the VM is over; the VMM exits next. arg0 enum vmm_exit_reason, arg1 exit code.
	   Text: for a person. */
	VMM_EVENT_EXITED = 0x103,
};

#define VMM_CONNECTS_MAX 64

enum vmm_create_flags {
	VMM_CREATE_SHARED =
		1 << 0, /* map the memory shared and writable (boot), not private (restore) */
};

enum vmm_exit_reason {
	VMM_EXIT_GUEST = 1,   /* the guest wrote to the exit port; arg1 is the byte it wrote */
	VMM_EXIT_RESET = 2,   /* keyboard-controller or port 0xcf9 reset, or a triple fault */
	VMM_EXIT_FAILURE = 3, /* KVM or the VMM gave up; arg1 is an errno */
};

/* What kind of KVM this is. Recorded in snapshots: a snapshot restores only on its own kind. */
enum vmm_host_kind {
	VMM_HOST_VMX = 1,
	VMM_HOST_SVM = 2,
	VMM_HOST_PVM = 3,
};

#define VMM_ARGS 6

/* On the wire as it stands here; x86-64 is little-endian. */
struct vmm_message {
	uint32_t op;	   /* enum vmm_op */
	int32_t result;	   /* 0 or -errno; 0 in requests */
	uint64_t sequence; /* chosen by the requester, >= 1; 0 in events */
	uint64_t arg[VMM_ARGS];
	uint32_t text_length; /* bytes of text in use, <= VMM_TEXT_MAX; not NUL-terminated on the
				 wire */
	uint32_t reserved;    /* 0 */
	char text[VMM_TEXT_MAX +
		  1]; /* NUL-terminated by the receiver; only text_length bytes are sent */
};

_Static_assert(offsetof(struct vmm_message, text) == 72, "wire layout");

/* The most descriptors a message carries: memory, console, listener, disks. */
#define VMM_FDS_MAX (3 + VMM_DISKS_MAX)

/* Sends one message (text_length and text must be set). fds are borrowed. 0 or -errno (-EAGAIN on a
 * full non-blocking socket). */
int vmm_control_send(int socket, const struct vmm_message *message, const int *fds, size_t n_fds);

/*
 * Receives one message; blocks when the socket does. Validates size, text and reserved fields.
 * 1: a message, fds owned by the caller. 0: the peer closed. <0: -errno; -EBADMSG for a malformed
 * packet.
 */
int vmm_control_receive(int socket, struct vmm_message *ret_message, int fds[VMM_FDS_MAX],
			size_t *ret_n_fds);

/*
 * Blocking helper for tests, the builder and the doctor: sends a request with the given sequence
 * and waits for its reply. Events that arrive meanwhile go to on_event (may be NULL; then they are
 * dropped). timeout_ms < 0 waits for ever. 0 with *ret_reply (may be NULL), the reply's -errno with
 * its text in error, -ETIMEDOUT, or -ECONNRESET when the VMM is gone.
 */
typedef void (*vmm_control_event_fn)(void *userdata, const struct vmm_message *event);
int vmm_control_call(int socket, const struct vmm_message *request, const int *fds, size_t n_fds,
		     int timeout_ms, vmm_control_event_fn on_event, void *userdata,
		     struct vmm_message *ret_reply, struct base_error *error);
