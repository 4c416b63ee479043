/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client library against the real server with the fake pool, which runs in a thread; and
 * against peers that say nothing, or nonsense.
 */

#include "rpc/warmbox.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct served {
	struct fixture *fixture;
	pthread_t thread;
	uv_async_t stop;
	struct warmbox_connection *connection;
};

static void handle_stop(uv_async_t *async)
{
	uv_close((uv_handle_t *)async, NULL);
	uv_stop(async->loop);
}

static void *serve(void *userdata)
{
	struct served *served = userdata;

	uv_run(&served->fixture->loop, UV_RUN_DEFAULT);
	return NULL;
}

/* What is parked must be set before, by the test's parameter. */
static struct served *start(void **state, unsigned parked)
{
	struct served *served = calloc(1, sizeof(*served));
	struct warmbox_error error;

	assert_non_null(served);
	served->fixture = *state;
	served->fixture->pool->parked = parked;
	assert_int_equal(uv_async_init(&served->fixture->loop, &served->stop, handle_stop), 0);
	assert_int_equal(pthread_create(&served->thread, NULL, serve, served), 0);
	assert_int_equal(warmbox_connect(served->fixture->socket, &served->connection, &error), 0);
	return served;
}

static void stop(struct served *served)
{
	warmbox_disconnect(served->connection);
	uv_async_send(&served->stop);
	pthread_join(served->thread, NULL);
	free(served);
}

static void test_lease(void **state)
{
	static const struct warmbox_label labels[] = { { "who", "me" } };
	const struct warmbox_acquire_params params = {
		.template_name = "python",
		.has_timeout = true,
		.ttl_ms = 1000,
		.labels = labels,
		.n_labels = 1,
	};
	struct served *served = start(state, 2);
	struct warmbox_lease lease = { 0 }, again = { 0 };
	struct warmbox_error error;
	int stream = -1;
	char byte;

	assert_int_equal(warmbox_acquire(served->connection, &params, &lease, &stream, &error), 0);
	assert_int_equal(strlen(lease.id), WARMBOX_ID_LENGTH);
	assert_string_equal(lease.template_name, "python");
	assert_string_equal(lease.socket, "/run/warmbox/sandboxes/1/vsock");
	assert_true(lease.active);
	assert_string_equal(lease.cause, "");
	assert_int_equal(lease.pid, 4711);
	assert_int_equal(lease.ttl_ms, 1000);
	assert_int_equal(lease.timings.claim_ns, 2);
	assert_int_equal(lease.timings.park_ns, 7);
	assert_int_equal(lease.timings.first_entry_ns, 0);
	assert_true(stream >= 0);
	assert_int_equal(write(served->fixture->pool->leases[0].stream, "x", 1), 1);
	assert_int_equal(read(stream, &byte, 1), 1);
	close(stream);

	assert_int_equal(warmbox_acquire(served->connection, &params, &again, NULL, &error), 0);
	assert_string_not_equal(lease.id, again.id);
	assert_int_equal(warmbox_release(served->connection, lease.id, lease.token, &error), 0);
	assert_int_equal(warmbox_get(served->connection, lease.id, &again, &error), 0);
	assert_false(again.active);
	assert_string_equal(again.cause, "released");

	/* Nothing is parked any more. */
	assert_int_equal(warmbox_acquire(served->connection, &params, &lease, &stream, &error),
			 -ETIMEDOUT);
	assert_int_equal(error.code, WARMBOX_DEADLINE_EXCEEDED);
	assert_int_equal(warmbox_release(served->connection, "nonsense", NULL, &error), -ENOENT);
	assert_int_equal(error.code, WARMBOX_NOT_FOUND);
	assert_string_equal(error.text, "nonsense: no such lease");
	assert_string_equal(warmbox_code_name(error.code), "not_found");
	stop(served);
}

static void test_call(void **state)
{
	struct served *served = start(state, 0);
	struct warmbox_error error;
	struct warmbox_value *value = NULL, *other = NULL;
	const msgpack_object *status;

	assert_int_equal(warmbox_call(served->connection, "health", NULL, 0, &value, &error), 0);
	assert_int_equal(warmbox_call(served->connection, "stats", NULL, 0, &other, &error), 0);
	/* A value outlives the next call. */
	status = warmbox_map_get(warmbox_value_object(value), "status");
	assert_non_null(status);
	assert_true(rpc_object_is(status, "degraded"));
	assert_null(warmbox_map_get(status, "x"));
	warmbox_value_free(value);
	warmbox_value_free(other);
	warmbox_value_free(NULL);

	assert_int_equal(warmbox_call(served->connection, "fly", NULL, 0, &value, &error), -ENOSYS);
	assert_int_equal(error.code, WARMBOX_UNKNOWN_METHOD);
	/* What is not one map is refused on this side; the connection goes on. */
	assert_int_equal(warmbox_call(served->connection, "health", "\x90", 1, &value, &error),
			 -EINVAL);
	assert_int_equal(error.code, WARMBOX_LOCAL);
	assert_int_equal(warmbox_call(served->connection, "health", "\x80\x80", 2, NULL, &error),
			 -EINVAL);
	assert_int_equal(warmbox_call(served->connection, "health", "\x81", 1, NULL, NULL),
			 -EINVAL);
	assert_int_equal(warmbox_call(served->connection, "health", NULL, 0, NULL, NULL), 0);
	stop(served);
}

static void test_nobody_there(void **state)
{
	struct warmbox_connection *connection;
	struct warmbox_error error;

	assert_int_equal(warmbox_connect("/no/such/socket", &connection, &error), -ENOENT);
	assert_int_equal(error.code, WARMBOX_CANNOT_CONNECT);
	assert_non_null(strstr(error.text, "/no/such/socket: no warmboxd answers there"));
	setenv("WARMBOX_SOCKET", "/another/socket", 1);
	assert_int_equal(warmbox_connect(NULL, &connection, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/another/socket"));
	unsetenv("WARMBOX_SOCKET");
	warmbox_disconnect(NULL);
}

/* --- peers that are no warmboxd --- */

struct impostor {
	char path[64];
	int listener, fd;
	struct warmbox_connection *connection;
};

static void impostor_open(struct impostor *impostor)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct warmbox_error error;

	snprintf(impostor->path, sizeof(impostor->path), "/tmp/rpc-client-%d", getpid());
	unlink(impostor->path);
	strcpy(address.sun_path, impostor->path);
	impostor->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(impostor->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(impostor->listener, 1), 0);
	assert_int_equal(warmbox_connect(impostor->path, &impostor->connection, &error), 0);
	impostor->fd = accept(impostor->listener, NULL, NULL);
	assert_true(impostor->fd >= 0);
}

#define impostor_say(impostor, literal) \
	assert_int_equal(write((impostor)->fd, literal, sizeof(literal) - 1), sizeof(literal) - 1)

static void impostor_close(struct impostor *impostor)
{
	warmbox_disconnect(impostor->connection);
	base_fd_close(impostor->fd);
	close(impostor->listener);
	unlink(impostor->path);
}

static void test_silence(void **state)
{
	struct impostor impostor;
	struct warmbox_error error;

	impostor_open(&impostor);
	warmbox_set_timeout(impostor.connection, 20);
	assert_int_equal(warmbox_call(impostor.connection, "health", NULL, 0, NULL, &error),
			 -ETIMEDOUT);
	assert_int_equal(error.code, WARMBOX_TIMEOUT);
	/* A late answer must not be taken for the next one's. */
	assert_int_equal(warmbox_call(impostor.connection, "health", NULL, 0, NULL, &error),
			 -ENOTCONN);
	assert_int_equal(error.code, WARMBOX_DISCONNECTED);
	impostor_close(&impostor);
}

static void test_hang_up(void **state)
{
	struct impostor impostor;
	struct warmbox_error error;

	impostor_open(&impostor);
	impostor.fd = base_fd_close(impostor.fd);
	assert_true(warmbox_call(impostor.connection, "health", NULL, 0, NULL, &error) < 0);
	assert_int_equal(error.code, WARMBOX_DISCONNECTED);
	impostor_close(&impostor);

	/* The last words before it are read, although nothing can be sent any more. */
	impostor_open(&impostor);
	impostor_say(&impostor, "\x94\x01\x00\x82\xa4"
				"code\xa9"
				"exhausted\xa7message\xa4"
				"full\xc0");
	impostor.fd = base_fd_close(impostor.fd);
	assert_int_equal(warmbox_call(impostor.connection, "health", NULL, 0, NULL, &error),
			 -EBUSY);
	assert_int_equal(error.code, WARMBOX_EXHAUSTED);
	assert_string_equal(error.text, "full");
	impostor_close(&impostor);
}

static void test_nonsense(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
	} cases[] = {
#define CASE(bytes) { bytes, sizeof(bytes) - 1 }
		CASE("\xc1"),
		CASE("\xdd\xff\xff\xff\xff"),
		CASE("\x94\x00\x01\xa1x\x91\x80"),	   /* a request */
		CASE("\x94\x01\x07\xc0\xc0"),		   /* an answer to another request */
		CASE("\x94\x01\x00\xc0\xc0"),		   /* id 0, but no error */
		CASE("\x93\x02\xa1x\x91\x80"),		   /* a notification */
		CASE("\x94\x01\x01\xc0\x81\xa5lease\x01"), /* a lease that is none */
		CASE("\x94\x01\x01\xc0\x80"),
		CASE("\x94\x01\x01\xc0\xc0"),
#undef CASE
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct warmbox_acquire_params params = { .template_name = "python" };
		struct impostor impostor;
		struct warmbox_lease lease;
		struct warmbox_error error;

		impostor_open(&impostor);
		assert_int_equal(write(impostor.fd, cases[i].bytes, cases[i].size), cases[i].size);
		assert_true(warmbox_acquire(impostor.connection, &params, &lease, NULL, &error) <
			    0);
		assert_int_equal(error.code, WARMBOX_PROTOCOL);
		impostor_close(&impostor);
	}
}

/* Text that could steer a terminal is made harmless; an unknown code is a defect of the peer. */
static void test_error_text(void **state)
{
	struct impostor impostor;
	struct warmbox_error error;

	impostor_open(&impostor);
	impostor_say(&impostor, "\x94\x01\x01\x82\xa4"
				"code\xa3odd\xa7message\xa5\x1b[2Jx\xc0");
	assert_int_equal(warmbox_call(impostor.connection, "health", NULL, 0, NULL, &error), -EIO);
	assert_int_equal(error.code, WARMBOX_INTERNAL);
	assert_string_equal(error.text, "?[2Jx");
	impostor_close(&impostor);
}

int main(void)
{
#define SERVED(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		SERVED(test_lease),
		SERVED(test_call),
		cmocka_unit_test(test_nobody_there),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_hang_up),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_error_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
