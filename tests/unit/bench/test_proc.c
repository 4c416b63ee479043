/* SPDX-License-Identifier: Apache-2.0 */

/* What is read of /proc, against processes whose memory, threads and descriptors are known; and the
 * arrivals of an open loop. */

#include "bench/arrivals.h"
#include "bench/proc.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CHILD_BYTES MIB(8)
#define IMAGE_BYTES MIB(4)
#define FDS	    10

/* A child named as a VMM that has some memory and descriptors of its own. */
static pid_t start_child(const char *name)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int image = memfd_create("image", 0);
		char *memory, *guest;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, name);
		memory = mmap(NULL, CHILD_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(memory, 1, CHILD_BYTES);
		if (ftruncate(image, IMAGE_BYTES) == 0) {
			guest = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, image,
				     0);
			memset(guest, 1, IMAGE_BYTES / 2);
		}
		for (int i = 0; i < FDS; i++) {
			if (open("/dev/null", O_RDONLY) < 0) {
				_exit(1);
			}
		}
		if (write(ready[1], "x", 1) == 1) {
			pause();
		}
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void stop_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_roles(void **state)
{
	struct bench_usage before[BENCH_ROLES], with[BENCH_ROLES];
	pid_t vmm, pager;

	bench_proc_usage(getpid(), 1, before);
	assert_int_equal(before[BENCH_ROLE_MANAGER].processes, 1);
	assert_int_equal(before[BENCH_ROLE_VMM].processes, 0);
	assert_true(before[BENCH_ROLE_MANAGER].fds >= 3);
	assert_true(before[BENCH_ROLE_MANAGER].pss_bytes > 0);

	vmm = start_child("warmbox-vmm");
	pager = start_child("warmbox-pager");
	bench_proc_usage(getpid(), 1, with);
	assert_int_equal(with[BENCH_ROLE_VMM].processes, 1);
	assert_int_equal(with[BENCH_ROLE_VMM].threads, 1);
	assert_int_equal(with[BENCH_ROLE_PAGER].processes, 1);
	assert_int_equal(with[BENCH_ROLE_SPAWNER].processes, 0);
	assert_true(with[BENCH_ROLE_VMM].fds > FDS);
	assert_true(with[BENCH_ROLE_VMM].private_bytes >= CHILD_BYTES + IMAGE_BYTES / 2);
	assert_true(with[BENCH_ROLE_VMM].rss_bytes >= CHILD_BYTES);
	assert_int_equal(bench_proc_guest_private(vmm), IMAGE_BYTES / 2);
	stop_child(vmm);
	stop_child(pager);
}

static void test_meminfo(void **state)
{
	assert_true(bench_meminfo("MemTotal") > bench_meminfo("MemAvailable"));
	assert_true(bench_meminfo("MemAvailable") > 0);
	assert_int_equal(bench_meminfo("Mem"), 0);
}

static void test_pinning(void **state)
{
	int cores[CPU_SETSIZE];
	size_t n = bench_cores(cores, CPU_SETSIZE);
	cpu_set_t before, set;
	pid_t child = start_child("x");

	assert_true(n >= 1);
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	CPU_ZERO(&set);
	CPU_SET(cores[n - 1], &set);
	assert_int_equal(bench_pin_tree(getpid(), &set), 0);
	assert_int_equal(sched_getaffinity(child, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), 1);
	assert_true(CPU_ISSET(cores[n - 1], &set));
	assert_int_equal(bench_pin_tree(getpid(), &before), 0);
	assert_true(bench_pin(0, CPU_SETSIZE - 1) < 0);
	stop_child(child);
}

/* Mean and spread of exponential gaps are both the mean; every run is the same. */
static void test_arrivals(void **state)
{
	struct bench_arrivals arrivals = bench_arrivals(100), again = bench_arrivals(100);
	double sum = 0, squares = 0, mean = 1e7;
	uint64_t last = 0;

	for (int i = 0; i < 100000; i++) {
		uint64_t due = bench_arrivals_next(&arrivals);

		assert_true(due >= last);
		assert_int_equal(due, bench_arrivals_next(&again));
		sum += (double)(due - last);
		squares += (double)(due - last) * (double)(due - last);
		last = due;
	}
	assert_true(fabs(sum / 100000 - mean) < 0.02 * mean);
	assert_true(fabs(sqrt(squares / 100000 - pow(sum / 100000, 2)) - mean) < 0.03 * mean);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_meminfo),
		cmocka_unit_test(test_pinning),
		cmocka_unit_test(test_arrivals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
