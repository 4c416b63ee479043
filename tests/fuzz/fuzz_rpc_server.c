/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The daemon's RPC server between hostile clients and a pool that has nothing behind it
 * (tests/unit/rpc/fake_pool.h). An input is a list of operations: requests of every method with any
 * parameters, any bytes in any pieces, clients that do not read or vanish, and answers of the pool,
 * early, late or never.
 *
 * The clients are an administrator twice, a tenant that has a section and little in it, and a user
 * that no section names. Connections are socket pairs, given to the server as accept() would. The
 * server itself lasts as long as the process: it is a socket and counters. What it does on libuv's
 * thread pool is done on the loop's thread, one turn later.
 */

#include "base/fd.h"
#include "rpc/server.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/rpc/fake_pool.h"

#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS	  4
#define WORKS_MAX 512
#define TURNS_MAX 1000

static const char *const methods[] = {
	"acquire",  "release",	"get",	 "list",   "template.list", "template.inspect",
	"pool.get", "pool.set", "stats", "health", "renew",	    "nothing",
};

static const uid_t tenant_uids[] = { 1001 };
static const char *const tenant_templates[] = { "python" };
static const struct pool_tenant_config tenants[] = {
	{
		.name = "one",
		.uids = tenant_uids,
		.n_uids = ARRAY_SIZE(tenant_uids),
		.templates = tenant_templates,
		.n_templates = ARRAY_SIZE(tenant_templates),
		.quotas = { 2, POOL_QUOTA_UNLIMITED, POOL_QUOTA_UNLIMITED, 2 },
	},
};

static const struct pool_peer peers[CLIENTS] = {
	{ .pid = 1, .uid = 0 },
	{ .pid = 1, .uid = 0 },
	{ .pid = 2, .uid = 1001 },
	{ .pid = 3, .uid = 1000, .gid = 1000 },
};

struct world {
	uv_loop_t loop;
	struct pool *pool;
	struct rpc_server *server;
	int clients[CLIENTS]; /* -1: none */
	uint32_t id;
};

/* --- works, in place of the thread pool --- */

static struct {
	uv_work_t *work[WORKS_MAX];
	uv_after_work_cb done[WORKS_MAX];
	unsigned n;
} works;

int uv_queue_work(uv_loop_t *loop, uv_work_t *work, uv_work_cb fn, uv_after_work_cb done)
{
	if (works.n == WORKS_MAX) {
		return UV_ENOMEM;
	}
	fn(work);
	works.work[works.n] = work;
	works.done[works.n++] = done;
	return 0;
}

static bool finish_works(void)
{
	unsigned n = works.n;

	for (unsigned i = 0; i < n; i++) {
		works.done[i](works.work[i], 0);
	}
	memmove(works.work, works.work + n, (works.n - n) * sizeof(works.work[0]));
	memmove(works.done, works.done + n, (works.n - n) * sizeof(works.done[0]));
	works.n -= n;
	return n > 0;
}

/* --- the server --- */

static void settle(struct world *world)
{
	/* Two turns without a work: what one turn closes, the next reports. */
	for (unsigned quiet = 0, turn = 0; quiet < 2; turn++) {
		FUZZ_CHECK(turn < TURNS_MAX);
		uv_run(&world->loop, UV_RUN_NOWAIT);
		quiet = finish_works() ? 0 : quiet + 1;
	}
}

static void make_server(struct world *world)
{
	struct rpc_server_config config = { .group = RPC_GROUP_UNCHANGED,
					    .acquire_timeout_ms = 10000 };
	char directory[] = "/tmp/warmbox-fuzz-XXXXXX";
	char path[64], lock[72];

	FUZZ_CHECK(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	config.socket_path = path;
	FUZZ_CHECK(uv_loop_init(&world->loop) == 0);
	FUZZ_CHECK(rpc_server_new(&world->loop, &config, &world->server, NULL) == 0);
	FUZZ_CHECK(rpc_server_start(world->server, world->pool, NULL, NULL) == 0);
	/* Nobody connects there, and however the fuzzer ends, nothing is left. */
	unlink(path);
	unlink(lock);
	rmdir(directory);
}

static void begin(struct world *world)
{
	if (!world->server) {
		world->pool = fake_pool_new(tenants, ARRAY_SIZE(tenants));
		make_server(world);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		world->clients[i] = -1;
	}
	world->id = 0;
}

static void end(struct world *world)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		base_fd_close(world->clients[i]);
	}
	settle(world);
	FUZZ_CHECK(world->server->n_connections == 0 && world->server->n_works == 0);
	FUZZ_CHECK(world->pool->n_waiters == 0 && !world->pool->account);
	fake_pool_reset(world->pool);
}

/* --- clients --- */

static void client_connect(struct world *world, unsigned client)
{
	struct pool_tenant *tenant;
	int pair[2];
	gid_t gid;

	base_fd_close(world->clients[client]);
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	world->clients[client] = pair[1];
	tenant = pool_tenants_find(&world->pool->tenants, &peers[client], &gid);
	FUZZ_CHECK(tenant);
	FUZZ_CHECK(rpc_connection_new(world->server, pair[0], tenant, peers[client].uid, gid) == 0);
}

static void client_send(struct world *world, unsigned client, const void *data, size_t size)
{
	if (world->clients[client] < 0) {
		client_connect(world, client);
	}
	(void)!send(world->clients[client], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A request with a method that exists, and the next bytes of the input as its parameters. */
static void client_request(struct world *world, struct fuzz_input *input, unsigned client)
{
	uint8_t method = fuzz_u8(input);
	struct rpc_encoder encoder;
	const uint8_t *params;
	size_t size;

	params = fuzz_bytes(input, UINT8_MAX, &size);
	rpc_encoder_init(&encoder);
	rpc_encode_request(&encoder, method & 0x80 ? world->id : ++world->id,
			   methods[method % ARRAY_SIZE(methods)]);
	rpc_encode_raw(&encoder, params, size);
	FUZZ_CHECK(rpc_encoder_result(&encoder) == 0);
	client_send(world, client, encoder.buffer.data, encoder.buffer.size);
	rpc_encoder_deinit(&encoder);
}

/* What the server sends is msgpack-RPC, whatever it was sent. Nothing is kept for the next time. */
static void client_read(struct world *world, unsigned client)
{
	struct rpc_decoder decoder = { 0 };
	struct rpc_message message;
	msgpack_zone zone;
	ssize_t n;

	FUZZ_CHECK(msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE));
	do {
		size_t room, n_fds = 0;
		uint8_t *space = rpc_decoder_space(&decoder, &room);
		int fd = -1, r;

		FUZZ_CHECK(space);
		n = base_fd_receive(world->clients[client], space, room, &fd, 1, &n_fds,
				    MSG_DONTWAIT);
		base_fd_close(fd);
		rpc_decoder_commit(&decoder, n > 0 ? (size_t)n : 0);
		while ((r = rpc_decoder_next(&decoder, &zone, &message)) > 0) {
			FUZZ_CHECK(message.type == RPC_RESPONSE);
		}
		FUZZ_CHECK(r == 0);
	} while (n > 0);
	rpc_decoder_deinit(&decoder);
	msgpack_zone_destroy(&zone);
}

/* --- the pool --- */

static void pool_act(struct pool *pool, uint8_t how)
{
	switch (how % 4) {
	case 0:
		pool->parked = how >> 2 & 3;
		break;
	case 1:
		if (!base_list_is_empty(&pool->waiters)) {
			fake_pool_answer(pool, (enum pool_status)((how >> 2) % (POOL_INVALID + 1)));
		}
		break;
	case 2:
		if (pool->account) {
			fake_pool_measured(pool);
		}
		break;
	default:
		pool->below_min = how & 4;
		pool->trouble = how & 8 ? "as the input wants it" : NULL;
		break;
	}
}

static void run_op(struct world *world, struct fuzz_input *input)
{
	uint8_t op = fuzz_u8(input);
	unsigned client = op >> 6;
	const uint8_t *bytes;
	size_t size;

	switch (op % 8) {
	case 0:
	case 1:
	case 2:
		client_request(world, input, client);
		break;
	case 3:
		bytes = fuzz_bytes(input, UINT8_MAX, &size);
		client_send(world, client, bytes, size);
		break;
	case 4:
		if (world->clients[client] >= 0) {
			client_read(world, client);
		}
		break;
	case 5:
		world->clients[client] = base_fd_close(world->clients[client]);
		break;
	case 6:
		pool_act(world->pool, fuzz_u8(input));
		break;
	default:
		break;
	}
	/* Otherwise the next operation is seen together with this one. */
	if (!(op & 8)) {
		settle(world);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world;
	struct fuzz_input input = { data, size };

	begin(&world);
	while (input.left > 0) {
		run_op(&world, &input);
	}
	end(&world);
	return 0;
}
