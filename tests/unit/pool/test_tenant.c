/* SPDX-License-Identifier: Apache-2.0 */

/* Who is which tenant, how long one is remembered, and the arithmetic of quotas. */

#include "pool/tenant.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const uid_t ci_uids[] = { 1000, 1001 };
static const gid_t web_gids[] = { 33, 34 };
static const gid_t late_gids[] = { 34, 35 };
static const uid_t root_uids[] = { 0 };
static const char *const ci_templates[] = { "python", "node" };

/* The last, which names the superuser, is left out by most tests. */
static const struct pool_tenant_config sections[] = {
	{ .name = "ci",
	  .uids = ci_uids,
	  .n_uids = 2,
	  .templates = ci_templates,
	  .n_templates = 2,
	  .quotas = { 3, 10, 2, 1 } },
	{ .name = "web", .gids = web_gids, .n_gids = 2, .quotas = { 5, 1, 1, 1 } },
	{ .name = "late", .gids = late_gids, .n_gids = 2, .quotas = { 5, 1, 1, 1 }, .admin = true },
	{ .name = "chief", .uids = root_uids, .n_uids = 1, .quotas = { 1, 1, 1, 1 } },
};

static struct pool_tenants_config config;
static struct pool_tenants tenants;

static int setup(void **state)
{
	config = (struct pool_tenants_config){ sections, ARRAY_SIZE(sections) - 1,
					       pool_tenant_config_others() };
	assert_int_equal(pool_tenants_init(&tenants, &config), 0);
	return 0;
}

static int teardown(void **state)
{
	pool_tenants_deinit(&tenants);
	return 0;
}

/* The name of a peer's tenant and the group by which it is that. */
static const char *name_of(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups, gid_t *ret)
{
	static char name[POOL_TENANT_NAME_MAX + 1];
	struct pool_peer peer = { .uid = uid, .gid = gid, .groups = groups, .n_groups = n_groups };
	struct pool_tenant *tenant = pool_tenants_find(&tenants, &peer, ret);

	assert_non_null(tenant);
	strcpy(name, tenant->name);
	pool_tenant_unref(tenant);
	return name;
}

static void sections_say_who_is_which(void **state)
{
	static const gid_t in_both[] = { 7, 34 }, in_none[] = { 7, 8 };
	gid_t gid;

	assert_string_equal(name_of(1000, 5, NULL, 0, &gid), "ci");
	assert_int_equal(gid, POOL_GROUP_NONE);
	/* A user counts for more than a group, */
	assert_string_equal(name_of(1001, 33, in_both, 2, &gid), "ci");
	assert_int_equal(gid, POOL_GROUP_NONE);
	/* the first section that names a group for more than a later one, */
	assert_string_equal(name_of(2000, 33, NULL, 0, &gid), "web");
	assert_int_equal(gid, 33);
	assert_string_equal(name_of(2000, 5, in_both, 2, &gid), "web");
	assert_int_equal(gid, 34);
	assert_string_equal(name_of(2000, 35, in_none, 2, &gid), "late");
	/* and others are by themselves. */
	assert_string_equal(name_of(2000, 5, in_none, 2, &gid), "uid:2000");
	assert_int_equal(gid, POOL_GROUP_NONE);
	assert_string_equal(name_of(UINT32_MAX - 1, 5, NULL, 0, &gid), "uid:4294967294");
}

static void the_superuser_is_admin_unless_named(void **state)
{
	struct pool_peer root = { .uid = 0, .gid = 0 }, self = { .uid = geteuid() },
			 other = { .uid = geteuid() + 4242 };
	struct pool_tenant *tenant;
	gid_t gid;

	tenant = pool_tenants_find(&tenants, &root, &gid);
	assert_true(tenant->config->admin);
	assert_int_equal(tenant->config->quotas.leases, POOL_QUOTA_UNLIMITED);
	pool_tenant_unref(tenant);
	tenant = pool_tenants_find(&tenants, &self, &gid);
	assert_true(tenant->config->admin);
	pool_tenant_unref(tenant);
	tenant = pool_tenants_find(&tenants, &other, &gid);
	assert_false(tenant->config->admin);
	assert_int_equal(tenant->config->quotas.leases, POOL_QUOTA_LEASES);
	pool_tenant_unref(tenant);

	pool_tenants_deinit(&tenants);
	config.n_named = ARRAY_SIZE(sections);
	assert_int_equal(pool_tenants_init(&tenants, &config), 0);
	tenant = pool_tenants_find(&tenants, &root, &gid);
	assert_string_equal(tenant->name, "chief");
	assert_false(tenant->config->admin);
	pool_tenant_unref(tenant);
}

static void names_lead_back(void **state)
{
	struct pool_tenant *ci = pool_tenants_named(&tenants, "ci"),
			   *moved = pool_tenants_named(&tenants, "uid:1001"),
			   *gone = pool_tenants_named(&tenants, "closed"),
			   *again = pool_tenants_named(&tenants, "closed"),
			   *user = pool_tenants_named(&tenants, "uid:2000");

	assert_ptr_equal(ci->config, &sections[0]);
	/* It has a section now. */
	assert_ptr_equal(moved, ci);
	assert_ptr_equal(gone, again);
	assert_string_equal(gone->name, "closed");
	assert_ptr_equal(gone->config, &config.others);
	assert_string_equal(user->name, "uid:2000");
	pool_tenant_unref(ci);
	pool_tenant_unref(moved);
	pool_tenant_unref(gone);
	pool_tenant_unref(again);
	pool_tenant_unref(user);
}

static void the_oldest_are_forgotten(void **state)
{
	struct pool_peer peer = { .uid = 10000 };
	struct pool_tenant *held, *first;
	gid_t gid;

	held = pool_tenants_find(&tenants, &peer, &gid);
	for (unsigned i = 1; i <= POOL_TENANTS_MAX; i++) {
		peer.uid = 10000 + i;
		first = pool_tenants_find(&tenants, &peer, &gid);
		first->paid_until_ns = i;
		pool_tenant_unref(first);
	}
	assert_int_equal(tenants.n_idle, POOL_TENANTS_MAX);
	/* At the limit, the first is still known, and now the latest. */
	peer.uid = 10001;
	first = pool_tenants_find(&tenants, &peer, &gid);
	assert_int_equal(first->paid_until_ns, 1);
	assert_int_equal(tenants.n_idle, POOL_TENANTS_MAX - 1);
	pool_tenant_unref(first);
	/* One past it, the one that was not heard of for longest goes. */
	peer.uid = 9000;
	pool_tenant_unref(pool_tenants_find(&tenants, &peer, &gid));
	assert_int_equal(tenants.n_idle, POOL_TENANTS_MAX);
	peer.uid = 10002;
	first = pool_tenants_find(&tenants, &peer, &gid);
	assert_int_equal(first->paid_until_ns, 0);
	pool_tenant_unref(first);
	pool_tenant_unref(held);
}

static void templates_are_allowed_by_name(void **state)
{
	struct pool_tenant *ci = pool_tenants_named(&tenants, "ci"),
			   *web = pool_tenants_named(&tenants, "web");

	assert_true(pool_tenant_may_use(ci, "python"));
	assert_true(pool_tenant_may_use(ci, "node"));
	assert_false(pool_tenant_may_use(ci, "nod"));
	assert_true(pool_tenant_may_use(web, "anything"));
	pool_tenant_unref(ci);
	pool_tenant_unref(web);
}

/* What waits will be a lease, so it counts. */
static void leases_have_a_quota(void **state)
{
	struct pool_tenant *ci = pool_tenants_named(&tenants, "ci");
	uint64_t retry_ns = 1;

	ci->n_leases = 1;
	ci->n_waiting = 1;
	assert_int_equal(pool_tenant_admit(ci, NSEC_PER_SEC, &retry_ns), POOL_QUOTA_NONE);
	ci->n_waiting = 2;
	assert_int_equal(pool_tenant_admit(ci, NSEC_PER_SEC, &retry_ns), POOL_QUOTA_OF_LEASES);
	assert_int_equal(retry_ns, 0);
	ci->n_leases = ci->n_waiting = 0;
	pool_tenant_unref(ci);
}

/* Ten a second, two at once. */
static void the_rate_is_exact(void **state)
{
	struct pool_tenant *ci = pool_tenants_named(&tenants, "ci");
	uint64_t now_ns = 5 * NSEC_PER_SEC, retry_ns, end_ns = now_ns + 10 * NSEC_PER_SEC;
	unsigned admitted = 0;

	assert_int_equal(pool_tenant_admit(ci, now_ns, &retry_ns), POOL_QUOTA_NONE);
	assert_int_equal(pool_tenant_admit(ci, now_ns, &retry_ns), POOL_QUOTA_NONE);
	assert_int_equal(pool_tenant_admit(ci, now_ns, &retry_ns), POOL_QUOTA_OF_RATE);
	assert_int_equal(retry_ns, 100 * NSEC_PER_MSEC);
	/* A nanosecond too early, and in time. */
	assert_int_equal(pool_tenant_admit(ci, now_ns + retry_ns - 1, &retry_ns),
			 POOL_QUOTA_OF_RATE);
	assert_int_equal(retry_ns, 1);
	now_ns += 100 * NSEC_PER_MSEC;
	assert_int_equal(pool_tenant_admit(ci, now_ns, &retry_ns), POOL_QUOTA_NONE);
	/* However often one asks. */
	for (; now_ns < end_ns; now_ns += NSEC_PER_MSEC) {
		admitted += pool_tenant_admit(ci, now_ns, &retry_ns) == POOL_QUOTA_NONE;
	}
	assert_in_range(admitted, 98, 100);
	pool_tenant_unref(ci);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(sections_say_who_is_which),
		TEST(the_superuser_is_admin_unless_named),
		TEST(names_lead_back),
		TEST(the_oldest_are_forgotten),
		TEST(templates_are_allowed_by_name),
		TEST(leases_have_a_quota),
		TEST(the_rate_is_exact),
	};

	return cmocka_run_group_tests_name("pool-tenant", tests, NULL, NULL);
}
