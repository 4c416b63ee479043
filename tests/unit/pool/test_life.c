/* SPDX-License-Identifier: Apache-2.0 */

/* The life of well-behaved sandboxes: restored, parked, claimed, ended, replaced. */

#include "tests/unit/pool/fixture.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int unix_socket(const char *path, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (listening) {
		assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
		assert_int_equal(listen(fd, 4), 0);
	} else {
		assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	}
	return fd;
}

static void assert_reads(int fd, const char *text)
{
	char data[64] = { 0 };

	assert_int_equal(base_fd_read_full(fd, data, strlen(text)), 0);
	assert_string_equal(data, text);
}

static void parks_the_target_and_refills_after_a_claim(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 2, 5000);
	assert_int_equal(fixture_set(fixture, "t", 3, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 3);

	struct pool_template_info info = fixture_info(fixture, "t");

	assert_string_equal(info.state, "ready");
	assert_int_equal(info.image_bytes, FIXTURE_MEMORY_BYTES);
	assert_int_equal(info.restored_total, 3);
	assert_int_equal(info.restoring, 0);
	assert_null(info.last_error);
	/* Parked, so nobody waits: the answer comes from inside the call. */
	fixture_acquire(fixture, &a, "t", 0);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(strlen(a.id), POOL_LEASE_ID_LENGTH);
	assert_int_equal(kill(a.pid, 0), 0);
	assert_true(a.timings.spawn_ns > 0 && a.timings.identity_ns > 0);
	assert_true(a.timings.load_ns > 0 && a.timings.park_ns > 0);
	assert_true(a.timings.wait_ns < NSEC_PER_SEC && a.timings.claim_ns > 0);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.parked, 2);
	assert_int_equal(info.leased, 1);
	assert_int_equal(info.claimed_total, 1);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 3);

	struct pool_lease lease;

	fixture_until(fixture,
		      pool_get(fixture->pool, a.id, &lease) && lease.timings.first_entry_ns > 0);
	assert_true(lease.timings.first_entry_ns < NSEC_PER_SEC);
	assert_string_equal(lease.template_name, "t");
	assert_int_equal(strlen(lease.snapshot_id), SNAPSHOT_ID_LENGTH);
	assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED), POOL_OK);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_false(lease.active);
	assert_int_equal(lease.cause, POOL_CAUSE_RELEASED);
	assert_string_equal(lease.id, a.id);
	/* Ended but remembered. */
	assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_EXPIRED), POOL_OK);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_int_equal(lease.cause, POOL_CAUSE_RELEASED);
	assert_int_equal(pool_release(fixture->pool, "nothing", POOL_CAUSE_RELEASED),
			 POOL_NOT_FOUND);
	fixture_until(fixture, kill(a.pid, 0) < 0);
	assert_int_equal(errno, ESRCH);
	assert_int_equal(access(a.socket_path, F_OK), -1);
}

static void cycles_leave_nothing_behind(void **state)
{
	struct fixture *fixture = *state;
	enum { CYCLES = 200 };
	static char ids[CYCLES][POOL_LEASE_ID_LENGTH + 1];
	static int pids[CYCLES];
	unsigned fds_before, fds_after;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 4, 2, 5000);
	assert_int_equal(fixture_set(fixture, "t", 4, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 4);
	fixture_run_ms(fixture, 20);
	fds_before = fixture_count_entries("/proc/self/fd");
	for (unsigned i = 0; i < CYCLES; i++) {
		struct acquired a;

		fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(a.status, POOL_OK);
		strcpy(ids[i], a.id);
		pids[i] = a.pid;
		assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED), POOL_OK);
	}
	fixture_until(fixture, fixture_info(fixture, "t").parked == 4);
	for (unsigned i = 0; i < CYCLES; i++) {
		fixture_until(fixture, kill(pids[i], 0) < 0);
		for (unsigned j = 0; j < i; j++) {
			assert_string_not_equal(ids[i], ids[j]);
		}
	}
	fixture_run_ms(fixture, 20);
	fds_after = fixture_count_entries("/proc/self/fd");
	assert_int_equal(fds_after, fds_before);
	assert_int_equal(fixture_sandboxes(fixture), 4);
	assert_int_equal(fixture_info(fixture, "t").leased, 0);
	assert_int_equal(fixture_info(fixture, "t").failed_total, 0);
	assert_int_equal(fixture_info(fixture, "t").died_total, 0);
}

static void hands_the_stream_over(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct pool_acquire_params params = { .template_name = "t",
					      .timeout_ms = 5000,
					      .want_stream = true };

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire_params(fixture, &a, &params);
	assert_int_equal(a.calls, 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_true(a.stream >= 0);
	/* At a message boundary, blocking, and alive. */
	assert_int_equal(base_fd_write_full(a.stream, "ping", 4), 0);
	assert_reads(a.stream, "ping");
	assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_CLIENT_GONE), POOL_OK);
	fixture_until(fixture, kill(a.pid, 0) < 0);
	/* The stream is the caller's and outlives the lease. */
	char byte;

	assert_int_equal(read(a.stream, &byte, 1), 0);
	close(a.stream);
}

static void gives_a_socket_to_connect_to(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct stat status;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(stat(a.socket_path, &status), 0);
	assert_true(S_ISSOCK(status.st_mode));
	assert_int_equal(status.st_mode & 0777, 0600);

	int fd = unix_socket(a.socket_path, false);

	assert_reads(fd, "vsock");
	close(fd);
}

static void lets_the_guest_connect_to_a_listener(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct pool_acquire_params params = { .template_name = "t",
					      .timeout_ms = 5000,
					      .want_stream = true };
	char path[160], pattern[160];
	struct pool_template_info info;

	fixture_template(fixture, "t", "connect=4242\n");
	fixture_pool(fixture, 1, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_until(fixture, (info = fixture_info(fixture, "t")).parked == 1);
	/* No listener: refused, and the sandbox lives on. */
	fixture_acquire_params(fixture, &a, &params);
	assert_int_equal(a.status, POOL_OK);
	fixture_run_ms(fixture, 50);
	assert_reads(a.stream, "connect: -111;");
	close(a.stream);
	/* With one. Its name holds the id, which is in the directory while the sandbox is parked.
	 */
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	snprintf(pattern, sizeof(pattern), "%s", a.id);
	assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED), POOL_OK);
	fixture_until(fixture, access(a.socket_path, F_OK) < 0);

	DIR *dir = opendir(fixture->runtime_dir);
	struct dirent *entry;

	while ((entry = readdir(dir)) && !strstr(entry->d_name, ".sock")) {
	}
	assert_non_null(entry);
	snprintf(path, sizeof(path), "%s/%.80s_4242", fixture->runtime_dir, entry->d_name);
	closedir(dir);

	int listener = unix_socket(path, true);

	fixture_acquire(fixture, &a, "t", 0);
	assert_int_equal(a.status, POOL_OK);
	fixture_run_ms(fixture, 50);

	int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	assert_true(peer >= 0);
	fixture_run_ms(fixture, 20);
	assert_reads(peer, "hello");
	close(peer);
	close(listener);
	unlink(path);
}

/* Limits go to the VMM behind CREATE; what it says of them is counted, not believed. */
static void limits_that_are_hit_are_counted(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture->vmm_limits.console_bytes = 77;
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	info = fixture_info(fixture, "t");
	/* Another sandbox or shell may have been started by now. */
	assert_true(info.limited_total[POOL_LIMITED_DISK] >= 2);
	assert_true(info.limited_total[POOL_LIMITED_CONSOLE] >= 1);
	assert_true(info.limited_total[POOL_LIMITED_DISK] >
		    info.limited_total[POOL_LIMITED_CONSOLE]);
	assert_int_equal(info.limited_total[POOL_LIMITED_VSOCK], 0);
}

static void leases_last_no_longer_than_allowed(void **state)
{
	struct fixture *fixture = *state;
	struct pool_acquire_params params = { .template_name = "t",
					      .timeout_ms = 5000,
					      .ttl_ms = 9001 };
	struct pool_lease lease;
	struct acquired a, b;

	fixture_template(fixture, "t", "");
	fixture->vmm_limits.ttl_max_ms = 9000;
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire_params(fixture, &a, &params);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_INVALID);
	fixture_acquire(fixture, &b, "t", 5000); /* without one: the longest */
	fixture_until(fixture, b.calls > 0);
	assert_int_equal(b.status, POOL_OK);
	assert_true(pool_get(fixture->pool, b.id, &lease));
	assert_int_equal(lease.ttl_ms, 9000);
	assert_int_equal(pool_renew(fixture->pool, b.id, 0), POOL_INVALID);
	assert_int_equal(pool_renew(fixture->pool, b.id, 9001), POOL_INVALID);
	assert_int_equal(pool_renew(fixture->pool, b.id, UINT64_MAX), POOL_INVALID);
	assert_int_equal(pool_renew(fixture->pool, b.id, 20), POOL_OK);
	assert_int_equal(fixture_wait_ended(fixture, b.id), POOL_CAUSE_EXPIRED);
}

static void leases_expire(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct pool_acquire_params params = { .template_name = "t",
					      .timeout_ms = 5000,
					      .ttl_ms = 60 };
	struct pool_lease lease;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire_params(fixture, &a, &params);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_EXPIRED);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_int_equal(lease.ttl_ms, 60);
	assert_in_range((lease.ended_realtime_ns - lease.acquired_realtime_ns) / NSEC_PER_MSEC, 50,
			5000);
	fixture_until(fixture, kill(a.pid, 0) < 0);
}

static void waiters_are_served_in_order(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[5];

	fixture_template(fixture, "t", "slow_ms=10\n");
	fixture_pool(fixture, 0, 2, 5000);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire(fixture, &a[i], "t", 10000);
		assert_int_equal(a[i].calls, 0);
	}
	assert_int_equal(fixture_info(fixture, "t").waiting, ARRAY_SIZE(a));
	assert_int_equal(fixture_info(fixture, "t").missed_total, ARRAY_SIZE(a));
	fixture_until(fixture, a[4].calls > 0);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].status, POOL_OK);
		assert_true(a[i].timings.wait_ns > 0);
		if (i > 0) {
			assert_true(a[i].order > a[i - 1].order);
		}
	}
	assert_int_equal(fixture_info(fixture, "t").waiting, 0);
	assert_int_equal(fixture_info(fixture, "t").leased, ARRAY_SIZE(a));
}

/* One tenant's five came first; the others wait for a turn, not for all of them. */
static void tenants_take_turns(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[5], b[2], c;
	struct acquired *const order[] = { &a[0], &b[0], &c, &a[1], &b[1], &a[2], &a[3], &a[4] };
	struct pool_acquire_params params = { .template_name = "t", .timeout_ms = 10000 };

	fixture_template(fixture, "t", "slow_ms=10\n");
	fixture_pool(fixture, 0, 1, 5000);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire_params(fixture, &a[i], &params);
	}
	params.tenant = fixture_tenant(fixture, getuid() + 1);
	fixture_acquire_params(fixture, &b[0], &params);
	fixture_acquire_params(fixture, &b[1], &params);
	params.tenant = fixture_tenant(fixture, getuid() + 2);
	fixture_acquire_params(fixture, &c, &params);
	fixture_until(fixture, a[4].calls > 0);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		assert_int_equal(order[i]->status, POOL_OK);
		assert_true(i == 0 || order[i]->order > order[i - 1]->order);
	}
}

static void waiting_ends_at_the_deadline(void **state)
{
	struct fixture *fixture = *state;
	struct acquired slow, quick, none;

	fixture_template(fixture, "t", "slow_ms=2000\n");
	fixture_pool(fixture, 0, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	fixture_acquire(fixture, &slow, "t", 400);
	fixture_acquire(fixture, &quick, "t", 100);
	fixture_acquire(fixture, &none, "t", 0);
	assert_int_equal(none.calls, 0);

	uint64_t start_ms = uv_hrtime() / NSEC_PER_MSEC;

	fixture_until(fixture, none.calls > 0);
	assert_int_equal(none.status, POOL_DEADLINE_EXCEEDED);
	fixture_until(fixture, quick.calls > 0);
	assert_int_equal(quick.status, POOL_DEADLINE_EXCEEDED);
	assert_non_null(strstr(quick.text, "within 100 ms"));
	assert_in_range(uv_hrtime() / NSEC_PER_MSEC - start_ms, 95, 390);
	assert_int_equal(slow.calls, 0);
	fixture_until(fixture, slow.calls > 0);
	assert_int_equal(slow.status, POOL_DEADLINE_EXCEEDED);
	assert_in_range(uv_hrtime() / NSEC_PER_MSEC - start_ms, 395, 1900);
	assert_int_equal(fixture_info(fixture, "t").waiting, 0);
	/* What was being restored for them is above the target, and goes. */
	fixture_until(fixture, fixture_info(fixture, "t").restoring == 0);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	fixture_until(fixture, fixture_sandboxes(fixture) == 0);
}

static void a_cancelled_acquire_is_never_answered(void **state)
{
	struct fixture *fixture = *state;
	struct acquired waiting, other, refused;

	fixture_template(fixture, "t", "slow_ms=20\n");
	fixture_pool(fixture, 0, 1, 5000);
	fixture_acquire(fixture, &waiting, "t", 5000);
	fixture_acquire(fixture, &other, "t", 5000);
	fixture_acquire(fixture, &refused, "No Such Name", 5000);
	pool_acquire_cancel(&waiting.request);
	pool_acquire_cancel(&refused.request);
	pool_acquire_cancel(&refused.request);
	fixture_until(fixture, other.calls > 0);
	assert_int_equal(other.status, POOL_OK);
	fixture_run_ms(fixture, 100);
	assert_int_equal(waiting.calls, 0);
	assert_int_equal(refused.calls, 0);
	assert_int_equal(fixture_info(fixture, "t").leased, 1);
	/* After the answer it does nothing. */
	pool_acquire_cancel(&other.request);
	assert_int_equal(fixture_info(fixture, "t").leased, 1);
}

static void targets_grow_shrink_and_empty(void **state)
{
	struct fixture *fixture = *state;
	char text[BASE_ERROR_TEXT_MAX];

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 0, 5000);
	assert_int_equal(fixture_set(fixture, "t", 2, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 2);
	assert_int_equal(fixture_set(fixture, "t", 6, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 6);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	assert_int_equal(fixture_info(fixture, "t").parked, 1);
	fixture_until(fixture, fixture_sandboxes(fixture) == 1);
	assert_int_equal(fixture_set(fixture, "t", POOL_TARGET_MAX + 1, text, sizeof(text)),
			 POOL_INVALID);
	assert_non_null(strstr(text, "limit"));
	assert_int_equal(fixture_info(fixture, "t").target, 1);
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_sandboxes(fixture) == 0);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	/* An empty pool still serves who waits. */
	struct acquired a;

	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
}

static void restores_are_bounded_over_all_templates(void **state)
{
	struct fixture *fixture = *state;
	unsigned most = 0;

	fixture_template(fixture, "one", "slow_ms=20\n");
	fixture_template(fixture, "two", "slow_ms=20\n");
	fixture_pool(fixture, 4, 3, 5000);
	assert_int_equal(fixture_set(fixture, "one", 4, NULL, 0), POOL_OK);
	assert_int_equal(fixture_set(fixture, "two", 4, NULL, 0), POOL_OK);
	fixture_bound_start(fixture);
	for (;;) {
		struct pool_template_info one = fixture_info(fixture, "one");
		struct pool_template_info two = fixture_info(fixture, "two");

		most = MAX(most, one.restoring + two.restoring);
		if (one.parked + two.parked == 8) {
			break;
		}
		fixture_turn(fixture);
		assert_false(fixture->timed_out);
	}
	assert_int_equal(most, 3);
}

static void count_lease(void *userdata, const struct pool_lease *lease)
{
	(*(unsigned *)userdata)++;
}

static void lists_leases_and_remembers_so_many(void **state)
{
	struct fixture *fixture = *state;
	struct pool_label labels[] = { { "job", "7" }, { "user", "" } };
	struct pool_acquire_params params = {
		.template_name = "t", .timeout_ms = 5000, .labels = labels, .n_labels = 2
	};
	struct acquired a, b;
	struct pool_lease lease;
	unsigned n = 0;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 2, 5000);
	fixture_acquire_params(fixture, &a, &params);
	params.n_labels = 0;
	fixture_acquire_params(fixture, &b, &params);
	labels[0].value = "changed";
	fixture_until(fixture, a.calls && b.calls);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_int_equal(lease.n_labels, 2);
	assert_string_equal(lease.labels[0].key, "job");
	assert_string_equal(lease.labels[0].value, "7");
	assert_string_equal(lease.labels[1].value, "");
	pool_list(fixture->pool, POOL_LIST_ACTIVE, count_lease, &n);
	assert_int_equal(n, 2);
	pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED);
	n = 0;
	pool_list(fixture->pool, POOL_LIST_ACTIVE, count_lease, &n);
	assert_int_equal(n, 1);
	n = 0;
	pool_list(fixture->pool, POOL_LIST_ENDED, count_lease, &n);
	assert_int_equal(n, 1);
	n = 0;
	pool_list(fixture->pool, POOL_LIST_ENDED | POOL_LIST_ACTIVE, count_lease, &n);
	assert_int_equal(n, 2);
}

static void labels_have_limits(void **state)
{
	struct fixture *fixture = *state;
	struct pool_label labels[POOL_LABELS_MAX + 1];
	struct pool_acquire_params params = { .template_name = "t",
					      .timeout_ms = 5000,
					      .labels = labels };
	char longest[POOL_LABEL_BYTES_MAX + 2];
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 1, 2, 5000);
	memset(longest, 'x', sizeof(longest));
	longest[POOL_LABEL_BYTES_MAX] = '\0';
	for (unsigned i = 0; i < ARRAY_SIZE(labels); i++) {
		labels[i] = (struct pool_label){ longest, longest };
	}
	params.n_labels = POOL_LABELS_MAX;
	fixture_acquire_params(fixture, &a, &params);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	params.n_labels = POOL_LABELS_MAX + 1;
	fixture_acquire_params(fixture, &a, &params);
	assert_int_equal(a.calls, 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_FAILED);
	longest[POOL_LABEL_BYTES_MAX] = 'x';
	longest[POOL_LABEL_BYTES_MAX + 1] = '\0';
	params.n_labels = 1;
	fixture_acquire_params(fixture, &a, &params);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_FAILED);
}

static void waiters_have_a_limit(void **state)
{
	struct fixture *fixture = *state;
	static struct acquired a[POOL_QUOTA_QUEUE], one_more, other;

	fixture_template(fixture, "t", "slow_ms=2000\n");
	fixture_pool(fixture, 0, 1, 5000);
	for (unsigned i = 0; i < POOL_QUOTA_QUEUE; i++) {
		fixture_acquire(fixture, &a[i], "t", 200);
	}
	fixture_acquire(fixture, &one_more, "t", 200);
	fixture_until(fixture, one_more.calls > 0);
	assert_int_equal(one_more.status, POOL_QUOTA_EXCEEDED);
	assert_int_equal(one_more.request.quota, POOL_QUOTA_OF_QUEUE);
	assert_non_null(strstr(one_more.text, "1024 acquires of tenant uid:"));
	/* Another tenant's is another matter. */
	fixture_acquire_params(
		fixture, &other,
		&(struct pool_acquire_params){ .template_name = "t",
					       .timeout_ms = 200,
					       .tenant = fixture_tenant(fixture, getuid() + 1) });
	assert_int_equal(fixture_info(fixture, "t").waiting, POOL_QUOTA_QUEUE + 1);
	pool_acquire_cancel(&other.request);
	assert_int_equal(fixture_info(fixture, "t").waiting, POOL_QUOTA_QUEUE);
	fixture_until(fixture, fixture_info(fixture, "t").waiting == 0);
	for (unsigned i = 0; i < POOL_QUOTA_QUEUE; i++) {
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].status, POOL_DEADLINE_EXCEEDED);
	}
}

struct again {
	struct pool_acquire request;
	struct fixture *fixture;
	const char *template_name;
	unsigned left, calls;
	enum pool_status last;
};

/* Asks again from inside its answer, and gives back at once what it gets. */
static void on_again(struct pool_acquire *request, enum pool_status status,
		     const struct pool_lease *lease, int stream, const char *text)
{
	struct again *again = request->userdata;
	struct pool_acquire_params params = { .template_name = again->template_name,
					      .timeout_ms = 5000,
					      .tenant = request->tenant };

	again->calls++;
	again->last = status;
	if (status == POOL_OK) {
		assert_int_equal(pool_release(again->fixture->pool, lease->id, POOL_CAUSE_RELEASED),
				 POOL_OK);
	}
	if (--again->left > 0) {
		pool_acquire(again->fixture->pool, request, &params);
	}
}

static void callbacks_may_ask_again(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		const char *name;
		enum pool_status status;
	} cases[] = {
		{ "good", POOL_OK },
		{ "broken", POOL_UNAVAILABLE },
		{ "missing", POOL_NOT_FOUND },
		{ "No Name", POOL_NOT_FOUND },
	};

	fixture_template(fixture, "good", "");
	fixture_template(fixture, "broken", "fault=create-die\n");
	fixture_pool(fixture, 2, 2, 5000);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct again again = { .request = { .userdata = &again, .fn = on_again },
				       .fixture = fixture,
				       .template_name = cases[i].name,
				       .left = 10 };
		struct pool_acquire_params params = { .template_name = cases[i].name,
						      .timeout_ms = 5000,
						      .tenant = fixture_tenant(fixture, getuid()) };

		pool_acquire(fixture->pool, &again.request, &params);
		fixture_until(fixture, again.left == 0);
		assert_int_equal(again.calls, 10);
		assert_int_equal(again.last, cases[i].status);
	}
}

static void never_told(struct pool_set *request, enum pool_status status, const char *text)
{
	fail();
}

static void a_cancelled_set_is_never_answered(void **state)
{
	struct fixture *fixture = *state;
	struct pool_set loading = { .fn = never_told }, refused = { .fn = never_told };
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	pool_set(fixture->pool, &loading,
		 &(struct pool_set_params){ "t", .min = 1, .max = 1, .shells = POOL_UNCHANGED });
	pool_set(fixture->pool, &refused,
		 &(struct pool_set_params){ "t", .max = POOL_TARGET_MAX + 1 });
	pool_set_cancel(&loading);
	pool_set_cancel(&loading);
	pool_set_cancel(&refused);
	/* The target holds all the same. */
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	fixture_acquire(fixture, &a, "t", 0);
	assert_int_equal(a.status, POOL_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(parks_the_target_and_refills_after_a_claim),
		TEST(cycles_leave_nothing_behind),
		TEST(hands_the_stream_over),
		TEST(gives_a_socket_to_connect_to),
		TEST(lets_the_guest_connect_to_a_listener),
		TEST(leases_expire),
		TEST(limits_that_are_hit_are_counted),
		TEST(leases_last_no_longer_than_allowed),
		TEST(waiters_are_served_in_order),
		TEST(tenants_take_turns),
		TEST(waiting_ends_at_the_deadline),
		TEST(a_cancelled_acquire_is_never_answered),
		TEST(targets_grow_shrink_and_empty),
		TEST(restores_are_bounded_over_all_templates),
		TEST(lists_leases_and_remembers_so_many),
		TEST(labels_have_limits),
		TEST(waiters_have_a_limit),
		TEST(callbacks_may_ask_again),
		TEST(a_cancelled_set_is_never_answered),
	};

	return cmocka_run_group_tests_name("pool-life", tests, NULL, NULL);
}
