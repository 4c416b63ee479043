/* SPDX-License-Identifier: Apache-2.0 */

/* Every method of the manager: results, wrong parameters, errors. */

#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <string.h>
#include <unistd.h>

#define LEASE(n) "00000000000000000000000000000" n

static void test_acquire(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire",
		       "\x83\xa8template\xa6python\xa6ttl_ms\x05\xa6labels\x81\xa3who\xa2me");
	assert_null(client_response(&client, 1));
	assert_true(rpc_object_is(client_result(&client, "lease"), LEASE("001")));
	assert_true(rpc_object_is(client_result(&client, "state"), "active"));
	assert_true(rpc_object_is(client_result(&client, "template"), "python"));
	assert_int_equal(client_result(&client, "cause")->type, MSGPACK_OBJECT_NIL);
	assert_int_equal(client_result(&client, "ttl_ms")->via.u64, 5);
	assert_int_equal(client_result(&client, "pid")->via.u64, 4711);
	assert_true(rpc_object_is(rpc_map_get(&client_result(&client, "labels")->via.map, "who"),
				  "me"));

	const msgpack_object_map *timings = &client_result(&client, "timings")->via.map;

	assert_int_equal(rpc_map_get(timings, "claim_ns")->via.u64, 2);
	assert_int_equal(rpc_map_get(timings, "first_entry_ns")->type, MSGPACK_OBJECT_NIL);
	assert_int_equal(rpc_map_get(&rpc_map_get(timings, "restore")->via.map, "park_ns")->via.u64,
			 7);
	assert_int_equal(client.received_fd, -1);
	client_close(&client);
	assert_int_equal(fake_pool_active(fixture->pool), 1);
}

static void test_acquire_with_descriptor(void **state)
{
	struct fixture *fixture = *state;
	struct client client;
	char byte = 0;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON_FD);
	assert_null(client_response(&client, 1));
	assert_true(client.received_fd >= 0);
	assert_int_equal(write(fixture->pool->leases[0].stream, "x", 1), 1);
	assert_int_equal(read(client.received_fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	/* The server kept no copy: closing ours is the end of the stream. */
	client.received_fd = base_fd_close(client.received_fd);
	assert_int_equal(read(fixture->pool->leases[0].stream, &byte, 1), 0);
	client_close(&client);
}

static void test_acquire_waits(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 2, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 3, "acquire", "\x82\xa8template\xa6python\xaatimeout_ms\x00");
	/* Answers come when they are there, not in order. */
	assert_string_equal(client_response(&client, 3), "deadline_exceeded");
	assert_int_equal(fixture->pool->n_waiters, 2);
	assert_non_null(strstr(fixture->pool->tenant->name, "uid:"));
	fake_pool_answer(fixture->pool, POOL_OK);
	assert_null(client_response(&client, 1));
	fake_pool_answer(fixture->pool, POOL_UNAVAILABLE);
	assert_string_equal(client_response(&client, 2), "unavailable");
	assert_string_equal(client_error_text(&client), "as the test wants it");
	CLIENT_REQUEST(&client, 4, "acquire", "\x81\xa8template\xa5other");
	assert_string_equal(client_response(&client, 4), "not_found");
	client_close(&client);
}

static void test_statuses(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		enum pool_status status;
		const char *code;
	} cases[] = {
		{ POOL_NOT_FOUND, "not_found" }, { POOL_DEADLINE_EXCEEDED, "deadline_exceeded" },
		{ POOL_EXHAUSTED, "exhausted" }, { POOL_UNAVAILABLE, "unavailable" },
		{ POOL_FAILED, "failed" },
	};
	struct client client;

	client_open(&client, fixture);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLIENT_REQUEST(&client, i, "acquire", ACQUIRE_PYTHON);
		fake_pool_answer(fixture->pool, cases[i].status);
		assert_string_equal(client_response(&client, i), cases[i].code);
	}
	client_close(&client);
}

static void test_wrong_parameters(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		const char *method;
		const char *params;
		size_t size;
		const char *text;
	} cases[] = {
#define CASE(method, params, text) { method, params, sizeof(params) - 1, text }
		CASE("acquire", "\x80", "template: missing"),
		CASE("acquire", "\x81\xa8template\x01", "template: not a string"),
		CASE("acquire", "\x81\xa8template\xa0", "template: not a template name"),
		CASE("acquire", "\x81\xa8template\xa3../", "template: not a template name"),
		CASE("acquire", "\x81\xa8template\xa3p\0y", "template: contains a NUL"),
		CASE("acquire", "\x82\xa8template\xa6python\xa8template\xa6python", "given twice"),
		CASE("acquire",
		     "\x82\xa8template\xa6python\xa5"
		     "color\x01",
		     "color: no such parameter"),
		CASE("acquire", "\x82\xa8template\xa6python\x01\x01", "name is not a string"),
		CASE("acquire", "\x82\xa8template\xa6python\xaatimeout_ms\xff",
		     "timeout_ms: not an unsigned"),
		CASE("acquire", "\x82\xa8template\xa6python\xaatimeout_ms\xce\x05\x26\x5c\x01",
		     "timeout_ms: more than 86400000"),
		CASE("acquire", "\x82\xa8template\xa6python\xa6ttl_ms\xce\x9a\x7e\xc8\x01",
		     "ttl_ms: more than 2592000000"),
		CASE("acquire", "\x82\xa8template\xa6python\xa7pass_fd\x01",
		     "pass_fd: not a boolean"),
		CASE("acquire",
		     "\x82\xa8template\xa6python\xa4"
		     "bind\xc0",
		     "bind: not a boolean"),
		CASE("acquire", "\x82\xa8template\xa6python\xa6labels\x90", "labels: not a map"),
		CASE("acquire", "\x82\xa8template\xa6python\xa6labels\x81\xa1k\x01",
		     "labels: not a string"),
		CASE("acquire", "\x82\xa8template\xa6python\xa6labels\x82\xa1k\xa1v\xa1k\xa1w",
		     "labels: a key is given twice"),
		CASE("acquire",
		     "\x82\xa8template\xa6python\xa6labels\xde\x00\x21"
		     "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1"
		     "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1",
		     "labels: more than 32"),
		CASE("release", "\x80", "lease: missing"),
		CASE("release",
		     "\x81\xa5lease\xd9\x21"
		     "000000000000000000000000000000001",
		     "lease: longer than 32 bytes"),
		CASE("get", "\x81\xa5lease\xc4\x01x", "lease: not a string"),
		CASE("list", "\x81\xa5state\xa4gone", "state: not one of"),
		CASE("list", "\x81\xa5state\x01", "state: not a string"),
		CASE("template.list", "\x81\xa1x\x01", "x: no such parameter"),
		CASE("template.inspect", "\x80", "name: missing"),
		CASE("pool.get", "\x81\xa8template\x01", "template: not a string"),
		CASE("pool.set", "\x81\xa8template\xa6python",
		     "none of target, min, max and shells"),
		CASE("pool.set", "\x83\xa8template\xa6python\xa6target\x01\xa3min\x01",
		     "target: is both min and max"),
		CASE("pool.set", "\x82\xa8template\xa6python\xa6shells\xcd\x04\x01",
		     "shells: more than 1024"),
		CASE("pool.set", "\x83\xa8template\xa6python\xa3min\x02\xa3max\x01",
		     "min: more than max"),
		CASE("pool.set", "\x82\xa8template\xa6python\xa6target\xcd\x27\x11",
		     "target: more than 10000"),
		CASE("stats", "\x81\xa1x\x01", "x: no such parameter"),
		CASE("health", "\x81\xa1x\x01", "x: no such parameter"),
#undef CASE
	};
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		client_request(&client, i, cases[i].method, cases[i].params, cases[i].size);
		assert_string_equal(client_response(&client, i), "invalid_argument");
		if (!strstr(client_error_text(&client), cases[i].text)) {
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].method,
				 client_error_text(&client), cases[i].text);
		}
	}
	/* Nothing was handed out, and the connection goes on. */
	assert_int_equal(fixture->pool->n_leases, 0);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	client_close(&client);
}

static void test_invalid_requests(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "fly", EMPTY);
	assert_string_equal(client_response(&client, 1), "unknown_method");
	assert_string_equal(client_error_text(&client), "fly: no such method");
	CLIENT_REQUEST(&client, 2, "", EMPTY);
	assert_string_equal(client_response(&client, 2), "unknown_method");
	client_send(&client, "\x94\x00\x03\xa6health\x90", 11);
	assert_string_equal(client_response(&client, 3), "invalid_request");
	/* An id that is open already. */
	CLIENT_REQUEST(&client, 4, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 4, "health", EMPTY);
	assert_string_equal(client_response(&client, 4), "invalid_request");
	fake_pool_answer(fixture->pool, POOL_OK);
	assert_null(client_response(&client, 4));
	client_close(&client);
}

static void test_release_and_get(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	CLIENT_REQUEST(&client, 2, "get", "\x81\xa5lease\xd9\x20" LEASE("001"));
	assert_null(client_response(&client, 2));
	assert_true(rpc_object_is(client_result(&client, "state"), "active"));
	for (uint32_t id = 3; id < 5; id++) {
		CLIENT_REQUEST(&client, id, "release", "\x81\xa5lease\xd9\x20" LEASE("001"));
		assert_null(client_response(&client, id));
	}
	CLIENT_REQUEST(&client, 5, "get", "\x81\xa5lease\xd9\x20" LEASE("001"));
	assert_null(client_response(&client, 5));
	assert_true(rpc_object_is(client_result(&client, "state"), "ended"));
	assert_true(rpc_object_is(client_result(&client, "cause"), "released"));
	CLIENT_REQUEST(&client, 6, "release", "\x81\xa5lease\xd9\x20" LEASE("002"));
	assert_string_equal(client_response(&client, 6), "not_found");
	CLIENT_REQUEST(&client, 7, "get", "\x81\xa5lease\xa1x");
	assert_string_equal(client_response(&client, 7), "not_found");
	assert_int_equal(fixture->pool->n_released, 1);
	client_close(&client);
}

/* Acquires and reads n leases. */
static void acquire_many(struct client *client, unsigned n)
{
	client->fixture->pool->parked += n;
	for (uint32_t i = 0; i < n; i++) {
		CLIENT_REQUEST(client, i, "acquire", ACQUIRE_PYTHON);
		assert_null(client_response(client, i));
	}
}

static void test_list(void **state)
{
	struct fixture *fixture = *state;
	char after[] = "\x82\xa5state\xa3"
		       "all\xa5"
		       "after\xd9\x20" LEASE("000");
	struct client client;
	size_t total;

	client_open(&client, fixture);
	acquire_many(&client, 600);
	CLIENT_REQUEST(&client, 1, "release", "\x81\xa5lease\xd9\x20" LEASE("001"));
	assert_null(client_response(&client, 1));
	CLIENT_REQUEST(&client, 2, "list",
		       "\x81\xa5state\xa5"
		       "ended");
	assert_null(client_response(&client, 2));
	assert_int_equal(client_result(&client, "leases")->via.array.size, 1);
	assert_false(client_result(&client, "more")->via.boolean);
	/* All of them, a page at a time. */
	CLIENT_REQUEST(&client, 3, "list",
		       "\x81\xa5state\xa3"
		       "all");
	assert_null(client_response(&client, 3));
	total = client_result(&client, "leases")->via.array.size;
	assert_true(client_result(&client, "more")->via.boolean);
	while (client_result(&client, "more")->via.boolean) {
		const msgpack_object_array *page = &client_result(&client, "leases")->via.array;
		const msgpack_object *id = rpc_map_get(&page->ptr[page->size - 1].via.map, "lease");

		memcpy(after + sizeof(after) - 1 - POOL_LEASE_ID_LENGTH, id->via.str.ptr,
		       POOL_LEASE_ID_LENGTH);
		client_request(&client, 4, "list", after, sizeof(after) - 1);
		assert_null(client_response(&client, 4));
		total += client_result(&client, "leases")->via.array.size;
	}
	assert_int_equal(total, 600);
	CLIENT_REQUEST(&client, 5, "list", EMPTY);
	assert_null(client_response(&client, 5));
	CLIENT_REQUEST(&client, 6, "list",
		       "\x81\xa5"
		       "after\xa1x");
	assert_string_equal(client_response(&client, 6), "not_found");
	client_close(&client);
}

static void test_templates(void **state)
{
	struct fixture *fixture = *state;
	const msgpack_object_array *templates;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "template.list", EMPTY);
	assert_null(client_response(&client, 1));
	templates = &client_result(&client, "templates")->via.array;
	assert_int_equal(templates->size, 2);
	assert_true(rpc_object_is(rpc_map_get(&templates->ptr[0].via.map, "error"),
				  "manifest: damaged"));
	assert_int_equal(rpc_map_get(&templates->ptr[1].via.map, "memory_bytes")->via.u64, MIB(64));
	CLIENT_REQUEST(&client, 2, "template.list",
		       "\x81\xa5"
		       "after\xa7"
		       "damaged");
	assert_null(client_response(&client, 2));
	assert_int_equal(client_result(&client, "templates")->via.array.size, 1);
	CLIENT_REQUEST(&client, 3, "template.inspect", "\x81\xa4name\xa6python");
	assert_null(client_response(&client, 3));
	assert_int_equal(client_result(&client, "vcpus")->via.u64, 1);
	assert_int_equal(client_result(&client, "disks")->via.array.size, 1);
	assert_int_equal(client_result(&client, "parent")->type, MSGPACK_OBJECT_NIL);
	CLIENT_REQUEST(&client, 4, "template.inspect",
		       "\x81\xa4name\xa7"
		       "damaged");
	assert_string_equal(client_response(&client, 4), "failed");
	assert_string_equal(client_error_text(&client), "manifest: damaged");
	CLIENT_REQUEST(&client, 5, "template.inspect", "\x81\xa4name\xa5other");
	assert_string_equal(client_response(&client, 5), "not_found");
	client_close(&client);
}

static void test_pools(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "pool.set", "\x82\xa8template\xa6python\xa6target\x05");
	assert_null(client_response(&client, 1));
	assert_int_equal(client_result(&client, "target")->via.u64, 5);
	fixture->pool->hold_set = true;
	CLIENT_REQUEST(&client, 2, "pool.set", "\x82\xa8template\xa6python\xa6target\x00");
	CLIENT_REQUEST(&client, 3, "pool.get", EMPTY);
	assert_null(client_response(&client, 3));
	assert_int_equal(client_result(&client, "pools")->via.array.size, 2);
	fixture->pool->set->fn(fixture->pool->set, POOL_OK, NULL);
	assert_null(client_response(&client, 2));
	assert_int_equal(client_result(&client, "target")->via.u64, 0);
	CLIENT_REQUEST(&client, 4, "pool.get", "\x81\xa8template\xa6python");
	assert_null(client_response(&client, 4));
	assert_int_equal(client_result(&client, "pools")->via.array.size, 1);
	CLIENT_REQUEST(&client, 5, "pool.get", "\x81\xa8template\xa5other");
	assert_string_equal(client_response(&client, 5), "not_found");
	fixture->pool->hold_set = false;
	CLIENT_REQUEST(&client, 7, "pool.set", "\x83\xa8template\xa6python\xa3min\x01\xa3max\x09");
	assert_null(client_response(&client, 7));
	assert_int_equal(client_result(&client, "min")->via.u64, 1);
	assert_int_equal(client_result(&client, "max")->via.u64, 9);
	assert_int_equal(fixture->pool->set_params.shells, POOL_UNCHANGED);
	CLIENT_REQUEST(&client, 8, "pool.set", "\x82\xa8template\xa6python\xa6shells\x03");
	assert_null(client_response(&client, 8));
	assert_int_equal(fixture->pool->set_params.shells, 3);
	assert_int_equal(fixture->pool->set_params.min, POOL_UNCHANGED);
	CLIENT_REQUEST(&client, 6, "pool.set", "\x82\xa8template\xa5other\xa6target\x05");
	assert_string_equal(client_response(&client, 6), "unavailable");
	client_close(&client);
}

static uint64_t number(const msgpack_object *map, const char *key)
{
	const msgpack_object *value = rpc_map_get(&map->via.map, key);

	assert_non_null(value);
	return value->via.u64;
}

static void test_stats_and_health(void **state)
{
	struct fixture *fixture = *state;
	const msgpack_object *parked, *waited;
	struct client client;

	client_open(&client, fixture);
	acquire_many(&client, 3);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	fake_pool_answer(fixture->pool, POOL_OK);
	assert_null(client_response(&client, 1));
	CLIENT_REQUEST(&client, 2, "fly", EMPTY);
	assert_string_equal(client_response(&client, 2), "unknown_method");
	CLIENT_REQUEST(&client, 3, "stats", EMPTY);
	assert_null(client_response(&client, 3));
	assert_int_equal(number(client_result(&client, "requests"), "acquire"), 4);
	assert_int_equal(number(client_result(&client, "requests"), "stats"), 1);
	assert_int_equal(number(client_result(&client, "errors"), "unknown_method"), 1);
	assert_int_equal(number(client_result(&client, "connections"), "open"), 1);
	parked = rpc_map_get(&client_result(&client, "acquire")->via.map, "parked");
	waited = rpc_map_get(&client_result(&client, "acquire")->via.map, "waited");
	assert_int_equal(number(parked, "count"), 3);
	assert_int_equal(number(waited, "count"), 1);
	assert_true(number(parked, "p50_ns") > 0);
	assert_true(number(parked, "p50_ns") <= number(parked, "max_ns"));
	CLIENT_REQUEST(&client, 4, "health", EMPTY);
	assert_null(client_response(&client, 4));
	assert_true(rpc_object_is(client_result(&client, "status"), "degraded"));
	assert_true(rpc_object_is(&client_result(&client, "reasons")->via.array.ptr[0],
				  "template broken: memory: a flipped bit"));
	fixture->pool->trouble = "none of it";
	CLIENT_REQUEST(&client, 7, "health", EMPTY);
	assert_null(client_response(&client, 7));
	assert_int_equal(client_result(&client, "reasons")->via.array.size, 1);
	fixture->pool->below_min = true;
	CLIENT_REQUEST(&client, 5, "health", EMPTY);
	assert_null(client_response(&client, 5));
	assert_true(rpc_object_is(&client_result(&client, "reasons")->via.array.ptr[1],
				  "memory is short: none of it"));
	CLIENT_REQUEST(&client, 6, "pool.get", "\x81\xa8template\xa6python");
	assert_null(client_response(&client, 6));
	assert_true(rpc_object_is(
		rpc_map_get(&client_result(&client, "pools")->via.array.ptr[0].via.map, "pressure"),
		"none of it"));
	client_close(&client);
}

#define MEMORY	  "\x81\xa6memory\xc3"
#define SANDBOXES "\x82\xa6memory\xc3\xa9sandboxes\xc3"

static void test_memory(void **state)
{
	struct fixture *fixture = *state;
	const msgpack_object *memory, *template, *sandbox;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "stats", MEMORY);
	fixture_run(fixture);
	assert_non_null(fixture->pool->account);
	/* Meanwhile others are served. */
	CLIENT_REQUEST(&client, 2, "stats", EMPTY);
	assert_null(client_response(&client, 2));
	assert_null(rpc_map_get(&client.message.result.via.map, "memory"));
	fake_pool_measured(fixture->pool);
	assert_null(client_response(&client, 1));
	memory = client_result(&client, "memory");
	assert_int_equal(number(client_result(&client, "requests"), "stats"), 2);
	assert_int_equal(number(rpc_map_get(&memory->via.map, "host"), "unaccounted"), 12);
	assert_null(rpc_map_get(&memory->via.map, "sandboxes"));
	template = &rpc_map_get(&memory->via.map, "templates")->via.array.ptr[0];
	assert_int_equal(number(template, "parked"), 3);
	assert_int_equal(number(template, "image_resident"), MIB(5));
	assert_int_equal(number(rpc_map_get(&template->via.map, "mean"), "guest_private"), 75);

	CLIENT_REQUEST(&client, 3, "stats", SANDBOXES);
	fixture_run(fixture);
	fake_pool_measured(fixture->pool);
	assert_null(client_response(&client, 3));
	memory = rpc_map_get(&client_result(&client, "memory")->via.map, "sandboxes");
	assert_int_equal(memory->via.array.size, 2);
	sandbox = &memory->via.array.ptr[0];
	assert_int_equal(rpc_map_get(&sandbox->via.map, "lease")->type, MSGPACK_OBJECT_NIL);
	assert_int_equal(number(rpc_map_get(&sandbox->via.map, "memory"), "own"), 101);
	assert_true(rpc_object_is(rpc_map_get(&memory->via.array.ptr[1].via.map, "lease"), "01"));
	client_close(&client);
}

static void test_memory_parameters(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "stats", "\x81\xa8template\xa6python");
	assert_string_equal(client_response(&client, 1), "invalid_argument");
	CLIENT_REQUEST(&client, 2, "stats",
		       "\x83\xa6memory\xc3\xa8template\xa6python\xa5lease\xa2xy");
	assert_string_equal(client_response(&client, 2), "invalid_argument");
	CLIENT_REQUEST(&client, 3, "stats", "\x82\xa6memory\xc3\xa8template\xa5other");
	fixture_run(fixture);
	assert_string_equal(fixture->pool->account->template_name, "other");
	fake_pool_measured(fixture->pool);
	assert_string_equal(client_response(&client, 3), "not_found");
	CLIENT_REQUEST(&client, 4, "stats", "\x82\xa6memory\xc3\xa5lease\xa2xy");
	fixture_run(fixture);
	assert_string_equal(fixture->pool->account->lease, "xy");
	/* A client that goes away meanwhile is not told. */
	client_close(&client);
	fixture_run(fixture);
	assert_int_equal(fixture->pool->n_account_cancelled, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_acquire),	      TEST(test_acquire_with_descriptor),
		TEST(test_acquire_waits),     TEST(test_statuses),
		TEST(test_wrong_parameters),  TEST(test_invalid_requests),
		TEST(test_release_and_get),   TEST(test_list),
		TEST(test_templates),	      TEST(test_pools),
		TEST(test_stats_and_health),  TEST(test_memory),
		TEST(test_memory_parameters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
