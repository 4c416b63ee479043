/* SPDX-License-Identifier: Apache-2.0 */

/* What a pool gives to whom: quotas, templates, tokens, sockets, and leases that are renewed. */

#include "tests/unit/pool/fixture.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHER_UID 4711
#define OTHER_GID 4712

static const uid_t other_uids[] = { OTHER_UID };
static const char *const other_templates[] = { "t" };
static const struct pool_tenant_config section = {
	.name = "other",
	.uids = other_uids,
	.n_uids = 1,
	.templates = other_templates,
	.n_templates = 1,
	.quotas = { .leases = 2, .rate = POOL_QUOTA_UNLIMITED, .queue = 1 },
};

static void make_pool(struct fixture *fixture, unsigned target)
{
	fixture_template(fixture, "t", "");
	fixture->tenants.named = &section;
	fixture->tenants.n_named = 1;
	fixture_pool(fixture, target, 2, 5000);
	assert_int_equal(fixture_set(fixture, "t", target, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == target);
}

static void acquire(struct fixture *fixture, struct acquired *acquired, const char *name,
		    uint64_t timeout_ms)
{
	fixture_acquire_params(fixture, acquired,
			       &(struct pool_acquire_params){
				       .template_name = name,
				       .timeout_ms = timeout_ms,
				       .tenant = fixture_tenant(fixture, OTHER_UID),
				       .uid = OTHER_UID,
				       .gid = POOL_GROUP_NONE,
			       });
}

static void leases_end_and_can_be_had_again(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[3];

	make_pool(fixture, 3);
	for (unsigned i = 0; i < 3; i++) {
		acquire(fixture, &a[i], "t", 5000);
		assert_int_equal(a[i].calls, 1);
		assert_int_equal(a[i].status, i < 2 ? POOL_OK : POOL_QUOTA_EXCEEDED);
	}
	assert_int_equal(a[2].request.quota, POOL_QUOTA_OF_LEASES);
	assert_non_null(strstr(a[2].text, "tenant other has 2 leases and 0 acquires that wait, "
					  "of the 2"));
	assert_int_equal(pool_release(fixture->pool, a[0].id, POOL_CAUSE_RELEASED), POOL_OK);
	acquire(fixture, &a[2], "t", 5000);
	fixture_until(fixture, a[2].calls == 1);
	assert_int_equal(a[2].status, POOL_OK);
}

static void the_queue_has_a_quota(void **state)
{
	struct fixture *fixture = *state;
	struct acquired waits, refused, root;

	make_pool(fixture, 0);
	acquire(fixture, &waits, "t", 5000);
	acquire(fixture, &refused, "t", 5000);
	assert_int_equal(refused.status, POOL_QUOTA_EXCEEDED);
	assert_int_equal(refused.request.quota, POOL_QUOTA_OF_QUEUE);
	/* It is the tenant's alone. */
	fixture_acquire(fixture, &root, "t", 5000);
	assert_int_equal(root.calls, 0);
	fixture_until(fixture, waits.calls == 1 && root.calls == 1);
	assert_int_equal(waits.status, POOL_OK);
	assert_int_equal(root.status, POOL_OK);
}

static void other_templates_are_denied(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	make_pool(fixture, 1);
	fixture_template(fixture, "secret", "");
	/* Whether there is one of that name or not. */
	acquire(fixture, &a, "secret", 5000);
	assert_int_equal(a.status, POOL_DENIED);
	assert_string_equal(a.text, "tenant other may not use template secret");
	acquire(fixture, &a, "missing", 5000);
	assert_int_equal(a.status, POOL_DENIED);
	assert_string_equal(fixture_info(fixture, "secret").state, "unknown");
}

static void tokens_differ(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a, b;
	struct pool_lease lease;

	make_pool(fixture, 2);
	acquire(fixture, &a, "t", 5000);
	acquire(fixture, &b, "t", 5000);
	assert_int_equal(strspn(a.token, "0123456789abcdef"), POOL_TOKEN_LENGTH);
	assert_int_equal(strlen(a.token), POOL_TOKEN_LENGTH);
	assert_string_not_equal(a.token, b.token);
	assert_string_not_equal(a.token, a.id);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_string_equal(lease.token, a.token);
	assert_string_equal(lease.tenant->name, "other");
}

static struct stat status_of(const char *path)
{
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	return status;
}

static void sockets_are_given_to_the_user(void **state)
{
	struct fixture *fixture = *state;
	struct acquired user, group;
	struct stat status;

	if (geteuid() != 0) {
		skip(); /* only the superuser may give files away */
	}
	make_pool(fixture, 2);
	acquire(fixture, &user, "t", 5000);
	status = status_of(user.socket_path);
	assert_int_equal(status.st_uid, OTHER_UID);
	assert_int_equal(status.st_mode & 0777, 0600);
	fixture_acquire_params(fixture, &group,
			       &(struct pool_acquire_params){
				       .template_name = "t",
				       .tenant = fixture_tenant(fixture, OTHER_UID),
				       .uid = OTHER_UID + 1,
				       .gid = OTHER_GID,
			       });
	status = status_of(group.socket_path);
	assert_int_equal(status.st_uid, OTHER_UID + 1);
	assert_int_equal(status.st_gid, OTHER_GID);
	assert_int_equal(status.st_mode & 0777, 0660);
}

/* A socket that cannot be given is not shown; the sandbox is of use by its stream. */
static void a_socket_that_cannot_be_given_is_not_shown(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	make_pool(fixture, 1);
	if (geteuid() == 0) {
		/* As good a reason as any why chown() may fail. */
		char pattern[160];

		snprintf(pattern, sizeof(pattern), "rm %s/*.sock", fixture->runtime_dir);
		assert_int_equal(system(pattern), 0);
	}
	acquire(fixture, &a, "t", 5000);
	assert_int_equal(a.status, POOL_OK);
	assert_string_equal(a.socket_path, "");
}

static void renewed_leases_live_longer(void **state)
{
	struct fixture *fixture = *state;
	struct pool_acquire_params params = { .template_name = "t", .ttl_ms = 300 };
	struct pool_lease lease;
	struct acquired a, b;
	uint64_t expires_ns;

	make_pool(fixture, 2);
	fixture_acquire_params(fixture, &a, &params);
	fixture_acquire_params(fixture, &b, &params);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_in_range(lease.expires_realtime_ns - lease.acquired_realtime_ns, 300 * NSEC_PER_MSEC,
			400 * NSEC_PER_MSEC);
	expires_ns = lease.expires_realtime_ns;
	assert_int_equal(pool_renew(fixture->pool, a.id, 100000), POOL_OK);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_int_equal(lease.ttl_ms, 100000);
	assert_true(lease.expires_realtime_ns >= expires_ns + 99 * NSEC_PER_SEC);
	assert_int_equal(fixture_wait_ended(fixture, b.id), POOL_CAUSE_EXPIRED);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_true(lease.active);
	/* Never by itself; then soon. */
	assert_int_equal(pool_renew(fixture->pool, a.id, 0), POOL_OK);
	assert_true(pool_get(fixture->pool, a.id, &lease));
	assert_int_equal(lease.expires_realtime_ns, 0);
	assert_int_equal(pool_renew(fixture->pool, a.id, 1), POOL_OK);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_EXPIRED);
	assert_int_equal(pool_renew(fixture->pool, a.id, 1), POOL_NOT_FOUND);
	assert_int_equal(pool_renew(fixture->pool, "nonsense", 1), POOL_NOT_FOUND);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(leases_end_and_can_be_had_again),
		TEST(the_queue_has_a_quota),
		TEST(other_templates_are_denied),
		TEST(tokens_differ),
		TEST(sockets_are_given_to_the_user),
		TEST(a_socket_that_cannot_be_given_is_not_shown),
		TEST(renewed_leases_live_longer),
	};

	return cmocka_run_group_tests_name("pool-quota", tests, NULL, NULL);
}
