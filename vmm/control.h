/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control protocol between warmbox-vmm and the process that started it.
 *
 * Transport: base/message.h over the socket that is descriptor VMM_CONTROL_FD in the VMM. The VMM
 * opens nothing itself: it has /dev/kvm as descriptor VMM_KVM_FD from birth, and all else that it
 * may touch arrives here. When the socket closes, the VMM exits, unless its VM is leased
 * (VMM_RESUME_LEASED): then it goes on and waits for a successor. Replies come in the order of the
 * requests. The manager does not trust what the VMM says: a message of a wrong size or unknown op
 * kills the VMM.
 *
 *    spawn ─ CREATE ─┬─ BOOT ─────────────────┬─ RESUME ⇄ PAUSE ─ SAVE
 *                    └─ LOAD ─ ATTACH(identity)┘
 *
 * CREATE makes the VM: irqchip, memory slots, vCPUs, devices ("shell"). BOOT or LOAD gives it a
 * state; the vCPUs stay paused until RESUME. What a state says of the CPU can be set by CREATE
 * already, which makes LOAD quicker and saves the VMM from asking KVM. ATTACH may come at any time
 * after LOAD or BOOT.
 */

#include "base/message.h"

#define VMM_CONTROL_FD 3
/* /dev/kvm, opened by whoever starts the VMM. */
#define VMM_KVM_FD 4
/* A starter that does not read its socket for so long is taken for dead. */
#define VMM_SEND_TIMEOUT_S	  10
#define VMM_ORPHAN_TIMEOUT_MAX_MS UINT64_C(86400000) /* a day */

#define VMM_VCPUS_MAX	     8
#define VMM_DISKS_MAX	     4
#define VMM_MEMORY_MIN_BYTES MIB(1)
/* Guest memory is one piece below the 32-bit MMIO hole. */
#define VMM_MEMORY_MAX_BYTES GIB(3)
/* The kernel command line is limited by COMMAND_LINE_SIZE of x86 Linux
 * (arch/x86/include/asm/setup.h), which is as much as the text of a message holds. */
_Static_assert(BASE_MESSAGE_TEXT_MAX == 2048, "COMMAND_LINE_SIZE");

enum vmm_op {
	/*
	 * Makes the VM. arg0 memory bytes (page multiple), arg1 vCPUs, arg2 enum vmm_create_flags,
	 * arg3 number of disks, arg4 bit n set: disk n is read-only, arg5 guest CID (>= 3), arg6
	 * this host's vmm_host_fingerprint() (0: the VMM asks KVM itself; only with
	 * VMM_CREATE_STATE is there anything to save), arg7 its enum vmm_host_kind.
	 * fds: memory (a memfd of exactly arg0 bytes; writable when VMM_CREATE_SHARED, else
	 * read-only), console (bytes the guest writes to its serial port go here; a file or pipe),
	 *      vsock listener (listening SOCK_STREAM Unix socket, hybrid protocol; or an
	 * unconnected Unix socket to have no listener), then the disks, then with VMM_CREATE_STATE
	 * the state that will be loaded (as for LOAD), then with VMM_CREATE_LAZY /dev/userfaultfd
	 * (any other file: the system call is used instead), then with VMM_CREATE_ADOPTABLE a
	 * listening SOCK_SEQPACKET Unix socket for a successor of the starter.
	 *
	 * Reply: arg0..arg4 CLOCK_MONOTONIC ns at: start, VM created, memslot set, vCPUs created,
	 * devices ready. With VMM_CREATE_LAZY, arg5 is the address of the guest memory in the VMM,
	 * and one descriptor comes along: a non-blocking userfaultfd with which all of it is
	 * registered for missing pages. The VMM keeps a copy, so that the registration never lapses
	 * while it lives: a fault that nobody answers waits, it never reads a hole as zeros.
	 */
	VMM_OP_CREATE = 1,

	/* Loads a kernel. fds: kernel (ELF vmlinux or bzImage), initramfs (optional). Text: kernel
	 * command line; the VMM appends the devices and what the host kind needs. Reply: arg0 enum
	 * vmm_host_kind. */
	VMM_OP_BOOT = 2,

	/* Loads a saved state. fds: state (read-only, a regular file or memfd). The whole state is
	 * validated before any of it is applied. Reply: arg0 CLOCK_REALTIME ns, arg1 the value the
	 * guest's RDTSC would have given at that instant, arg2 guest TSC kHz. The pair lets the
	 * guest work out the present time whenever it gets to it. arg3, arg4: CLOCK_MONOTONIC ns
	 * when the request was taken and when the state was applied. */
	VMM_OP_LOAD = 3,

	/* Connects a stream to a guest vsock port, as if a host client had connected. fds: stream
	 * (one end of a connected SOCK_STREAM Unix socketpair). arg0 port. Bytes that are already
	 * in the stream when a VM is paused with a fresh LOAD are placed in the guest's receive
	 * queue before the first vCPU entry. The reply does not wait for the guest; a connection
	 * the guest refuses is closed. */
	VMM_OP_ATTACH = 4,

	/*
	 * Lets the vCPUs run. arg0 enum vmm_resume_flags; arg1 with VMM_RESUME_LEASED how long to
	 * wait for a successor, in ms (1 to VMM_ORPHAN_TIMEOUT_MAX_MS). Reply: at once;
	 * VMM_EVENT_ENTERED follows, unless they run already. With VMM_RESUME_LEASED its arg0 is 1
	 * when no page of the memory is missing any more, else 0.
	 */
	VMM_OP_RESUME = 5,

	/*
	 * Stops the vCPUs. Reply: when all have left KVM_RUN and devices are quiet (block I/O
	 * drained). A vCPU that waits for a missing page in the middle of an instruction that KVM
	 * emulates leaves when it has the page, not before; closing the socket ends the VMM then,
	 * too.
	 */
	VMM_OP_PAUSE = 6,

	/* Writes the state. Only while paused, and of private memory only with VMM_CREATE_SAVABLE.
	 * fds: state (writable, empty), and for a VM with private memory: memory (a writable memfd
	 * of the memory size, all holes; pages that are not zero are written to it). Open vsock
	 * connections are not part of the state: they are reset, on both sides. Reply: arg0 state
	 * bytes. The VM may be resumed afterwards. */
	VMM_OP_SAVE = 7,

	/* Answer to VMM_EVENT_CONNECT. arg0 its id, result 0 or -errno. fds: stream when result is
	   0. No reply. */
	VMM_OP_CONNECTED = 8,

	/* Counts since CREATE. Reply: arg0 KVM_RUN returns, arg1 of them port accesses, arg2 MMIO,
	 * arg3 instructions stepped for kvm-pvm, arg4 bytes the guest has given back (balloon and
	 * free page reporting); arg5 to arg7 as arg0 to arg2 of VMM_EVENT_LIMITED. */
	VMM_OP_COUNTERS = 9,

	/*
	 * What the VMM itself lets its guest have. At any time after CREATE, any number of times;
	 * all limits are set anew. 0: no limit, or where there always is one, the most there can
	 * be. arg0 bytes and arg2 requests a second of all disks together, with bursts arg1 and
	 * arg3 (0: what a second lets in); arg4 bytes a second of the console, the rest is dropped;
	 * arg5 vsock connections, arg6 bytes that the VMM may come to hold of them (VMM_LIMIT_*).
	 * Out of range: -EINVAL, nothing is changed. With sequence 0 there is no reply, and what is
	 * out of range ends the VMM.
	 */
	VMM_OP_LIMITS = 10,

	/* Event: the first vCPU is about to enter the guest after a RESUME. arg0 CLOCK_MONOTONIC
	   ns. */
	VMM_EVENT_ENTERED = 0x101,

	/* Event: the guest opened a connection to the host (CID 2). arg0 id, arg1 port. At most
	 * VMM_CONNECTS_MAX are outstanding; the manager answers each with VMM_OP_CONNECTED. */
	VMM_EVENT_CONNECT = 0x102,

	/* Event: the VM is over; the VMM exits next. arg0 enum vmm_exit_reason, arg1 exit code.
	   Text: for a person. */
	VMM_EVENT_EXITED = 0x103,

	/* Event: the guest is at a limit of VMM_OP_LIMITS. Sent when it is hit, but not more than
	 * once a second; what is hit in between comes with the next. Counts since CREATE: arg0 disk
	 * requests that had to wait, arg1 console bytes dropped, arg2 vsock connections refused. */
	VMM_EVENT_LIMITED = 0x104,
};

#define VMM_CONNECTS_MAX 64

/* The most that VMM_OP_LIMITS takes: arg0 to arg4, arg5, arg6; and the least of arg6. */
#define VMM_LIMIT_RATE_MAX	  GIB(8)
#define VMM_LIMIT_CONNECTIONS_MAX 256
#define VMM_LIMIT_VSOCK_BYTES_MAX MIB(16)
#define VMM_LIMIT_VSOCK_BYTES_MIN KIB(4)

enum vmm_create_flags {
	/* Map the memory shared and writable (boot), not private (restore). */
	VMM_CREATE_SHARED = 1 << 0,
	/* The memory has holes that are still to be filled: not with VMM_CREATE_SHARED. */
	VMM_CREATE_LAZY = 1 << 1,
	/* The state that will be loaded comes along; the vCPUs get its CPUID tables now. LOAD takes
	 * any state all the same. */
	VMM_CREATE_STATE = 1 << 2,
	/* The VM may be leased. */
	VMM_CREATE_ADOPTABLE = 1 << 3,
	/* SAVE will be asked for after a LOAD. A VMM whose VM is shared may always be; one that
	 * serves a guest nobody trusts has no system call for it. */
	VMM_CREATE_SAVABLE = 1 << 4,
};

enum vmm_resume_flags {
	/* All threads of the VMM go to nice 0: somebody waits for this VM. Restores nobody waits
	 * for are started at a higher nice value. */
	VMM_RESUME_FOREGROUND = 1 << 0,
	/*
	 * Somebody uses this VM, from now on: when the control socket closes it goes on, and the
	 * first to connect to the socket that came with VMM_CREATE_ADOPTABLE has the control socket
	 * from then on. Until then connections that the guest opens to the host are refused. Who
	 * connects while the control socket lives is hung up on. A successor sends this RESUME as
	 * its first request. Without one in time the VMM exits.
	 */
	VMM_RESUME_LEASED = 1 << 1,
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
