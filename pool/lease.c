/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The table of leases: found by id in constant time, listed in order of acquisition or end.
 *
 * Nothing here fails but copying labels. Runs on the loop's thread.
 */

#include "pool/lease.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

const char *pool_cause_name(enum pool_cause cause)
{
	switch (cause) {
	case POOL_CAUSE_NONE:
		return NULL;
	case POOL_CAUSE_RELEASED:
		return "released";
	case POOL_CAUSE_EXPIRED:
		return "expired";
	case POOL_CAUSE_CLIENT_GONE:
		return "client_gone";
	case POOL_CAUSE_VMM_DIED:
		return "vmm_died";
	case POOL_CAUSE_GUEST_EXITED:
		return "guest_exited";
	case POOL_CAUSE_SHUTDOWN:
		return "shutdown";
	case POOL_CAUSE_IMAGE_FAILED:
		return "image_failed";
	case POOL_CAUSE_FORBIDDEN:
		return "forbidden";
	case POOL_CAUSE_LIMIT:
		return "limit";
	case POOL_CAUSE_LOST:
		return "lost";
	}
	return NULL;
}

void pool_lease_table_init(struct pool_lease_table *table)
{
	memset(table, 0, sizeof(*table));
	base_list_init(&table->active);
	base_list_init(&table->ended);
}

/* Ids are random, so a few digits are hash enough. id need not be one that was ever given out. */
static struct pool_lease_entry **bucket_of(struct pool_lease_table *table, const char *id)
{
	unsigned hash = 0;

	for (unsigned i = 0; i < 8 && id[i]; i++) {
		hash = hash * 31 + (unsigned char)id[i];
	}
	return &table->buckets[hash % POOL_LEASE_BUCKETS];
}

static void bucket_remove(struct pool_lease_table *table, struct pool_lease_entry *entry)
{
	struct pool_lease_entry **p = bucket_of(table, entry->id);

	while (*p != entry) {
		p = &(*p)->bucket_next;
	}
	*p = entry->bucket_next;
}

static void forget_oldest(struct pool_lease_table *table)
{
	struct pool_lease_entry *entry =
		CONTAINER_OF(table->ended.next, struct pool_lease_entry, link);

	base_list_remove(&entry->link);
	bucket_remove(table, entry);
	pool_lease_entry_free(entry);
	table->n_ended--;
}

void pool_lease_table_deinit(struct pool_lease_table *table)
{
	assert(base_list_is_empty(&table->active));
	while (table->n_ended > 0) {
		forget_oldest(table);
	}
}

void pool_lease_table_add(struct pool_lease_table *table, struct pool_lease_entry *entry)
{
	struct pool_lease_entry **bucket = bucket_of(table, entry->id);

	entry->bucket_next = *bucket;
	*bucket = entry;
	base_list_append(&table->active, &entry->link);
	entry->tenant->n_leases++;
}

struct pool_lease_entry *pool_lease_table_find(struct pool_lease_table *table, const char *id)
{
	struct pool_lease_entry *entry = *bucket_of(table, id);

	while (entry && strcmp(entry->id, id) != 0) {
		entry = entry->bucket_next;
	}
	return entry;
}

void pool_lease_table_end(struct pool_lease_table *table, struct pool_lease_entry *entry,
			  enum pool_cause cause)
{
	assert(entry->cause == POOL_CAUSE_NONE && cause != POOL_CAUSE_NONE);
	entry->cause = cause;
	entry->ended_realtime_ns = base_clock_realtime_ns();
	entry->sandbox = NULL;
	entry->tenant->n_leases--;
	base_list_remove(&entry->link);
	base_list_append(&table->ended, &entry->link);
	if (++table->n_ended > POOL_ENDED_LEASES_MAX) {
		forget_oldest(table);
	}
}

void pool_lease_entry_set_ttl(struct pool_lease_entry *entry, uint64_t ttl_ms)
{
	entry->ttl_ms = ttl_ms;
	entry->expires_realtime_ns =
		ttl_ms > 0 ? base_clock_realtime_ns() + ttl_ms * NSEC_PER_MSEC : 0;
}

void pool_lease_entry_free(struct pool_lease_entry *entry)
{
	if (entry) {
		pool_tenant_unref(entry->tenant);
		free(entry->labels);
		free(entry);
	}
}

void pool_lease_entry_show(const struct pool_lease_entry *entry, struct pool_lease *ret_lease)
{
	*ret_lease = (struct pool_lease){
		.id = entry->id,
		.template_name = entry->template_name,
		.snapshot_id = entry->snapshot_id,
		.socket_path = entry->socket_path[0] ? entry->socket_path : NULL,
		.token = entry->token,
		.tenant = entry->tenant,
		.pid = entry->pid,
		.active = entry->cause == POOL_CAUSE_NONE,
		.cause = entry->cause,
		.acquired_realtime_ns = entry->acquired_realtime_ns,
		.ended_realtime_ns = entry->ended_realtime_ns,
		.ttl_ms = entry->ttl_ms,
		.expires_realtime_ns = entry->expires_realtime_ns,
		.labels = entry->labels,
		.n_labels = entry->n_labels,
		.timings = entry->timings,
	};
}

int pool_labels_copy(const struct pool_label *labels, size_t n, struct pool_label **ret_labels)
{
	size_t size = n * sizeof(*labels);

	if (n > POOL_LABELS_MAX) {
		return -E2BIG;
	}
	if (n == 0) {
		*ret_labels = NULL;
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		size_t key = strlen(labels[i].key), value = strlen(labels[i].value);

		if (key > POOL_LABEL_BYTES_MAX || value > POOL_LABEL_BYTES_MAX) {
			return -E2BIG;
		}
		size += key + value + 2;
	}

	struct pool_label *copy = malloc(size);

	if (!copy) {
		return -ENOMEM;
	}

	char *text = (char *)(copy + n);

	for (size_t i = 0; i < n; i++) {
		copy[i].key = text;
		text = stpcpy(text, labels[i].key) + 1;
		copy[i].value = text;
		text = stpcpy(text, labels[i].value) + 1;
	}
	*ret_labels = copy;
	return 0;
}
