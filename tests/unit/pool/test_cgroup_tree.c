/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cgroups as files: finding them, limits in both versions' words, processes, what is left behind.
 *
 * What a kernel has to do is done on this host's: all of version 1, and of version 2 what works
 * without controllers (being born into a cgroup, cgroup.kill, removal). The rest of version 2 is
 * tested on a tree of ordinary files, which takes what is written but enforces nothing.
 */

#include "pool/cgroup_tree.h"

#include "base/fd.h"
#include "pool/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ID    "0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210"

/* --- a tree of files --- */

struct fake {
	char root[64];
	char cgroup[96], mountinfo[96];
	struct pool_cgroup_source source;
};

static void put(const struct fake *fake, const char *name, const char *text)
{
	char path[512];
	_cleanup_fd_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", fake->root, name);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(path, 0755);
		*slash = '/';
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(base_fd_write_full(fd, text, strlen(text)), 0);
}

static void assert_holds(const struct fake *fake, const char *name, const char *text)
{
	char path[512], content[256] = "";
	_cleanup_fd_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", fake->root, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, content, sizeof(content) - 1) >= 0);
	assert_string_equal(content, text);
}

static int fake_setup(void **state)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	strcpy(fake->root, "/tmp/warmbox-cgroup-XXXXXX");
	assert_non_null(mkdtemp(fake->root));
	snprintf(fake->cgroup, sizeof(fake->cgroup), "%s/self", fake->root);
	snprintf(fake->mountinfo, sizeof(fake->mountinfo), "%s/mountinfo", fake->root);
	fake->source = (struct pool_cgroup_source){ fake->cgroup, fake->mountinfo };
	*state = fake;
	return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	return remove(path);
}

static int fake_teardown(void **state)
{
	struct fake *fake = *state;

	nftw(fake->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(fake);
	return 0;
}

/* A mount of the hierarchy at <root>/<point>, of which it shows what is below `shown`. */
static void fake_mounts(const struct fake *fake, const char *shown, const char *type,
			const char *options)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		 "this is no mount\n"
		 "31 23 0:28 %s %s/a\\040mount rw,relatime - %s cgroup %s\n",
		 shown, fake->root, type, options);
	put(fake, "mountinfo", text);
}

/* What the kernel would make in a new cgroup. */
static void fake_v2_cgroup(const struct fake *fake, const char *cgroup)
{
	static const char *const files[] = { "cgroup.procs",   "cgroup.subtree_control",
					     "cpu.weight",     "cpu.max",
					     "memory.max",     "pids.max",
					     "memory.swap.max" };
	char name[256];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof(name), "a mount/%s/%s", cgroup, files[i]);
		put(fake, name, "");
	}
	snprintf(name, sizeof(name), "a mount/%s/cgroup.controllers", cgroup);
	put(fake, name, "cpuset cpu io memory pids\n");
}

static void version_2_is_found_and_limited(void **state)
{
	struct fake *fake = *state;
	struct pool_cgroup_limits limits = { MIB(300), MIB(1), 50, 150, 20, 7 };
	struct pool_cgroup_events events;
	struct pool_cgroup_tree tree;
	struct base_error error = { 0 };

	/* This process is in the daemon's leaf already, and the mount shows a part only. */
	put(fake, "self", "1:name=systemd:/x\n0::/box/svc/" POOL_CGROUP_DAEMON "\n");
	fake_mounts(fake, "/box", "cgroup2", "rw");
	fake_v2_cgroup(fake, "svc");
	fake_v2_cgroup(fake, "svc/warmbox-t");
	fake_v2_cgroup(fake, "svc/warmbox-t/" ID);
	assert_int_equal(
		pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_ALWAYS, &error), 0);
	assert_int_equal(tree.version, 2);
	assert_int_equal(tree.controllers, POOL_CGROUP_ALWAYS);
	assert_int_equal(tree.n_roots, 1);
	assert_true(tree.swap);
	assert_holds(fake, "a mount/svc/cgroup.subtree_control", "+pidsry");
	assert_holds(fake, "a mount/svc/warmbox-t/cgroup.subtree_control", "+pidsry");

	assert_int_equal(pool_cgroup_tree_set(&tree, ID, &limits), 0);
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/memory.max", "314572800");
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/memory.swap.max", "1048576");
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/cpu.weight", "50");
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/cpu.max", "150000 100000");
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/pids.max", "20");
	assert_int_equal(pool_cgroup_tree_enter(&tree, ID, 4711), 0);
	assert_holds(fake, "a mount/svc/warmbox-t/" ID "/cgroup.procs", "4711");

	put(fake, "a mount/svc/warmbox-t/" ID "/memory.events", "low 0\noom 3\noom_kill 2\n");
	put(fake, "a mount/svc/warmbox-t/" ID "/pids.events", "max 5\n");
	put(fake, "a mount/svc/warmbox-t/" ID "/cpu.stat", "usage_usec 9\nthrottled_usec 4\n");
	pool_cgroup_tree_events(&tree, ID, &events);
	assert_int_equal(events.oom_kills, 2);
	assert_int_equal(events.pids_refused, 5);
	assert_int_equal(events.throttled_ns, 4000);
	assert_int_equal(events.memory_limit, MIB(300));
	/* Ids are not used twice. */
	assert_int_equal(pool_cgroup_tree_make(&tree, ID, &limits, NULL), -EEXIST);
	pool_cgroup_tree_close(&tree, false);
}

static void what_is_not_there_is_said(void **state)
{
	struct fake *fake = *state;
	struct pool_cgroup_tree tree;
	struct base_error error = { 0 };

	/* No files at all, no cgroup of a known kind, one that cannot be seen through the mount. */
	assert_int_equal(
		pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_ALWAYS, &error),
		-ENOTSUP);
	assert_non_null(strstr(error.text, "no cgroups"));
	put(fake, "self", "garbage\n3:cpuset:/\n4:cpu\n");
	fake_mounts(fake, "/", "cgroup", "rw,cpu,cpuacct");
	assert_int_equal(
		pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_ALWAYS, &error),
		-ENOTSUP);
	assert_non_null(strstr(error.text, "no cgroup controllers"));
	put(fake, "self", "4:cpu,cpuacct:/elsewhere\n");
	fake_mounts(fake, "/else", "cgroup", "rw,cpu,cpuacct");
	assert_int_equal(
		pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_ALWAYS, &error),
		-ENOTSUP);
	/* Version 2 without a controller that is wanted, version 1 with one that cannot be used. */
	put(fake, "self", "4:cpu,cpuacct:/\n0::/svc\n");
	fake_mounts(fake, "/", "cgroup", "rw,cpu,cpuacct");
	assert_int_equal(
		pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_ALWAYS, &error),
		-ENOENT);
	assert_non_null(strstr(error.text, "a mount"));
	assert_int_equal(tree.version, 0);
}

static void a_saved_tree_is_opened_again(void **state)
{
	struct fake *fake = *state;
	struct pool_cgroup_tree tree, again;
	struct base_error error = { 0 };
	_cleanup_free_ char *text = NULL;

	put(fake, "self", "0::/svc\n");
	fake_mounts(fake, "/", "cgroup2", "rw");
	fake_v2_cgroup(fake, "svc");
	fake_v2_cgroup(fake, "svc/warmbox-t");
	assert_int_equal(pool_cgroup_tree_open(&tree, &fake->source, "t", POOL_CGROUP_CPU, &error),
			 0);
	text = pool_cgroup_tree_save(&tree);
	assert_non_null(text);
	text[strcspn(text, "\n")] = '\0';
	assert_int_equal(pool_cgroup_tree_reopen(&again, text), 0);
	assert_int_equal(again.version, 2);
	assert_int_equal(again.controllers, POOL_CGROUP_CPU);
	assert_string_equal(again.roots[0].path, tree.roots[0].path);
	pool_cgroup_tree_close(&tree, false);
	/* There are files in the way. */
	assert_int_equal(pool_cgroup_tree_close(&again, true), 1);

	assert_int_equal(pool_cgroup_tree_reopen(&again, ""), -EINVAL);
	assert_int_equal(pool_cgroup_tree_reopen(&again, "3 1 /tmp"), -EINVAL);
	assert_int_equal(pool_cgroup_tree_reopen(&again, "1 1 tmp"), -EINVAL);
	assert_int_equal(pool_cgroup_tree_reopen(&again, "1 1 /no/such/directory"), -ENOENT);
	assert_int_equal(again.n_roots, 0);
}

/* --- this host's --- */

static pid_t start_child(int (*fn)(void))
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(fn());
	}
	return pid;
}

static int wait_for_signal(void)
{
	pause();
	return 0;
}

/* Status as of waitpid(). */
static int end_of(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void kill_child(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	end_of(pid);
}

/* Skips the test where this user may make no cgroups. */
static void open_host(struct pool_cgroup_tree *tree, unsigned wanted)
{
	static const struct pool_cgroup_source host = { NULL, NULL };
	struct base_error error = { 0 };
	char name[32];

	snprintf(name, sizeof(name), "test-%d", getpid());
	if (pool_cgroup_tree_open(tree, &host, name, wanted, &error) < 0) {
		print_message("# %s\n", error.text);
		skip();
	}
}

/* A process that has ended leaves its cgroup a moment later. */
static void remove_soon(const struct pool_cgroup_tree *tree, const char *id)
{
	int r = -EBUSY;

	for (int i = 0; i < 500 && r == -EBUSY; i++) {
		r = pool_cgroup_tree_remove(tree, id);
		usleep(10000);
	}
	assert_int_equal(r, 0);
}

static void a_process_enters_and_keeps_the_cgroup(void **state)
{
	struct pool_cgroup_limits limits = {
		.memory_bytes = MIB(64), .cpu_weight = 50, .cpu_percent = 50, .pids = 8
	};
	struct pool_cgroup_events events;
	struct pool_cgroup_tree tree;
	int fd = -2;
	pid_t pid;

	open_host(&tree, POOL_CGROUP_ALWAYS);
	assert_int_equal(pool_cgroup_tree_make(&tree, ID, &limits, &fd), 0);
	assert_int_equal(fd >= 0, tree.version == 2);
	base_fd_close(fd);
	assert_int_equal(pool_cgroup_tree_make(&tree, OTHER, &limits, NULL), 0);
	assert_int_equal(pool_cgroup_tree_remove(&tree, OTHER), 0);
	assert_int_equal(pool_cgroup_tree_remove(&tree, OTHER), 0);
	pid = start_child(wait_for_signal);
	assert_int_equal(pool_cgroup_tree_enter(&tree, ID, pid), 0);
	assert_int_equal(pool_cgroup_tree_remove(&tree, ID), -EBUSY);
	pool_cgroup_tree_events(&tree, ID, &events);
	assert_int_equal(events.oom_kills, 0);
	if (tree.controllers & POOL_CGROUP_MEMORY) {
		assert_int_equal(events.memory_limit, MIB(64));
	}
	/* More, and less again. */
	limits.memory_bytes = MIB(256);
	limits.swap_bytes = MIB(64);
	assert_int_equal(pool_cgroup_tree_set(&tree, ID, &limits), 0);
	limits.memory_bytes = MIB(32);
	limits.swap_bytes = 0;
	assert_int_equal(pool_cgroup_tree_set(&tree, ID, &limits), 0);
	kill_child(pid);
	assert_int_equal(pool_cgroup_tree_enter(&tree, ID, pid), -ESRCH);
	remove_soon(&tree, ID);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
}

static int gate[2]; /* a child goes on when something can be read */

static void wait_at_gate(void)
{
	char byte;

	if (read(gate[0], &byte, 1) != 1) {
		_exit(90);
	}
}

static void open_gate(void)
{
	assert_int_equal(write(gate[1], "x", 1), 1);
}

static int eat_memory(void)
{
	wait_at_gate();
	for (int i = 0; i < 64; i++) {
		char *piece = mmap(NULL, MIB(1), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memset(piece, 1, MIB(1));
	}
	return 0;
}

static int start_processes(void)
{
	wait_at_gate();
	for (int i = 0; i < 16; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			return errno == EAGAIN ? i : 99;
		}
		if (pid == 0) {
			pause();
		}
	}
	return 98;
}

static int burn(void)
{
	struct timespec now;

	wait_at_gate();
	do {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	} while (now.tv_sec == 0 && now.tv_nsec < 200000000);
	return 0;
}

static pid_t start_limited(const struct pool_cgroup_tree *tree, const char *id,
			   const struct pool_cgroup_limits *limits, int (*fn)(void))
{
	pid_t pid;

	assert_int_equal(pool_cgroup_tree_make(tree, id, limits, NULL), 0);
	pid = start_child(fn);
	assert_int_equal(pool_cgroup_tree_enter(tree, id, pid), 0);
	return pid;
}

static void memory_beyond_the_limit_kills(void **state)
{
	struct pool_cgroup_limits limits = { .memory_bytes = MIB(16) };
	struct pool_cgroup_events events;
	struct pool_cgroup_tree tree;
	pid_t eater, neighbour;
	int status;

	open_host(&tree, POOL_CGROUP_MEMORY);
	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
	eater = start_limited(&tree, ID, &limits, eat_memory);
	neighbour = start_limited(&tree, OTHER, &limits, wait_for_signal);
	open_gate();
	status = end_of(eater);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	pool_cgroup_tree_events(&tree, ID, &events);
	assert_int_equal(events.oom_kills, 1);
	assert_int_equal(events.memory_limit, MIB(16));
	pool_cgroup_tree_events(&tree, OTHER, &events);
	assert_int_equal(events.oom_kills, 0);
	assert_int_equal(waitpid(neighbour, NULL, WNOHANG), 0);
	kill_child(neighbour);
	remove_soon(&tree, ID);
	remove_soon(&tree, OTHER);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
	close(gate[0]);
	close(gate[1]);
}

static void processes_beyond_the_limit_are_refused(void **state)
{
	struct pool_cgroup_limits limits = { .pids = 4 };
	struct pool_cgroup_events events;
	struct pool_cgroup_tree tree;
	int status;

	open_host(&tree, POOL_CGROUP_PIDS);
	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);

	pid_t pid = start_limited(&tree, ID, &limits, start_processes);

	open_gate();
	status = end_of(pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 3); /* and itself */
	pool_cgroup_tree_events(&tree, ID, &events);
	assert_true(events.pids_refused >= 1);
	/* Those that it left behind are a former manager's, as far as the next can tell. */
	assert_int_equal(pool_cgroup_tree_sweep(&tree, NULL, NULL, 10000), 0);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
	close(gate[0]);
	close(gate[1]);
}

static void a_quota_takes_time(void **state)
{
	struct pool_cgroup_limits limits = { .cpu_percent = 10 };
	struct pool_cgroup_events events;
	struct pool_cgroup_tree tree;
	int status;

	open_host(&tree, POOL_CGROUP_CPU);
	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);

	pid_t pid = start_limited(&tree, ID, &limits, burn);

	open_gate();
	status = end_of(pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	/* 200 ms of work at 10 ms a period of 100 ms. */
	pool_cgroup_tree_events(&tree, ID, &events);
	assert_true(events.throttled_ns > 500 * NSEC_PER_MSEC);
	remove_soon(&tree, ID);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
	close(gate[0]);
	close(gate[1]);
}

static bool is_other(void *userdata, const char *id)
{
	return strcmp(id, OTHER) == 0;
}

static void what_is_left_behind_is_swept(void **state)
{
	struct pool_cgroup_limits limits = { 0 };
	struct pool_cgroup_tree tree;
	pid_t one, other;
	int status;

	open_host(&tree, POOL_CGROUP_ALWAYS);
	one = start_limited(&tree, ID, &limits, wait_for_signal);
	other = start_limited(&tree, OTHER, &limits, wait_for_signal);
	assert_int_equal(pool_cgroup_tree_sweep(&tree, is_other, NULL, 10000), 0);
	status = end_of(one);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(waitpid(other, NULL, WNOHANG), 0);
	assert_int_equal(pool_cgroup_tree_remove(&tree, OTHER), -EBUSY);
	assert_int_equal(pool_cgroup_tree_sweep(&tree, NULL, NULL, 10000), 0);
	end_of(other);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
}

/* Where the kernel has version 2 without controllers, beside version 1. */
static void a_process_is_born_into_version_2(void **state)
{
	static const char *const mounts[] = { "/sys/fs/cgroup/unified", "/sys/fs/cgroup" };
	char line[128], path[96] = "";
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
	struct pool_cgroup_limits limits = { 0 };
	struct pool_cgroup_tree tree;
	int fd, status;
	long pid;

	for (size_t i = 0; i < ARRAY_SIZE(mounts) && !path[0]; i++) {
		snprintf(path, sizeof(path), "%s/cgroup.subtree_control", mounts[i]);
		if (access(path, W_OK) < 0) {
			path[0] = '\0';
			continue;
		}
		snprintf(path, sizeof(path), "%s/warmbox-test-%d", mounts[i], getpid());
	}
	if (!path[0] || mkdir(path, 0755) < 0) {
		skip();
	}
	snprintf(line, sizeof(line), "2 0 %s", path);
	assert_int_equal(pool_cgroup_tree_reopen(&tree, line), 0);
	assert_int_equal(pool_cgroup_tree_make(&tree, ID, &limits, &fd), 0);
	assert_true(fd >= 0);
	args.cgroup = (uint64_t)fd;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	close(fd);
	assert_int_equal(pool_cgroup_tree_remove(&tree, ID), -EBUSY);
	assert_int_equal(pool_cgroup_tree_sweep(&tree, NULL, NULL, 10000), 0);
	status = end_of((pid_t)pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(pool_cgroup_tree_close(&tree, true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(version_2_is_found_and_limited, fake_setup,
						fake_teardown),
		cmocka_unit_test_setup_teardown(what_is_not_there_is_said, fake_setup,
						fake_teardown),
		cmocka_unit_test_setup_teardown(a_saved_tree_is_opened_again, fake_setup,
						fake_teardown),
		cmocka_unit_test(a_process_enters_and_keeps_the_cgroup),
		cmocka_unit_test(memory_beyond_the_limit_kills),
		cmocka_unit_test(processes_beyond_the_limit_are_refused),
		cmocka_unit_test(a_quota_takes_time),
		cmocka_unit_test(what_is_left_behind_is_swept),
		cmocka_unit_test(a_process_is_born_into_version_2),
	};

	return cmocka_run_group_tests_name("pool cgroup tree", tests, NULL, NULL);
}
