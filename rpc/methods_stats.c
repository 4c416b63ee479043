/* SPDX-License-Identifier: Apache-2.0 */

/*
 * stats: what the server and the pool count, and on request what sandboxes cost in memory.
 *
 * Counters are answered at once. Memory is measured by the pool off the loop's thread; the whole
 * answer, counters too, is then made when that is there.
 */

#include "rpc/server.h"

static void encode_histogram(struct rpc_encoder *encoder, const char *key,
			     const struct base_histogram *histogram)
{
	rpc_encode_str(encoder, key);
	rpc_encode_map(encoder, 5);
	rpc_encode_key_uint(encoder, "count", histogram->count);
	rpc_encode_key_uint(encoder, "p50_ns", base_histogram_percentile(histogram, 500000));
	rpc_encode_key_uint(encoder, "p90_ns", base_histogram_percentile(histogram, 900000));
	rpc_encode_key_uint(encoder, "p99_ns", base_histogram_percentile(histogram, 990000));
	rpc_encode_key_uint(encoder, "max_ns", histogram->max);
}

/* Six keys of the answer. */
static void encode_counters(struct rpc_server *server, struct rpc_encoder *encoder)
{
	const struct rpc_counters *counters = &server->counters;

	rpc_encode_key_uint(encoder, "uptime_ms", rpc_server_uptime_ms(server));
	rpc_encode_str(encoder, "requests");
	rpc_encode_map(encoder, RPC_METHODS);
	for (unsigned i = 0; i < RPC_METHODS; i++) {
		rpc_encode_key_uint(encoder, rpc_method_name(i), counters->requests[i]);
	}
	rpc_encode_str(encoder, "errors");
	rpc_encode_map(encoder, RPC_CODES - 1);
	for (unsigned i = RPC_OK + 1; i < RPC_CODES; i++) {
		rpc_encode_key_uint(encoder, rpc_code_name(i), counters->errors[i]);
	}
	rpc_encode_str(encoder, "connections");
	rpc_encode_map(encoder, 3);
	rpc_encode_key_uint(encoder, "open", server->n_connections);
	rpc_encode_key_uint(encoder, "total", counters->connections_total);
	rpc_encode_key_uint(encoder, "refused", counters->connections_refused);
	rpc_encode_str(encoder, "acquire");
	rpc_encode_map(encoder, 2);
	encode_histogram(encoder, "parked", &counters->acquire_parked);
	encode_histogram(encoder, "waited", &counters->acquire_waited);
	rpc_encode_str(encoder, "pools");
	rpc_encode_pools(server, encoder, NULL);
}

/* --- memory --- */

static void encode_memory(struct rpc_encoder *encoder, const char *key,
			  const struct pool_memory *memory, unsigned n)
{
	const uint64_t divisor = MAX(n, 1u);
	const struct {
		const char *key;
		uint64_t value;
	} figures[] = {
		{ "image_shared", memory->image_shared },
		{ "program_shared", memory->program_shared },
		{ "guest_private", memory->guest_private },
		{ "vmm_heap", memory->vmm_heap },
		{ "vmm_data", memory->vmm_data },
		{ "vmm_other", memory->vmm_other },
		{ "page_tables", memory->page_tables },
		{ "kernel_stacks", memory->kernel_stacks },
		{ "own", pool_memory_own(memory) },
		{ "pss", memory->pss },
	};

	rpc_encode_str(encoder, key);
	rpc_encode_map(encoder, ARRAY_SIZE(figures));
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		rpc_encode_key_uint(encoder, figures[i].key, figures[i].value / divisor);
	}
}

static void encode_host(struct rpc_encoder *encoder, const struct pool_host_memory *host)
{
	rpc_encode_str(encoder, "host");
	rpc_encode_map(encoder, 13);
	rpc_encode_key_uint(encoder, "total", host->total);
	rpc_encode_key_uint(encoder, "free", host->free);
	rpc_encode_key_uint(encoder, "available", host->available);
	rpc_encode_key_uint(encoder, "anonymous", host->anonymous);
	rpc_encode_key_uint(encoder, "cache", host->cache);
	rpc_encode_key_uint(encoder, "shmem", host->shmem);
	rpc_encode_key_uint(encoder, "slab", host->slab);
	rpc_encode_key_uint(encoder, "page_tables", host->page_tables);
	rpc_encode_key_uint(encoder, "secondary_page_tables", host->secondary_page_tables);
	rpc_encode_key_uint(encoder, "kernel_stacks", host->kernel_stacks);
	rpc_encode_key_uint(encoder, "vmalloc", host->vmalloc);
	rpc_encode_key_uint(encoder, "percpu", host->percpu);
	rpc_encode_key_uint(encoder, "unaccounted", host->unaccounted);
}

static void encode_template(struct rpc_encoder *encoder,
			    const struct pool_account_template *template)
{
	rpc_encode_map(encoder, 8);
	rpc_encode_key_str(encoder, "template", template->name);
	rpc_encode_key_str(encoder, "snapshot", template->snapshot_id);
	rpc_encode_key_uint(encoder, "parked", template->parked);
	rpc_encode_key_uint(encoder, "leased", template->leased);
	rpc_encode_key_uint(encoder, "measured", template->measured);
	rpc_encode_key_uint(encoder, "image_bytes", template->image_bytes);
	rpc_encode_key_uint(encoder, "image_resident", template->image_resident);
	encode_memory(encoder, "mean", &template->sum, template->measured);
}

static void encode_sandbox(struct rpc_encoder *encoder, const struct pool_account_sandbox *sandbox)
{
	rpc_encode_map(encoder, 4);
	rpc_encode_key_str(encoder, "template", sandbox->template->name);
	rpc_encode_key_str(encoder, "lease", sandbox->lease);
	rpc_encode_key_uint(encoder, "pid", (uint64_t)sandbox->pid);
	encode_memory(encoder, "memory", &sandbox->memory, 1);
}

static void encode_report(struct rpc_encoder *encoder, const struct pool_account_report *report,
			  bool sandboxes)
{
	size_t n_templates = MIN(report->n_templates, (size_t)RPC_LIST_MAX);

	rpc_encode_str(encoder, "memory");
	rpc_encode_map(encoder, sandboxes ? 4 : 3);
	rpc_encode_key_uint(encoder, "elapsed_ns", report->elapsed_ns);
	encode_host(encoder, &report->host);
	rpc_encode_str(encoder, "templates");
	rpc_encode_array(encoder, n_templates);
	for (size_t i = 0; i < n_templates; i++) {
		encode_template(encoder, &report->templates[i]);
	}
	if (!sandboxes) {
		return;
	}
	rpc_encode_str(encoder, "sandboxes");
	rpc_encode_array(encoder, report->n_sandboxes);
	for (size_t i = 0; i < report->n_sandboxes; i++) {
		encode_sandbox(encoder, &report->sandboxes[i]);
	}
}

static void handle_account(struct pool_account *account, enum pool_status status,
			   const struct pool_account_report *report, const char *text)
{
	struct rpc_request *request = account->userdata;
	struct rpc_encoder *encoder;

	request->wait = RPC_WAIT_NOTHING;
	if (status != POOL_OK) {
		rpc_request_refuse_status(request, status, text);
		return;
	}
	encoder = rpc_request_encoder(request);
	rpc_encode_map(encoder, 7);
	encode_counters(request->connection->server, encoder);
	encode_report(encoder, report, request->show_sandboxes);
	rpc_request_answer(request, -1);
}

void rpc_method_stats(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	bool memory = rpc_params_bool(params, "memory");
	bool sandboxes = rpc_params_bool(params, "sandboxes");
	const char *template_name = rpc_params_str(params, "template", SNAPSHOT_NAME_MAX);
	const char *lease = rpc_params_str(params, "lease", POOL_LEASE_ID_LENGTH);
	struct rpc_encoder *encoder;

	if (!memory && (sandboxes || template_name || lease)) {
		rpc_params_refuse(params, "sandboxes, template and lease go with memory");
	}
	if (template_name && lease) {
		rpc_params_refuse(params, "lease: a template or a lease, not both");
	}
	if (rpc_params_refused(request, params)) {
		return;
	}
	if (memory) {
		request->show_sandboxes = sandboxes;
		request->account.userdata = request;
		request->account.fn = handle_account;
		request->wait = RPC_WAIT_ACCOUNT;
		pool_account(server->pool, &request->account, template_name, lease);
		return;
	}
	encoder = rpc_request_encoder(request);
	rpc_encode_map(encoder, 6);
	encode_counters(server, encoder);
	rpc_request_answer(request, -1);
}
