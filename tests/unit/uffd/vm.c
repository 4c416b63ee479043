/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The stand-in for a VMM: a child process that serves one socket. It dies with the test.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/uffd/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define PAGE_BYTES KIB(4)

uint64_t fake_vm_sum(const uint8_t *memory, struct fake_vm_order order)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < order.count; i++) {
		uint64_t page = (order.first + i * order.stride) % order.n_pages;

		sum += XXH3_64bits_withSeed(memory + page * PAGE_BYTES, PAGE_BYTES, page);
	}
	return sum;
}

/* --- in the child --- */

static int open_userfaultfd(void)
{
	_cleanup_fd_ int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	return device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
			   : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

static int register_memory(int uffd, void *memory, uint64_t bytes)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	struct uffdio_register all = {
		.range = { .start = (uintptr_t)memory, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 ||
			       ioctl(uffd, UFFDIO_REGISTER, &all) < 0
		       ? -errno
		       : 0;
}

static int serve(int memfd, uint64_t bytes, int socket)
{
	int uffd = open_userfaultfd();
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
	uint64_t address = (uintptr_t)memory;
	struct fake_vm_order order;

	if (memory == MAP_FAILED || register_memory(uffd, memory, bytes) < 0 ||
	    base_fd_send(socket, &address, sizeof(address), &uffd, 1, 0) < 0) {
		return 1;
	}
	while (read(socket, &order, sizeof(order)) == sizeof(order)) {
		uint64_t sum = fake_vm_sum(memory, order);

		if (write(socket, &sum, sizeof(sum)) != sizeof(sum)) {
			return 1;
		}
	}
	return 0;
}

/* --- in the test --- */

struct fake_vm fake_vm_start(int memfd, uint64_t bytes)
{
	struct fake_vm vm = { .uffd = -1 };
	_cleanup_fd_ int read_only = -1;
	int sockets[2];
	size_t n_fds;

	assert_int_equal(base_fd_reopen_readonly(memfd, &read_only), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	vm.pid = fork();
	assert_true(vm.pid >= 0);
	if (vm.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Nothing of the test's: its sockets must close when it closes them. */
		int socket = fcntl(sockets[1], F_DUPFD, 5), memory = fcntl(read_only, F_DUPFD, 5);

		dup2(socket, 3);
		dup2(memory, 4);
		close_range(5, ~0U, 0);
		_exit(serve(4, bytes, 3));
	}
	close(sockets[1]);
	vm.socket = sockets[0];
	if (base_fd_receive(vm.socket, &vm.address, sizeof(vm.address), &vm.uffd, 1, &n_fds, 0) !=
		    sizeof(vm.address) ||
	    n_fds != 1) {
		fail_msg("the VM's process did not start");
	}
	return vm;
}

void fake_vm_ask(struct fake_vm *vm, struct fake_vm_order order)
{
	assert_int_equal(write(vm->socket, &order, sizeof(order)), sizeof(order));
}

bool fake_vm_is_silent(struct fake_vm *vm, int timeout_ms)
{
	struct pollfd item = { .fd = vm->socket, .events = POLLIN };

	return poll(&item, 1, timeout_ms) == 0;
}

uint64_t fake_vm_answer(struct fake_vm *vm, int timeout_ms)
{
	uint64_t sum = 0;

	if (fake_vm_is_silent(vm, timeout_ms)) {
		fail_msg("a VM hangs");
	}
	assert_int_equal(read(vm->socket, &sum, sizeof(sum)), sizeof(sum));
	return sum;
}

void fake_vm_end(struct fake_vm *vm)
{
	if (vm->pid > 0) {
		kill(vm->pid, SIGKILL);
		waitpid(vm->pid, NULL, 0);
		base_fd_close(vm->uffd);
		base_fd_close(vm->socket);
	}
	vm->pid = 0;
}
