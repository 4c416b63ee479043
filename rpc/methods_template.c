/* SPDX-License-Identifier: Apache-2.0 */

/*
 * template.list and template.inspect, which read the store.
 *
 * The whole answer is made on libuv's thread pool, in the work's own encoder; the loop's thread
 * only sends it. A work whose connection has ended finishes for nobody.
 */

#include "rpc/server.h"

#include <errno.h>
#include <string.h>

static struct rpc_request *request_of(uv_work_t *work)
{
	return CONTAINER_OF(work, struct rpc_request, work.work);
}

static enum rpc_code code_of(int r)
{
	return r == -ENOENT ? RPC_NOT_FOUND : RPC_FAILED;
}

static void handle_done(uv_work_t *work, int status)
{
	struct rpc_request *request = request_of(work);
	struct rpc_server *server = work->data;
	struct rpc_work *done = &request->work;

	server->n_works--;
	request->wait = RPC_WAIT_NOTHING;
	if (!request->connection) {
		rpc_encoder_deinit(&done->encoder);
		free(request);
		rpc_server_check_stopped(server);
		return;
	}
	if (done->code != RPC_OK) {
		rpc_encoder_deinit(&done->encoder);
		rpc_request_refuse(request, done->code, done->error.text);
		return;
	}

	struct rpc_encoder *encoder = rpc_request_encoder(request);

	rpc_encode_raw(encoder, done->encoder.buffer.data, done->encoder.buffer.size);
	if (rpc_encoder_result(&done->encoder) < 0) {
		encoder->result = rpc_encoder_result(&done->encoder);
	}
	rpc_encoder_deinit(&done->encoder);
	rpc_request_answer(request, -1);
}

static void queue(struct rpc_request *request, uv_work_cb fn)
{
	struct rpc_server *server = request->connection->server;
	int r;

	request->work.work.data = server;
	request->work.store = server->store;
	rpc_encoder_init(&request->work.encoder);
	r = uv_queue_work(server->loop, &request->work.work, fn, handle_done);
	if (r < 0) {
		rpc_encoder_deinit(&request->work.encoder);
		rpc_request_refuse(request, RPC_INTERNAL, strerrordesc_np(-r));
		return;
	}
	request->wait = RPC_WAIT_WORK;
	server->n_works++;
}

/* --- template.list --- */

/* A template that cannot be opened is listed with the reason. */
static void encode_template(struct rpc_work *work, const char *name)
{
	struct rpc_encoder *encoder = &work->encoder;
	struct base_error error = { 0 };
	struct snapshot *snapshot;
	const struct snapshot_manifest *manifest;

	if (snapshot_open(work->store, name, &snapshot, &error) < 0) {
		rpc_encode_map(encoder, 2);
		rpc_encode_key_str(encoder, "name", name);
		rpc_encode_key_str(encoder, "error", error.text);
		return;
	}
	manifest = snapshot_manifest(snapshot);
	rpc_encode_map(encoder, 7);
	rpc_encode_key_str(encoder, "name", name);
	rpc_encode_key_str(encoder, "id", manifest->id);
	rpc_encode_key_uint(encoder, "created_ns", manifest->created_realtime_ns);
	rpc_encode_key_uint(encoder, "memory_bytes", manifest->memory_bytes);
	rpc_encode_key_uint(encoder, "vcpus", manifest->n_vcpus);
	rpc_encode_key_bool(encoder, "resident", manifest->has_resident);
	rpc_encode_key_uint(encoder, "stored_bytes",
			    manifest->memory_file_bytes + manifest->state_bytes);
	snapshot_free(snapshot);
}

static void work_list(uv_work_t *uv_work)
{
	struct rpc_request *request = request_of(uv_work);
	struct rpc_work *work = &request->work;
	size_t first = 0, n, shown;
	char **names;
	int r = snapshot_store_list(work->store, &names, &n, &work->error);

	if (r < 0) {
		work->code = code_of(r);
		return;
	}
	while (request->name[0] && first < n && strcmp(names[first], request->name) <= 0) {
		first++;
	}
	shown = MIN(n - first, (size_t)RPC_LIST_MAX);
	rpc_encode_map(&work->encoder, 2);
	rpc_encode_key_bool(&work->encoder, "more", first + shown < n);
	rpc_encode_str(&work->encoder, "templates");
	rpc_encode_array(&work->encoder, shown);
	for (size_t i = first; i < first + shown; i++) {
		encode_template(work, names[i]);
	}
	for (size_t i = 0; i < n; i++) {
		free(names[i]);
	}
	free(names);
}

void rpc_method_template_list(struct rpc_request *request, struct rpc_params *params)
{
	const char *after = rpc_params_str(params, "after", SNAPSHOT_NAME_MAX);

	if (rpc_params_refused(request, params)) {
		return;
	}
	strcpy(request->name, after ?: "");
	queue(request, work_list);
}

/* --- template.inspect --- */

static void encode_disks(struct rpc_encoder *encoder, const struct snapshot_manifest *manifest)
{
	rpc_encode_str(encoder, "disks");
	rpc_encode_array(encoder, manifest->n_disks);
	for (uint32_t i = 0; i < manifest->n_disks; i++) {
		rpc_encode_map(encoder, 3);
		rpc_encode_key_str(encoder, "digest", manifest->disks[i].digest);
		rpc_encode_key_uint(encoder, "size_bytes", manifest->disks[i].size_bytes);
		rpc_encode_key_bool(encoder, "read_only", manifest->disks[i].read_only);
	}
}

static void encode_manifest(struct rpc_encoder *encoder, const struct snapshot_manifest *manifest)
{
	rpc_encode_map(encoder, 20);
	rpc_encode_key_uint(encoder, "format", SNAPSHOT_FORMAT_VERSION);
	rpc_encode_key_str(encoder, "id", manifest->id);
	rpc_encode_key_str(encoder, "parent", manifest->parent[0] ? manifest->parent : NULL);
	rpc_encode_key_str(encoder, "template", manifest->template_name);
	rpc_encode_key_uint(encoder, "created_ns", manifest->created_realtime_ns);
	rpc_encode_key_uint(encoder, "host_kind", manifest->host_kind);
	rpc_encode_key_uint(encoder, "host_fingerprint", manifest->host_fingerprint);
	rpc_encode_key_uint(encoder, "memory_bytes", manifest->memory_bytes);
	rpc_encode_key_uint(encoder, "vcpus", manifest->n_vcpus);
	rpc_encode_key_uint(encoder, "guest_cid", manifest->guest_cid);
	rpc_encode_key_str(encoder, "kernel_digest", manifest->kernel_digest);
	rpc_encode_key_str(encoder, "cmdline", manifest->cmdline);
	encode_disks(encoder, manifest);
	rpc_encode_key_bool(encoder, "resident", manifest->has_resident);
	rpc_encode_key_uint(encoder, "state_bytes", manifest->state_bytes);
	rpc_encode_key_uint(encoder, "memory_file_bytes", manifest->memory_file_bytes);
	rpc_encode_key_str(encoder, "chunk_table_digest", manifest->chunk_table_digest);
	rpc_encode_key_uint(encoder, "stored_chunks", manifest->stored_chunks);
	rpc_encode_key_uint(encoder, "zero_chunks", manifest->zero_chunks);
	rpc_encode_key_uint(encoder, "working_set_pages", manifest->ws_pages);
}

static void work_inspect(uv_work_t *uv_work)
{
	struct rpc_request *request = request_of(uv_work);
	struct rpc_work *work = &request->work;
	struct snapshot *snapshot;
	int r = snapshot_open(work->store, request->name, &snapshot, &work->error);

	if (r < 0) {
		work->code = code_of(r);
		return;
	}
	encode_manifest(&work->encoder, snapshot_manifest(snapshot));
	snapshot_free(snapshot);
}

void rpc_method_template_inspect(struct rpc_request *request, struct rpc_params *params)
{
	const char *name = rpc_params_template(params, "name");

	if (rpc_params_refused(request, params)) {
		return;
	}
	strcpy(request->name, name);
	queue(request, work_inspect);
}
