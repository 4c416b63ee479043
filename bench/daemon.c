/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Talks to the daemon under test. The pool is polled, every few milliseconds, over a connection
 * that is not the measured one's rival: polling stops before anything is measured. One thread.
 */

#include "bench/daemon.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define POLL_US	      3000
#define ENTRY_WAIT_MS 2000

int bench_complain(const char *what, int r, const struct warmbox_error *error)
{
	fprintf(stderr, "%s: %s: %s\n", what, warmbox_code_name(error->code), error->text);
	return r;
}

/* Whoever listens on the socket. */
static pid_t listener_pid(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
		return 0;
	}
	return peer.pid;
}

static void pack_str(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static uint64_t number(const msgpack_object *map, const char *key)
{
	const msgpack_object *value = warmbox_map_get(map, key);

	return value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? value->via.u64 : 0;
}

struct setting {
	const char *key;
	uint64_t value;
};

/* A method about the template's pool. */
static int call(struct bench_daemon *daemon, const char *method, const struct setting *settings,
		size_t n, struct warmbox_value **ret_value, struct warmbox_error *error)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&packer, 1 + n);
	pack_str(&packer, "template");
	pack_str(&packer, daemon->template_name);
	for (size_t i = 0; i < n; i++) {
		pack_str(&packer, settings[i].key);
		msgpack_pack_uint64(&packer, settings[i].value);
	}
	r = warmbox_call(daemon->connection, method, buffer.data, buffer.size, ret_value, error);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

/* The one pool in an answer of pool.get; NULL when there is none. */
static const msgpack_object *only_pool(const struct warmbox_value *value)
{
	const msgpack_object *pools = warmbox_map_get(warmbox_value_object(value), "pools");

	return pools && pools->type == MSGPACK_OBJECT_ARRAY && pools->via.array.size == 1
		       ? &pools->via.array.ptr[0]
		       : NULL;
}

/* A template that nobody has asked for yet has no pool, and nothing to be remembered. */
static void remember_limits(struct bench_daemon *daemon)
{
	struct warmbox_value *value = NULL;
	const msgpack_object *pool;

	if (call(daemon, "pool.get", NULL, 0, &value, NULL) < 0) {
		return;
	}
	pool = only_pool(value);
	if (pool) {
		daemon->had_pool = true;
		daemon->min = number(pool, "min");
		daemon->max = number(pool, "max");
	}
	warmbox_value_free(value);
}

int bench_daemon_open(struct bench_daemon *daemon, const struct bench_options *options)
{
	struct warmbox_error error = { 0 };
	int r;

	*daemon = (struct bench_daemon){
		.socket = options->socket ?: getenv("WARMBOX_SOCKET") ?: WARMBOX_DEFAULT_SOCKET,
		.template_name = options->template_name,
	};
	r = warmbox_connect(daemon->socket, &daemon->connection, &error);
	if (r < 0) {
		return bench_complain("connecting", r, &error);
	}
	daemon->pid = listener_pid(daemon->socket);
	remember_limits(daemon);
	return 0;
}

void bench_daemon_close(struct bench_daemon *daemon)
{
	if (daemon->connection && daemon->had_pool) {
		const struct setting settings[] = { { "min", daemon->min },
						    { "max", daemon->max } };

		call(daemon, "pool.set", settings, ARRAY_SIZE(settings), NULL, NULL);
	}
	warmbox_disconnect(daemon->connection);
	daemon->connection = NULL;
}

static void read_pool(const msgpack_object *map, struct bench_pool *ret_pool)
{
	*ret_pool = (struct bench_pool){
		.target = number(map, "target"),
		.parked = number(map, "parked"),
		.restoring = number(map, "restoring"),
		.leased = number(map, "leased"),
		.waiting = number(map, "waiting"),
		.claimed_total = number(map, "claimed_total"),
		.missed_total = number(map, "missed_total"),
		.restored_total = number(map, "restored_total"),
		.failed_total = number(map, "failed_total"),
		.died_total = number(map, "died_total"),
		.image_bytes = number(map, "image_bytes"),
	};
}

int bench_pool_get(struct bench_daemon *daemon, struct bench_pool *ret_pool)
{
	struct warmbox_error error = { 0 };
	struct warmbox_value *value = NULL;
	const msgpack_object *pool;
	int r = call(daemon, "pool.get", NULL, 0, &value, &error);

	if (r < 0) {
		return bench_complain("pool.get", r, &error);
	}
	pool = only_pool(value);
	if (pool) {
		read_pool(pool, ret_pool);
	} else {
		fprintf(stderr, "pool.get: not one pool\n");
		r = -EBADMSG;
	}
	warmbox_value_free(value);
	return r;
}

int bench_pool_set(struct bench_daemon *daemon, uint64_t target)
{
	const struct setting setting = { "target", target };
	struct warmbox_error error = { 0 };
	int r = call(daemon, "pool.set", &setting, 1, NULL, &error);

	return r < 0 ? bench_complain("pool.set", r, &error) : 0;
}

int bench_pool_wait(struct bench_daemon *daemon, uint64_t parked)
{
	uint64_t end = base_clock_monotonic_ns() + BENCH_WAIT_MS * NSEC_PER_MSEC;
	uint64_t most = 0;
	struct bench_pool pool = { 0 };
	int r;

	for (;;) {
		r = bench_pool_get(daemon, &pool);
		if (r < 0) {
			return r;
		}
		if (pool.parked == parked && pool.restoring == 0) {
			return 0;
		}
		if (pool.restored_total > most) {
			/* As long as something is restored, it goes on. */
			most = pool.restored_total;
			end = base_clock_monotonic_ns() + BENCH_WAIT_MS * NSEC_PER_MSEC;
		}
		if (base_clock_monotonic_ns() > end) {
			fprintf(stderr,
				"%" PRIu64 " sandboxes are parked, not %" PRIu64
				", and nothing happens (%" PRIu64 " restores failed)\n",
				pool.parked, parked, pool.failed_total);
			return -ETIMEDOUT;
		}
		usleep(POLL_US);
	}
}

int bench_pool_fill(struct bench_daemon *daemon, uint64_t target)
{
	int r = bench_pool_set(daemon, target);

	return r < 0 ? r : bench_pool_wait(daemon, target);
}

int bench_claim(struct bench_daemon *daemon, uint64_t timeout_ms, struct warmbox_lease *ret_lease,
		int *ret_stream)
{
	struct warmbox_error error = { 0 };
	const struct warmbox_acquire_params params = {
		.template_name = daemon->template_name,
		.has_timeout = true,
		.timeout_ms = timeout_ms,
		.bind = true,
	};
	int r = warmbox_acquire(daemon->connection, &params, ret_lease, ret_stream, &error);

	if (r < 0 && (error.code == WARMBOX_DEADLINE_EXCEEDED || error.code == WARMBOX_EXHAUSTED)) {
		return 1;
	}
	return r < 0 ? bench_complain("acquire", r, &error) : 0;
}

int bench_release(struct bench_daemon *daemon, const char *lease_id)
{
	struct warmbox_error error = { 0 };
	/* The daemon runs as this user, who is therefore its administrator and needs no token. */
	int r = warmbox_release(daemon->connection, lease_id, NULL, &error);

	return r < 0 ? bench_complain("release", r, &error) : 0;
}

int bench_get_entered(struct bench_daemon *daemon, const char *lease_id,
		      struct warmbox_lease *ret_lease)
{
	uint64_t end = base_clock_monotonic_ns() + ENTRY_WAIT_MS * NSEC_PER_MSEC;
	struct warmbox_error error = { 0 };

	for (;;) {
		int r = warmbox_get(daemon->connection, lease_id, ret_lease, &error);

		if (r < 0) {
			return bench_complain("get", r, &error);
		}
		if (ret_lease->timings.first_entry_ns > 0 || !ret_lease->active ||
		    base_clock_monotonic_ns() > end) {
			return 0;
		}
		usleep(POLL_US);
	}
}
