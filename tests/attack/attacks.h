/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a VMM that its guest has taken over tries, and what stops it. Each line is one attack: its
 * function in attacked.c, what comes of it under the filters, and what comes of it in the jail
 * without any filter.
 *
 * Under the filters: KILLED (SIGSYS), or the errno with which the kernel refuses what the filter
 * has to let through. In the jail: the errno, or WON with the reason why winning gains nothing.
 */

#include <errno.h>

#define KILLED (-1)
#define WON    0

/*     name                    filter   jail, one of two */
#define ATTACKS(X)                                                   \
	/* Files and mounts of the host. */                          \
	X(open_passwd, KILLED, ENOENT, ENOENT)                       \
	X(open_upwards, KILLED, ENOENT, ENOENT)                      \
	X(open_proc, KILLED, ENOENT, ENOENT)                         \
	X(open_sys, KILLED, ENOENT, ENOENT)                          \
	X(open_kvm, KILLED, ENOENT, ENOENT)                          \
	X(open_userfaultfd, KILLED, ENOENT, ENOENT)                  \
	X(open_by_openat2, KILLED, ENOENT, ENOENT)                   \
	X(create_file, KILLED, EROFS, EACCES)                        \
	X(create_directory, KILLED, EROFS, EACCES)                   \
	X(make_device, KILLED, EPERM, EROFS)                         \
	X(list_mounts, KILLED, ENOENT, ENOENT)                       \
	X(mount_proc, KILLED, EPERM, EPERM)                          \
	X(mount_tmpfs, KILLED, EPERM, EPERM)                         \
	X(unmount_root, KILLED, EPERM, EPERM)                        \
	X(change_root, KILLED, EPERM, EPERM)                         \
	X(pivot, KILLED, EPERM, EPERM)                               \
	X(open_by_handle, KILLED, EPERM, EPERM)                      \
	/* Programs. */                                              \
	X(execute_shell, KILLED, ENOENT, ENOENT)                     \
	/* Networks and sockets. */                                  \
	X(connect_inet, KILLED, ENETUNREACH, ENETUNREACH)            \
	X(connect_abstract, KILLED, ECONNREFUSED, ECONNREFUSED)      \
	X(connect_path, KILLED, ENOENT, ENOENT)                      \
	X(raw_socket, KILLED, EPERM, EPERM)                          \
	X(packet_socket, KILLED, EPERM, EPERM)                       \
	/* Other processes. */                                       \
	X(kill_host, KILLED, ESRCH, ESRCH)                           \
	X(kill_all, KILLED, ESRCH, ESRCH)                            \
	X(trace_host, KILLED, ESRCH, EPERM)                          \
	X(read_host_memory, KILLED, ESRCH, EPERM)                    \
	X(open_host_process, KILLED, ESRCH, ESRCH)                   \
	X(host_priority, ESRCH, ESRCH, ESRCH)                        \
	X(signal_host_thread, ESRCH, ESRCH, ESRCH)                   \
	/* Privileges. */                                            \
	X(become_root, KILLED, EINVAL, EPERM)                        \
	X(become_group, KILLED, EINVAL, EPERM)                       \
	X(gain_capability, KILLED, EPERM, EPERM)                     \
	X(raise_ambient, KILLED, EPERM, EPERM)                       \
	X(raise_files_limit, KILLED, EPERM, EPERM)                   \
	X(lower_nice, EACCES, EACCES, EPERM)                         \
	X(enter_namespace, KILLED, EINVAL, EPERM)                    \
	X(new_user_namespace, KILLED, EINVAL, EPERM)                 \
	X(new_mount_namespace, KILLED, EPERM, EPERM)                 \
	X(set_host_name, KILLED, EPERM, EPERM)                       \
	X(set_time, KILLED, EPERM, EPERM)                            \
	X(load_module, KILLED, EPERM, ENOSYS)                        \
	X(reboot_host, KILLED, EPERM, EPERM)                         \
	X(io_ports, KILLED, EPERM, ENOSYS)                           \
	/* What the sandboxes of a template share. */                \
	X(write_image, KILLED, EBADF, EBADF)                         \
	X(write_image_at, KILLED, EBADF, EBADF)                      \
	X(map_image_shared, KILLED, EBADF, EACCES)                   \
	X(remap_image, KILLED, EINVAL, EINVAL)                       \
	X(reopen_image, KILLED, ENOENT, ENOENT)                      \
	X(punch_image, KILLED, EACCES, EINVAL)                       \
	X(empty_image, KILLED, EBADF, EBADF)                         \
	/* Past the filters by the ring of the disk. */              \
	X(open_by_ring, EACCES, EACCES, EACCES)                      \
	X(socket_by_ring, EACCES, EACCES, EACCES)                    \
	X(linked_by_ring, EACCES, EACCES, EACCES)                    \
	/* The kernel's other doors. */                              \
	X(trace_performance, KILLED, EACCES, EPERM)                  \
	X(load_bpf, KILLED, EPERM, EPERM)                            \
	X(remove_filter, KILLED, EPERM, EINVAL)                      \
	/* What only the filters forbid: it is all the VMM's own. */ \
	X(map_code, KILLED, WON, WON)                                \
	X(make_ring, KILLED, WON, WON)                               \
	X(make_vm, KILLED, WON, WON)                                 \
	X(add_memory_slot, KILLED, WON, WON)                         \
	X(make_process, KILLED, WON, EAGAIN)                         \
	X(unregister_userfault, KILLED, WON, EBADF)

#define ATTACK_NAME(name, filter, jail, or) ATTACK_##name,
enum attack { ATTACKS(ATTACK_NAME) N_ATTACKS };

/* Where connect_abstract tries to get. */
#define ATTACK_ABSTRACT "\0warmbox-attack-test"

/* With the number of the attack, in the parameter of the mailbox: the main thread does it. */
#define ATTACK_ON_MAIN (1u << 31)
