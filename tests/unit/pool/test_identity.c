/* SPDX-License-Identifier: Apache-2.0 */

/* What a guest is told it is: encoded as docs/protocol.md says, and never the same twice. */

#include "guest/identity.h"

#include "base/clock.h"
#include "base/fd.h"
#include "tests/unit/pool/fixture.h"

#include <fcntl.h>
#include <msgpack.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The value of a key of the one parameter map. */
static const msgpack_object *field(const msgpack_object *request, const char *key)
{
	const msgpack_object_map *map = &request->via.array.ptr[3].via.array.ptr[0].via.map;

	for (uint32_t i = 0; i < map->size; i++) {
		const msgpack_object_str *name = &map->ptr[i].key.via.str;

		if (name->size == strlen(key) && memcmp(name->ptr, key, name->size) == 0) {
			return &map->ptr[i].val;
		}
	}
	fail_msg("no %s", key);
	return NULL;
}

static void assert_request(const msgpack_object *request, unsigned n_keys)
{
	const msgpack_object *items = request->via.array.ptr;

	assert_int_equal(request->type, MSGPACK_OBJECT_ARRAY);
	assert_int_equal(request->via.array.size, 4);
	assert_int_equal(items[0].via.u64, 0);
	assert_int_equal(items[1].via.u64, 0);
	assert_memory_equal(items[2].via.str.ptr, "identity", 8);
	assert_int_equal(items[3].via.array.size, 1);
	assert_int_equal(items[3].via.array.ptr[0].via.map.size, n_keys);
	assert_int_equal(field(request, "seed")->type, MSGPACK_OBJECT_BIN);
	assert_int_equal(field(request, "seed")->via.bin.size, GUEST_SEED_BYTES);
	assert_int_equal(field(request, "machine_id")->via.str.size, 32);
	assert_int_equal(field(request, "hostname")->via.str.size, 16);
	assert_memory_equal(field(request, "hostname")->via.str.ptr, "sandbox-", 8);

	const msgpack_object_str *boot_id = &field(request, "boot_id")->via.str;

	assert_int_equal(boot_id->size, 36);
	for (unsigned i = 0; i < 36; i++) {
		assert_int_equal(boot_id->ptr[i] == '-', i == 8 || i == 13 || i == 18 || i == 23);
	}
	assert_int_equal(boot_id->ptr[14], '4');
	assert_non_null(strchr("89ab", boot_id->ptr[19]));
}

static void check_encoding(bool touch)
{
	struct guest_identity identity;
	struct guest_identity_clock clock = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2 };
	uint8_t buffer[GUEST_IDENTITY_REQUEST_MAX];
	msgpack_unpacked unpacked;
	size_t size, end = 0;

	assert_int_equal(guest_identity_generate(&identity), 0);
	/* The largest numbers: it always fits. */
	size = guest_identity_encode(&identity, UINT64_MAX, &clock, touch, buffer);
	assert_true(size <= GUEST_IDENTITY_REQUEST_MAX);
	msgpack_unpacked_init(&unpacked);
	assert_int_equal(msgpack_unpack_next(&unpacked, (char *)buffer, size, &end),
			 MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(end, size);
	assert_request(&unpacked.data, touch ? 9 : 8);
	assert_memory_equal(field(&unpacked.data, "seed")->via.bin.ptr, identity.seed,
			    GUEST_SEED_BYTES);
	assert_true(field(&unpacked.data, "generation")->via.u64 == UINT64_MAX);
	assert_true(field(&unpacked.data, "realtime_ns")->via.u64 == UINT64_MAX);
	assert_true(field(&unpacked.data, "tsc")->via.u64 == UINT64_MAX - 1);
	assert_true(field(&unpacked.data, "tsc_khz")->via.u64 == UINT64_MAX - 2);
	if (touch) {
		assert_true(field(&unpacked.data, "touch")->via.boolean);
	}
	msgpack_unpacked_destroy(&unpacked);
	guest_identity_wipe(&identity);
	for (unsigned i = 0; i < GUEST_SEED_BYTES; i++) {
		assert_int_equal(identity.seed[i], 0);
	}
}

static void encodes_what_the_protocol_says(void **state)
{
	check_encoding(false);
	check_encoding(true);
}

#define SANDBOXES 30

static void no_two_sandboxes_are_alike(void **state)
{
	struct fixture *fixture = *state;
	static const char *const keys[] = { "machine_id", "boot_id", "hostname", "seed",
					    "generation" };
	static msgpack_unpacked unpacked[SANDBOXES];
	char script[128], path[96], *data;
	_cleanup_free_ char *owned = NULL;
	size_t size;

	snprintf(path, sizeof(path), "%s/log", fixture->root);
	snprintf(script, sizeof(script), "log=%s\n", path);
	fixture_template(fixture, "t", script);
	fixture_pool(fixture, 0, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", SANDBOXES, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == SANDBOXES);

	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(base_fd_read_file(fd, 1 << 20, &owned, &size), 0);
	data = owned;
	for (unsigned i = 0; i < SANDBOXES; i++) {
		size_t length = (uint8_t)data[0] | (size_t)(uint8_t)data[1] << 8, end = 0;

		msgpack_unpacked_init(&unpacked[i]);
		assert_int_equal(msgpack_unpack_next(&unpacked[i], data + 2, length, &end),
				 MSGPACK_UNPACK_SUCCESS);
		/* The snapshot says that it is of a host where a rehearsal pays. */
		assert_request(&unpacked[i].data, 9);
		assert_true(field(&unpacked[i].data, "touch")->via.boolean);
		data += 2 + length;
		/* The clock is what the VMM said when it loaded the state. */
		assert_int_equal(field(&unpacked[i].data, "tsc")->via.u64, 123456789);
		assert_in_range(base_clock_realtime_ns() -
					field(&unpacked[i].data, "realtime_ns")->via.u64,
				0, 60 * NSEC_PER_SEC);
		for (unsigned j = 0; j < i; j++) {
			for (unsigned k = 0; k < ARRAY_SIZE(keys); k++) {
				assert_false(
					msgpack_object_equal(*field(&unpacked[i].data, keys[k]),
							     *field(&unpacked[j].data, keys[k])));
			}
		}
	}
	assert_ptr_equal(data, owned + size);
	for (unsigned i = 0; i < SANDBOXES; i++) {
		msgpack_unpacked_destroy(&unpacked[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodes_what_the_protocol_says),
		cmocka_unit_test_setup_teardown(no_two_sandboxes_are_alike, fixture_setup,
						fixture_teardown),
	};

	return cmocka_run_group_tests_name("pool-identity", tests, NULL, NULL);
}
