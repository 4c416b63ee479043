/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-vmm as it is when its guest has taken it over: the program itself, and in it what an
 * attacker would run (attacks.h). The first byte that a restored guest writes to a port starts it,
 * on the vCPU's thread or on the main thread, with whatever they have. What came of it is written
 * to the console: "attack: <errno>". Never installed.
 */

#include "base/util.h"
#include "tests/attack/attacks.h"
#include "vmm/virtio_block.h"
#include "vmm/vm.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* As in tests/guest/tiny/guest.h. */
#define MAILBOX_GPA 0x90000
#define FDS_MAX	    1024

static struct vmm_vm *vm;

/* No function of the C library does more than its call here: what is tested is the call. */
#define TRY(...)                                     \
	({                                           \
		long result_ = syscall(__VA_ARGS__); \
		result_ < 0 ? errno : 0;             \
	})

static int open_passwd(void)
{
	return TRY(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static int open_upwards(void)
{
	return TRY(SYS_openat, AT_FDCWD, "../../../../../../etc/passwd", O_RDONLY);
}

static int open_proc(void)
{
	return TRY(SYS_openat, AT_FDCWD, "/proc/1/status", O_RDONLY);
}

static int open_sys(void)
{
	return TRY(SYS_open, "/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
}

static int open_kvm(void)
{
	return TRY(SYS_open, "/dev/kvm", O_RDWR);
}

static int open_userfaultfd(void)
{
	return TRY(SYS_open, "/dev/userfaultfd", O_RDWR);
}

static int open_by_openat2(void)
{
	struct open_how how = { .flags = O_PATH };

	return TRY(SYS_openat2, AT_FDCWD, "/etc", &how, sizeof(how));
}

static int create_file(void)
{
	return TRY(SYS_openat, AT_FDCWD, "/file", O_CREAT | O_RDWR, 0600);
}

static int create_directory(void)
{
	return TRY(SYS_mkdir, "/directory", 0700);
}

static int make_device(void)
{
	return TRY(SYS_mknod, "/device", S_IFBLK | 0600, makedev(8, 0));
}

static int list_mounts(void)
{
	return TRY(SYS_open, "/proc/self/mountinfo", O_RDONLY);
}

static int mount_proc(void)
{
	return TRY(SYS_mount, "proc", "/", "proc", 0, NULL);
}

static int mount_tmpfs(void)
{
	return TRY(SYS_mount, "none", "/", "tmpfs", 0, NULL);
}

static int unmount_root(void)
{
	return TRY(SYS_umount2, "/", MNT_DETACH);
}

static int change_root(void)
{
	return TRY(SYS_chroot, "/");
}

static int pivot(void)
{
	return TRY(SYS_pivot_root, "/", "/");
}

static int open_by_handle(void)
{
	struct {
		struct file_handle head;
		unsigned char bytes[8];
	} handle = { .head = { .handle_bytes = 8, .handle_type = 1 } };

	return TRY(SYS_open_by_handle_at, vm->loop->epoll_fd, &handle, O_RDONLY);
}

static int execute_shell(void)
{
	char *argv[] = { (char *)"sh", NULL };

	return TRY(SYS_execve, "/bin/sh", argv, argv + 1);
}

static int connect_to(int domain, int type, const void *address, socklen_t size)
{
	long fd = syscall(SYS_socket, domain, type, 0);

	return fd < 0 ? errno : TRY(SYS_connect, fd, address, size);
}

static int connect_inet(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(80) };

	address.sin_addr.s_addr = htonl(0x01010101);
	return connect_to(AF_INET, SOCK_STREAM, &address, sizeof(address));
}

/* The test listens there, in the network namespace of the host. */
static int connect_abstract(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = ATTACK_ABSTRACT };

	return connect_to(AF_UNIX, SOCK_STREAM, &address, sizeof(address));
}

static int connect_path(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/run/warmbox/socket" };

	return connect_to(AF_UNIX, SOCK_STREAM, &address, sizeof(address));
}

static int raw_socket(void)
{
	return TRY(SYS_socket, AF_INET, SOCK_RAW, 255);
}

static int packet_socket(void)
{
	return TRY(SYS_socket, AF_PACKET, SOCK_RAW, 0);
}

/* A process of the host: the test that started this one, by the number it has there. */
static pid_t host_pid(void)
{
	uint32_t pid = 0;

	memcpy(&pid, vm->memory.base + MAILBOX_GPA + 8, sizeof(pid));
	return (pid_t)pid;
}

static int kill_host(void)
{
	return TRY(SYS_kill, host_pid(), SIGKILL);
}

/* Of all but itself: there is nobody. */
static int kill_all(void)
{
	return TRY(SYS_kill, -1, SIGKILL);
}

static int trace_host(void)
{
	return TRY(SYS_ptrace, PTRACE_ATTACH, host_pid(), 0, 0);
}

static int read_host_memory(void)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { vm, 1 };

	return TRY(SYS_process_vm_readv, host_pid(), &local, 1, &remote, 1, 0);
}

static int open_host_process(void)
{
	return TRY(SYS_pidfd_open, host_pid(), 0);
}

static int host_priority(void)
{
	return TRY(SYS_setpriority, PRIO_PROCESS, host_pid(), 19);
}

static int signal_host_thread(void)
{
	return TRY(SYS_tgkill, host_pid(), host_pid(), SIGUSR1);
}

static int become_root(void)
{
	return TRY(SYS_setresuid, 0, 0, 0);
}

static int become_group(void)
{
	return TRY(SYS_setresgid, 0, 0, 0);
}

static int gain_capability(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct all[_LINUX_CAPABILITY_U32S_3] = {
		{ ~0u, ~0u, ~0u },
		{ ~0u, ~0u, ~0u },
	};

	return TRY(SYS_capset, &header, all);
}

static int raise_ambient(void)
{
	return TRY(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0);
}

static int raise_files_limit(void)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };

	return TRY(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
}

static int lower_nice(void)
{
	return TRY(SYS_setpriority, PRIO_PROCESS, 0, -20);
}

static int enter_namespace(void)
{
	return TRY(SYS_setns, vm->over_fd, 0);
}

static int new_user_namespace(void)
{
	return TRY(SYS_unshare, CLONE_NEWUSER);
}

static int new_mount_namespace(void)
{
	return TRY(SYS_unshare, CLONE_NEWNS);
}

static int set_host_name(void)
{
	return TRY(SYS_sethostname, "taken", 5);
}

static int set_time(void)
{
	struct timespec now = { .tv_sec = 1 };

	return TRY(SYS_clock_settime, CLOCK_REALTIME, &now);
}

static int load_module(void)
{
	return TRY(SYS_finit_module, vm->over_fd, "", 0);
}

static int reboot_host(void)
{
	return TRY(SYS_reboot, 0, 0, 0, NULL); /* not its magic numbers: they are looked at later */
}

static int io_ports(void)
{
	return TRY(SYS_iopl, 3);
}

/* The descriptor of the image, if the VMM still has one. */
static int find_image(void)
{
	struct stat info;

	for (int fd = 3; fd < FDS_MAX; fd++) {
		if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
		    (uint64_t)info.st_size == vm->memory.size_bytes) {
			return fd;
		}
	}
	return -1;
}

static int write_image(void)
{
	char byte = 1;

	return TRY(SYS_write, find_image(), &byte, 1);
}

static int write_image_at(void)
{
	char byte = 1;

	return TRY(SYS_pwrite64, find_image(), &byte, 1, 0);
}

static int map_image_shared(void)
{
	return TRY(SYS_mmap, NULL, vm->memory.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		   find_image(), 0);
}

/* A mapping that is shared can be had twice by an old size of nothing. */
static int remap_image(void)
{
	return TRY(SYS_mremap, vm->memory.base, 0, vm->memory.size_bytes, MREMAP_MAYMOVE);
}

static int reopen_image(void)
{
	return TRY(SYS_open, "/proc/self/fd/5", O_RDWR);
}

static int punch_image(void)
{
	return TRY(SYS_madvise, vm->memory.base, vm->memory.size_bytes, MADV_REMOVE);
}

static int empty_image(void)
{
	return TRY(SYS_fallocate, find_image(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		   vm->memory.size_bytes);
}

static int trace_performance(void)
{
	struct perf_event_attr attributes = { .type = PERF_TYPE_SOFTWARE,
					      .size = sizeof(attributes) };

	return TRY(SYS_perf_event_open, &attributes, -1, 0, -1, 0);
}

static int load_bpf(void)
{
	union bpf_attr attributes = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1
	};

	return TRY(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}

static int remove_filter(void)
{
	return TRY(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_DISABLED, NULL, 0, 0);
}

/* What comes of an operation on the ring of the disk. */
static int try_ring(void (*prepare)(struct io_uring_sqe *sqe))
{
	struct vmm_block *block =
		CONTAINER_OF(vm->devices[VMM_SLOT_DISK], struct vmm_block, virtio);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&block->ring);
	struct io_uring_cqe *cqe;
	int r;

	prepare(sqe);
	if (io_uring_submit_and_wait(&block->ring, 1) < 0 ||
	    io_uring_peek_cqe(&block->ring, &cqe) < 0) {
		return EIO;
	}
	r = cqe->res;
	io_uring_cqe_seen(&block->ring, cqe);
	return r < 0 ? -r : 0;
}

static void prepare_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY, 0);
}

static int open_by_ring(void)
{
	return try_ring(prepare_open);
}

static void prepare_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_rw(IORING_OP_SOCKET, sqe, AF_UNIX, NULL, 0, SOCK_STREAM);
}

static int socket_by_ring(void)
{
	return try_ring(prepare_socket);
}

static void prepare_link(struct io_uring_sqe *sqe)
{
	static char byte;
	static struct iovec iov = { &byte, 1 };

	io_uring_prep_readv(sqe, vm->over_fd, &iov, 1, 0);
	sqe->flags |= IOSQE_IO_LINK;
}

static int linked_by_ring(void)
{
	return try_ring(prepare_link);
}

static int map_code(void)
{
	return TRY(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int make_ring(void)
{
	struct io_uring_params params = { 0 };

	return TRY(SYS_io_uring_setup, 1, &params);
}

static int make_vm(void)
{
	return TRY(SYS_ioctl, vm->kvm_fd, KVM_CREATE_VM, 0);
}

static int add_memory_slot(void)
{
	struct kvm_userspace_memory_region region = { .slot = 1, .guest_phys_addr = GIB(1) };

	region.memory_size = 4096;
	region.userspace_addr = (uintptr_t)vm->memory.base;
	return TRY(SYS_ioctl, vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static int make_process(void)
{
	long pid = syscall(SYS_fork);

	if (pid == 0) {
		_exit(0);
	}
	return pid < 0 ? errno : 0;
}

static int unregister_userfault(void)
{
	struct uffdio_range range = { (uintptr_t)vm->memory.base, vm->memory.size_bytes };

	return TRY(SYS_ioctl, vm->memory.userfault_fd, UFFDIO_UNREGISTER, &range);
}

/* --- when and where --- */

#define ATTACK_FUNCTION(name, filter, jail, or) [ATTACK_##name] = name,
static int (*const attacks[])(void) = { ATTACKS(ATTACK_FUNCTION) };

static pthread_mutex_t forever = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static bool on_main;
static uint32_t number;

static void attack(void)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "attack: %d\n",
			 number < N_ATTACKS ? attacks[number]() : EINVAL);

	if (write(vm->serial.console_fd, text, (size_t)n) < 0) {
		_exit(EXIT_FAILURE);
	}
}

void __real_vmm_ports_write(struct vmm_vm *vm, uint16_t port, const void *data, unsigned length);
void __wrap_vmm_ports_write(struct vmm_vm *owner, uint16_t port, const void *data, unsigned length);
int __real_epoll_wait(int fd, struct epoll_event *events, int n, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int timeout);

void __wrap_vmm_ports_write(struct vmm_vm *owner, uint16_t port, const void *data, unsigned length)
{
	uint64_t one = 1;

	if (vm || owner->config.shared) {
		__real_vmm_ports_write(owner, port, data, length);
		return;
	}
	vm = owner;
	memcpy(&number, vm->memory.base + MAILBOX_GPA + 4, sizeof(number));
	if (!(number & ATTACK_ON_MAIN)) {
		attack();
		return;
	}
	number &= ~ATTACK_ON_MAIN;
	__atomic_store_n(&on_main, true, __ATOMIC_SEQ_CST);
	if (write(vm->reset_fd, &one, sizeof(one)) < 0) {
		_exit(EXIT_FAILURE);
	}
	/* The guest stands still: what it wrote to the console would get into the answer. */
	pthread_mutex_unlock(&vm->loop->lock);
	pthread_mutex_lock(&forever);
	for (;;) {
		pthread_cond_wait(&never, &forever);
	}
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
	int r = __real_epoll_wait(fd, events, n, timeout);

	if (__atomic_exchange_n(&on_main, false, __ATOMIC_SEQ_CST)) {
		attack();
	}
	return r;
}

#ifdef ATTACK_UNFILTERED
int __wrap_filter_install(const struct filter *filter, enum filter_mode mode);

/* The jail has to hold alone. */
int __wrap_filter_install(const struct filter *filter, enum filter_mode mode)
{
	return 0;
}
#endif
