/* SPDX-License-Identifier: Apache-2.0 */

/* The shared part of the pool's tests; see fixture.h. */

#include "tests/unit/pool/fixture.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned fixture_count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n - 2;
}

static unsigned count_suffix(const char *path, const char *suffix)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		size_t length = strlen(entry->d_name);

		n += length > strlen(suffix) &&
		     strcmp(entry->d_name + length - strlen(suffix), suffix) == 0;
	}
	closedir(dir);
	return n;
}

unsigned fixture_sandboxes(struct fixture *fixture)
{
	unsigned n = count_suffix(fixture->runtime_dir, ".sock");

	assert_int_equal(count_suffix(fixture->runtime_dir, ".ctl"), n);
	return n;
}

/* argv[0] of a process, empty when it is gone. */
static void program_of(long pid, char *out, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
	memset(out, 0, size);

	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, out, size - 1) < 0) {
		out[0] = '\0';
	}
}

static unsigned children(int *pids, unsigned max)
{
	char text[8192] = { 0 };
	_cleanup_fd_ int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	unsigned n = 0;

	assert_true(fd >= 0);
	assert_true(read(fd, text, sizeof(text) - 1) >= 0);
	for (char *end, *p = text; n < max; p = end) {
		long pid = strtol(p, &end, 10);

		if (end == p) {
			break;
		}
		pids[n++] = (int)pid;
	}
	return n;
}

unsigned fixture_vmms(int *pids, unsigned max)
{
	int all[256];
	unsigned n_all = children(all, ARRAY_SIZE(all)), n = 0;
	char program[256];

	for (unsigned i = 0; i < n_all; i++) {
		program_of(all[i], program, sizeof(program));
		if (strcmp(program, "warmbox-vmm") != 0) {
			continue;
		}
		if (n < max) {
			pids[n] = all[i];
		}
		n++;
	}
	return n;
}

int fixture_helper(const char *name)
{
	int all[256];
	unsigned n_all = children(all, ARRAY_SIZE(all));
	char program[256];

	for (unsigned i = 0; i < n_all; i++) {
		program_of(all[i], program, sizeof(program));

		size_t length = strlen(program), wanted = strlen(name);

		if (length >= wanted && strcmp(program + length - wanted, name) == 0) {
			return all[i];
		}
	}
	return 0;
}

int fixture_setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct base_error error = { 0 };

	/* The first loop of a process opens a pipe that stays. */
	assert_int_equal(uv_loop_init(&fixture->loop), 0);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	fixture->n_fds = fixture_count_entries("/proc/self/fd");
	fixture->tenants.others = pool_tenant_config_others();
	strcpy(fixture->root, "/tmp/warmbox-pool-XXXXXX");
	assert_non_null(mkdtemp(fixture->root));
	snprintf(fixture->store_path, sizeof(fixture->store_path), "%s/store", fixture->root);
	snprintf(fixture->runtime_dir, sizeof(fixture->runtime_dir), "%s/run", fixture->root);
	assert_int_equal(mkdir(fixture->runtime_dir, 0700), 0);
	assert_int_equal(snapshot_store_open(fixture->store_path, true, &fixture->store, &error),
			 0);
	assert_int_equal(uv_loop_init(&fixture->loop), 0);
	uv_timer_init(&fixture->loop, &fixture->bound);
	*state = fixture;
	return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	return remove(path);
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	if (fixture->pool) {
		fixture_stop(fixture);
	}
	uv_close((uv_handle_t *)&fixture->bound, NULL);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	snapshot_store_free(fixture->store);
	assert_int_equal(fixture_count_entries(fixture->runtime_dir), 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	nftw(fixture->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(fixture_count_entries("/proc/self/fd"), fixture->n_fds);
	free(fixture);
	return 0;
}

/* The fake VMM's script: it has the disk before it has the state. */
static void add_disk(struct fixture *fixture, struct snapshot_manifest *manifest,
		     const char *script)
{
	char content[4096] = { 0 };
	struct base_error error = { 0 };
	_cleanup_fd_ int fd = -1;

	assert_true(strlen(script) < sizeof(content));
	strcpy(content, script);
	assert_int_equal(base_fd_memfd("disk", sizeof(content), &fd), 0);
	assert_int_equal(base_fd_pwrite_full(fd, content, sizeof(content), 0), 0);
	assert_int_equal(snapshot_store_add_image(fixture->store, fd, &manifest->disks[0], &error),
			 0);
	manifest->n_disks = 1;
}

void fixture_template(struct fixture *fixture, const char *name, const char *script)
{
	struct snapshot_manifest manifest = {
		.host_kind = 1,
		.memory_bytes = FIXTURE_MEMORY_BYTES,
		.n_vcpus = 1,
		.guest_cid = 3,
		.kernel_digest = "00000000000000000000000000000000",
	};
	struct snapshot_writer *writer;
	struct base_error error = { 0 };
	_cleanup_fd_ int memory = -1;
	uint8_t noise[4096];

	snprintf(manifest.template_name, sizeof(manifest.template_name), "%s", name);
	assert_int_equal(base_fd_memfd("memory", FIXTURE_MEMORY_BYTES, &memory), 0);
	assert_int_equal(getrandom(noise, sizeof(noise), 0), sizeof(noise));
	for (uint64_t at = KIB(8); at < FIXTURE_MEMORY_BYTES; at += KIB(64)) {
		assert_int_equal(base_fd_pwrite_full(memory, noise, sizeof(noise), (off_t)at), 0);
	}
	memset(noise, FIXTURE_BYTE, sizeof(noise));
	assert_int_equal(base_fd_pwrite_full(memory, noise, sizeof(noise), FIXTURE_BYTE_OFFSET), 0);
	assert_int_equal(snapshot_writer_new(fixture->store, &writer, &error), 0);
	assert_int_equal(base_fd_write_full(snapshot_writer_state_fd(writer), "\n", 1), 0);
	assert_int_equal(
		snapshot_writer_memory(writer, memory, FIXTURE_MEMORY_BYTES, 1, NULL, NULL, &error),
		0);
	add_disk(fixture, &manifest, script);
	if (snapshot_writer_publish(writer, &manifest, &error) < 0) {
		fail_msg("publish: %s", error.text);
	}
	snapshot_writer_free(writer);
}

struct pool_config fixture_config(const struct fixture *fixture, unsigned target,
				  unsigned concurrency, uint64_t identity_timeout_ms)
{
	assert_non_null(getenv("FAKEVMM"));
	return (struct pool_config){
		.store_path = fixture->store_path,
		.runtime_dir = fixture->runtime_dir,
		.vmm_path = getenv("FAKEVMM"),
		.spawner_path = getenv("SPAWNER"),
		.pager_path = getenv("PAGER"),
		.fill_limit_bytes = fixture->fill_limit_bytes,
		.default_shells = fixture->shells,
		.memory_floor_percent = fixture->memory_floor_percent,
		.restore_nice = 1,
		.default_limits = { target, target },
		.restore_concurrency = concurrency,
		.identity_timeout_ms = identity_timeout_ms,
		.acquire_timeout_ms = 5000,
		.tenants = &fixture->tenants,
		.cgroups = fixture->cgroups,
		.default_template = { .cgroup = fixture->limits, .limits = fixture->vmm_limits },
	};
}

void fixture_pool(struct fixture *fixture, unsigned target, unsigned concurrency,
		  uint64_t identity_timeout_ms)
{
	struct pool_config config =
		fixture_config(fixture, target, concurrency, identity_timeout_ms);
	struct base_error error = { 0 };

	if (pool_new(&fixture->loop, &config, &fixture->pool, &error) < 0) {
		fail_msg("pool_new: %s", error.text);
	}
}

/* Ticks: uv_run() may run a timer first and then wait for the next, so a single one, or one of the
 * pool, could leave it waiting with the condition fulfilled. */
#define TICK_MS 2

static void on_bound(uv_timer_t *timer)
{
	struct fixture *fixture = timer->data;

	if (uv_hrtime() >= fixture->bound_ns) {
		fixture->timed_out = true;
	}
}

static void bound_start(struct fixture *fixture, unsigned ms)
{
	fixture->timed_out = false;
	fixture->bound_ns = uv_hrtime() + ms * NSEC_PER_MSEC;
	fixture->bound.data = fixture;
	uv_update_time(&fixture->loop);
	uv_timer_start(&fixture->bound, on_bound, TICK_MS, TICK_MS);
}

void fixture_bound_start(struct fixture *fixture)
{
	bound_start(fixture, FIXTURE_WAIT_MS);
}

void fixture_bound_stop(struct fixture *fixture)
{
	uv_timer_stop(&fixture->bound);
}

void fixture_turn(struct fixture *fixture)
{
	uv_run(&fixture->loop, UV_RUN_ONCE);
}

void fixture_run_ms(struct fixture *fixture, unsigned ms)
{
	bound_start(fixture, ms);
	while (!fixture->timed_out) {
		fixture_turn(fixture);
	}
	fixture_bound_stop(fixture);
}

void fixture_on_stopped(void *userdata)
{
	((struct fixture *)userdata)->stopped = true;
}

void fixture_stop(struct fixture *fixture)
{
	fixture->stopped = false;
	pool_stop(fixture->pool, fixture_on_stopped, fixture);
	assert_false(fixture->stopped);
	fixture_until(fixture, fixture->stopped);
	pool_free(fixture->pool);
	fixture->pool = NULL;
}

static void copy_info(void *userdata, const struct pool_template_info *info)
{
	static char last_error[BASE_ERROR_TEXT_MAX];
	struct pool_template_info *out = userdata;

	*out = *info;
	if (info->last_error) {
		snprintf(last_error, sizeof(last_error), "%s", info->last_error);
		out->last_error = last_error;
	}
}

struct pool_template_info fixture_info(struct fixture *fixture, const char *name)
{
	struct pool_template_info info = { .state = "unknown" };

	pool_info(fixture->pool, name, copy_info, &info);
	return info;
}

static void on_acquired(struct pool_acquire *request, enum pool_status status,
			const struct pool_lease *lease, int stream, const char *text)
{
	static unsigned order;
	struct acquired *acquired = request->userdata;

	acquired->calls++;
	acquired->order = ++order;
	acquired->status = status;
	acquired->stream = stream;
	if (status == POOL_OK) {
		assert_true(lease->active);
		snprintf(acquired->id, sizeof(acquired->id), "%s", lease->id);
		snprintf(acquired->socket_path, sizeof(acquired->socket_path), "%s",
			 lease->socket_path ?: "");
		snprintf(acquired->token, sizeof(acquired->token), "%s", lease->token);
		acquired->pid = lease->pid;
		acquired->timings = lease->timings;
	} else {
		assert_null(lease);
		assert_int_equal(stream, -1);
		assert_non_null(text);
		snprintf(acquired->text, sizeof(acquired->text), "%s", text);
	}
}

struct pool_tenant *fixture_tenant(struct fixture *fixture, uid_t uid)
{
	struct pool_peer peer = { .uid = uid, .gid = uid };
	gid_t gid;
	struct pool_tenant *tenant = pool_tenants_find(pool_tenants(fixture->pool), &peer, &gid);

	if (!tenant) {
		/* A test lets memory run out, once. */
		tenant = pool_tenants_find(pool_tenants(fixture->pool), &peer, &gid);
	}
	assert_non_null(tenant);
	assert_int_equal(gid, POOL_GROUP_NONE);
	/* It is remembered for longer than a test takes. */
	pool_tenant_unref(tenant);
	return tenant;
}

void fixture_acquire_params(struct fixture *fixture, struct acquired *acquired,
			    const struct pool_acquire_params *params)
{
	struct pool_acquire_params owned = *params;

	if (!owned.tenant) {
		owned.tenant = fixture_tenant(fixture, getuid());
		owned.uid = getuid();
		owned.gid = POOL_GROUP_NONE;
	}
	*acquired = (struct acquired){
		.request = { .userdata = acquired, .fn = on_acquired },
		.stream = -1,
	};
	pool_acquire(fixture->pool, &acquired->request, &owned);
}

void fixture_acquire(struct fixture *fixture, struct acquired *acquired, const char *name,
		     uint64_t timeout_ms)
{
	struct pool_acquire_params params = { .template_name = name, .timeout_ms = timeout_ms };

	fixture_acquire_params(fixture, acquired, &params);
}

struct set {
	struct pool_set request;
	unsigned calls;
	enum pool_status status;
	char text[BASE_ERROR_TEXT_MAX];
};

static void on_set(struct pool_set *request, enum pool_status status, const char *text)
{
	struct set *set = request->userdata;

	set->calls++;
	set->status = status;
	snprintf(set->text, sizeof(set->text), "%s", text ? text : "");
}

enum pool_status fixture_set(struct fixture *fixture, const char *name, unsigned target,
			     char *ret_text, size_t size)
{
	struct pool_set_params params = {
		.template_name = name,
		.min = target,
		.max = target,
		.shells = POOL_UNCHANGED,
	};

	return fixture_set_params(fixture, &params, ret_text, size);
}

enum pool_status fixture_set_params(struct fixture *fixture, const struct pool_set_params *params,
				    char *ret_text, size_t size)
{
	struct set set = { .request = { .userdata = &set, .fn = on_set } };

	pool_set(fixture->pool, &set.request, params);
	fixture_until(fixture, set.calls > 0);
	assert_int_equal(set.calls, 1);
	if (ret_text) {
		snprintf(ret_text, size, "%s", set.text);
	}
	return set.status;
}

enum pool_cause fixture_wait_ended(struct fixture *fixture, const char *id)
{
	struct pool_lease lease = { 0 };

	fixture_until(fixture, pool_get(fixture->pool, id, &lease) && !lease.active);
	assert_true(lease.ended_realtime_ns >= lease.acquired_realtime_ns);
	return lease.cause;
}
