/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a client may see and do: its own tenant's leases with their tokens, and nothing else unless
 * it is an administrator.
 */

#include "rpc/server.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"
#include "rpc/peer.h"

#include <grp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEASE	"\xa5lease\xd9\x20" FIRST_LEASE
#define NO_SUCH "\xa5lease\xd9\x20" NO_LEASE
#define TOKEN	"\xa5token\xd9\x20" FIRST_TOKEN
#define WRONG	"\xa5token\xd9\x20" NO_TOKEN

#define FIRST_LEASE "00000000000000000000000000000001"
#define NO_LEASE    "000000000000000000000000000000ff"
#define FIRST_TOKEN "0000000000000000000000000abc0001"
#define NO_TOKEN    "0000000000000000000000000abc0002"

static uid_t own_uid;
/* Named by a section, so that even the superuser is no administrator. */
static struct pool_tenant_config section = { .name = "me", .uids = &own_uid, .n_uids = 1 };

static int setup_tenant(void **state)
{
	struct fixture *fixture = fixture_new();

	own_uid = getuid();
	section.quotas = pool_tenant_config_others().quotas;
	fixture->sections = &section;
	fixture->n_sections = 1;
	fixture_open(fixture);
	*state = fixture;
	return 0;
}

/* A client with a lease that it has read. */
static void open_with_lease(struct client *client, struct fixture *fixture)
{
	fixture->pool->parked = 1;
	client_open(client, fixture);
	CLIENT_REQUEST(client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(client, 1));
	assert_true(rpc_object_is(client_result(client, "lease"), FIRST_LEASE));
}

/* As if somebody else had acquired it. */
static void give_away(struct fixture *fixture)
{
	struct fake_lease *lease = &fixture->pool->leases[0];

	pool_tenant_unref(lease->tenant);
	lease->tenant = pool_tenants_named(&fixture->pool->tenants, "somebody");
}

static void only_acquire_gives_the_token(void **state)
{
	struct fixture *fixture = *state;
	struct client client;
	const msgpack_object_array *leases;

	open_with_lease(&client, fixture);
	assert_true(rpc_object_is(client_result(&client, "token"), FIRST_TOKEN));
	assert_true(rpc_object_is(client_result(&client, "tenant"), "me"));
	CLIENT_REQUEST(&client, 2, "get", "\x81" LEASE);
	assert_null(client_response(&client, 2));
	assert_null(rpc_map_get(&client.message.result.via.map, "token"));
	CLIENT_REQUEST(&client, 3, "list", EMPTY);
	assert_null(client_response(&client, 3));
	leases = &client_result(&client, "leases")->via.array;
	assert_int_equal(leases->size, 1);
	assert_null(rpc_map_get(&leases->ptr[0].via.map, "token"));
	CLIENT_REQUEST(&client, 4, "renew", "\x83" LEASE TOKEN "\xa6ttl_ms\x05");
	assert_null(client_response(&client, 4));
	assert_int_equal(client_result(&client, "ttl_ms")->via.u64, 5);
	assert_int_equal(client_result(&client, "expires_ns")->via.u64, 5 * NSEC_PER_MSEC);
	assert_null(rpc_map_get(&client.message.result.via.map, "token"));
	CLIENT_REQUEST(&client, 5, "release", "\x82" LEASE TOKEN);
	assert_null(client_response(&client, 5));
	assert_int_equal(fake_pool_active(fixture->pool), 0);
	CLIENT_REQUEST(&client, 6, "renew", "\x83" LEASE TOKEN "\xa6ttl_ms\x05");
	assert_string_equal(client_response(&client, 6), "not_found");
	assert_string_equal(client_error_text(&client), "the lease has ended");
	client_close(&client);
}

/* A wrong token, somebody else's lease and one that does not exist: the same code and text. */
static void a_wrong_token_is_an_unknown_lease(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		const char *method;
		const char *params;
		size_t size;
		const char *text;
	} cases[] = {
#define CASE(method, params, text) { method, params, sizeof(params) - 1, text ": no such lease" }
		CASE("release", "\x82" LEASE WRONG, FIRST_LEASE),
		CASE("release", "\x82" NO_SUCH TOKEN, NO_LEASE),
		CASE("release", "\x82" LEASE "\xa5token\xa0", FIRST_LEASE),
		CASE("release", "\x82" LEASE "\xa5token\xa1x", FIRST_LEASE),
		CASE("renew", "\x83" LEASE WRONG "\xa6ttl_ms\x05", FIRST_LEASE),
		CASE("renew", "\x83" NO_SUCH TOKEN "\xa6ttl_ms\x05", NO_LEASE),
		/* From here on it is somebody else's. */
		CASE("get", "\x81" LEASE, FIRST_LEASE),
		CASE("get", "\x81" NO_SUCH, NO_LEASE),
		CASE("release", "\x82" LEASE TOKEN, FIRST_LEASE),
		CASE("renew", "\x83" LEASE TOKEN "\xa6ttl_ms\x05", FIRST_LEASE),
		CASE("list",
		     "\x81\xa5"
		     "after\xd9\x20" FIRST_LEASE,
		     FIRST_LEASE),
#undef CASE
	};
	struct client client;

	open_with_lease(&client, fixture);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (i == 6) {
			give_away(fixture);
		}
		client_request(&client, i, cases[i].method, cases[i].params, cases[i].size);
		assert_string_equal(client_response(&client, i), "not_found");
		assert_string_equal(client_error_text(&client), cases[i].text);
	}
	CLIENT_REQUEST(&client, 1, "list", EMPTY);
	assert_null(client_response(&client, 1));
	assert_int_equal(client_result(&client, "leases")->via.array.size, 0);
	/* Without a token at all: that is seen before any lease is looked for. */
	CLIENT_REQUEST(&client, 2, "release", "\x81" LEASE);
	assert_string_equal(client_response(&client, 2), "invalid_argument");
	assert_string_equal(client_error_text(&client), "token: missing");
	CLIENT_REQUEST(&client, 3, "release", "\x81" NO_SUCH);
	assert_string_equal(client_response(&client, 3), "invalid_argument");
	CLIENT_REQUEST(&client, 4, "release", "\x82" LEASE "\xa5token\xd9\x21" FIRST_TOKEN "0");
	assert_string_equal(client_response(&client, 4), "invalid_argument");
	assert_int_equal(fake_pool_active(fixture->pool), 1);
	client_close(&client);
}

static void an_administrator_needs_no_token(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	section.admin = true;
	open_with_lease(&client, fixture);
	give_away(fixture);
	CLIENT_REQUEST(&client, 2, "get", "\x81" LEASE);
	assert_null(client_response(&client, 2));
	assert_true(rpc_object_is(client_result(&client, "tenant"), "somebody"));
	CLIENT_REQUEST(&client, 3, "list", EMPTY);
	assert_null(client_response(&client, 3));
	assert_int_equal(client_result(&client, "leases")->via.array.size, 1);
	CLIENT_REQUEST(&client, 4, "renew", "\x82" LEASE "\xa6ttl_ms\x05");
	assert_null(client_response(&client, 4));
	CLIENT_REQUEST(&client, 5, "release", "\x81" LEASE);
	assert_null(client_response(&client, 5));
	assert_int_equal(fake_pool_active(fixture->pool), 0);
	client_close(&client);
	section.admin = false;
}

static void others_are_no_administrators(void **state)
{
	struct fixture *fixture = *state;
	static const char *const methods[] = { "template.list", "template.inspect", "pool.get",
					       "pool.set", "stats" };
	struct client client;

	client_open(&client, fixture);
	for (uint32_t i = 0; i < ARRAY_SIZE(methods); i++) {
		CLIENT_REQUEST(&client, i, methods[i], EMPTY);
		assert_string_equal(client_response(&client, i), "permission_denied");
		assert_non_null(strstr(client_error_text(&client), ": tenant me is no admin"));
	}
	/* They learn whether all is well, not what others do. */
	CLIENT_REQUEST(&client, 1, "health", EMPTY);
	assert_null(client_response(&client, 1));
	assert_true(rpc_object_is(client_result(&client, "status"), "degraded"));
	assert_int_equal(client_result(&client, "reasons")->via.array.size, 0);
	client_close(&client);
}

static void a_quota_says_which_and_when(void **state)
{
	struct fixture *fixture = *state;
	const msgpack_object_map *error;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", "\x81\xa8template\xa7refused");
	assert_string_equal(client_response(&client, 1), "quota_exceeded");
	assert_string_equal(client_error_text(&client), "too many");
	error = &client.message.error.via.map;
	assert_true(rpc_object_is(rpc_map_get(error, "quota"), "rate"));
	/* Rounded up. */
	assert_int_equal(rpc_map_get(error, "retry_ms")->via.u64, 2);
	client_close(&client);
}

/* --- connections --- */

static void raise_descriptor_limit(unsigned needed)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < needed) {
		skip();
	}
}

static void connections_have_a_quota(void **state)
{
	struct fixture *fixture = *state;
	static struct client clients[RPC_TENANT_CONNECTIONS_MAX + 1];
	struct client *last = &clients[RPC_TENANT_CONNECTIONS_MAX];
	const msgpack_object_map *error;

	raise_descriptor_limit(2 * RPC_TENANT_CONNECTIONS_MAX + 100);
	for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
		client_open(&clients[i], fixture);
	}
	assert_string_equal(client_response(last, 0), "quota_exceeded");
	error = &last->message.error.via.map;
	assert_true(rpc_object_is(rpc_map_get(error, "quota"), "connections"));
	assert_int_equal(rpc_map_get(error, "retry_ms")->type, MSGPACK_OBJECT_NIL);
	assert_int_equal(client_receive(last), 0);
	/* The others are served, and one that leaves makes room. */
	CLIENT_REQUEST(last - 1, 1, "health", EMPTY);
	assert_null(client_response(last - 1, 1));
	client_close(last);
	client_close(&clients[0]);
	client_open(&clients[0], fixture);
	CLIENT_REQUEST(&clients[0], 1, "health", EMPTY);
	assert_null(client_response(&clients[0], 1));
	for (unsigned i = 0; i < RPC_TENANT_CONNECTIONS_MAX; i++) {
		client_close(&clients[i]);
	}
}

/* When others have all connections that are not reserved, an administrator still gets one. */
static void some_connections_are_for_administrators(void **state)
{
	struct fixture *fixture = *state;
	struct client other, admin;

	fixture->server->n_connections += RPC_CONNECTIONS_MAX - RPC_CONNECTIONS_RESERVED;
	client_open(&other, fixture);
	assert_string_equal(client_response(&other, 0), "exhausted");
	client_close(&other);
	section.admin = true;
	client_open(&admin, fixture);
	CLIENT_REQUEST(&admin, 1, "health", EMPTY);
	assert_null(client_response(&admin, 1));
	client_close(&admin);
	section.admin = false;
	fixture->server->n_connections -= RPC_CONNECTIONS_MAX - RPC_CONNECTIONS_RESERVED;
}

static void the_kernel_tells_who_it_is(void **state)
{
	_cleanup_free_ gid_t *groups = NULL, *mine = calloc(NGROUPS_MAX, sizeof(*mine));
	struct pool_peer peer;
	int pair[2], n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(rpc_peer_read(pair[0], &peer, &groups), 0);
	assert_int_equal(peer.pid, getpid());
	assert_int_equal(peer.uid, geteuid());
	assert_int_equal(peer.gid, getegid());
	n = getgroups(NGROUPS_MAX, mine);
	assert_int_equal(peer.n_groups, n);
	assert_memory_equal(groups, mine, (size_t)n * sizeof(*mine));
	close(pair[0]);
	close(pair[1]);
}

static void many_groups_are_read_all(void **state)
{
	_cleanup_free_ gid_t *groups = NULL, *mine = calloc(NGROUPS_MAX, sizeof(*mine));
	struct pool_peer peer;
	gid_t many[1000];
	int pair[2], n = getgroups(NGROUPS_MAX, mine);

	for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = 100000 + i;
	}
	if (setgroups(ARRAY_SIZE(many), many) < 0) {
		skip(); /* only the superuser may */
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(setgroups((size_t)n, mine), 0);
	assert_int_equal(rpc_peer_read(pair[0], &peer, &groups), 0);
	assert_int_equal(peer.n_groups, ARRAY_SIZE(many));
	assert_memory_equal(groups, many, sizeof(many));
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_tenant, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(only_acquire_gives_the_token),
		TEST(a_wrong_token_is_an_unknown_lease),
		TEST(an_administrator_needs_no_token),
		TEST(others_are_no_administrators),
		TEST(a_quota_says_which_and_when),
		TEST(connections_have_a_quota),
		TEST(some_connections_are_for_administrators),
		cmocka_unit_test(the_kernel_tells_who_it_is),
		cmocka_unit_test(many_groups_are_read_all),
	};

	return cmocka_run_group_tests_name("rpc-tenants", tests, NULL, NULL);
}
