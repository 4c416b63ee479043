/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The jail's configuration: levels, what the spawner is told of them, and user ids.
 *
 * Nothing here touches a process. One thread.
 */

#include "pool/jail.h"

#include "base/random.h"
#include "pool/spawner.h"

#include <assert.h>
#include <errno.h>

const char *pool_jail_level_name(enum pool_jail_level level)
{
	static const char *const names[] = {
		[POOL_JAIL_NONE] = "none",
		[POOL_JAIL_ROOTLESS] = "rootless",
		[POOL_JAIL_FULL] = "full",
		[POOL_JAIL_AUTO] = "auto",
	};

	return names[level];
}

const char *pool_jail_place(const struct pool_jail_config *config)
{
	static const char *const places[] = {
		[POOL_JAIL_NONE] = "host",
		[POOL_JAIL_ROOTLESS] = "user",
		[POOL_JAIL_FULL] = "empty",
	};

	assert(config->level < POOL_JAIL_AUTO);
	return places[config->level];
}

void pool_jail_fill_start(const struct pool_jail_config *config, uint32_t uid,
			  struct base_message *start)
{
	if (config->level == POOL_JAIL_NONE) {
		return;
	}
	start->arg[3] |= SPAWNER_JAIL_NAMESPACES;
	if (config->network == POOL_JAIL_NETWORK_OWN) {
		start->arg[3] |= SPAWNER_JAIL_NETWORK;
	}
	if (config->level == POOL_JAIL_FULL) {
		start->arg[1] = start->arg[2] = uid;
		start->arg[3] |= SPAWNER_JAIL_IDENTITY;
	}
}

/* --- user ids --- */

int pool_jail_uids_init(struct pool_jail_uids *uids, uint32_t first, uint32_t last)
{
	uint32_t n = last - first + 1, start;

	assert(first <= last && n <= POOL_JAIL_UIDS_MAX);
	*uids = (struct pool_jail_uids){ .first = first, .n = n };
	uids->taken = calloc((n + 7) / 8, 1);
	if (!uids->taken) {
		return -ENOMEM;
	}
	/* VMMs of a manager that was killed may live on for a moment with ids from here. */
	if (base_random(&start, sizeof(start)) == 0) {
		uids->next = start % n;
	}
	return 0;
}

void pool_jail_uids_deinit(struct pool_jail_uids *uids)
{
	free(uids->taken);
	uids->taken = NULL;
}

static bool is_taken(const struct pool_jail_uids *uids, uint32_t i)
{
	return uids->taken[i / 8] & (1u << i % 8);
}

static void set_taken(struct pool_jail_uids *uids, uint32_t i)
{
	uids->taken[i / 8] |= (uint8_t)(1u << i % 8);
	uids->n_taken++;
}

int pool_jail_uids_take(struct pool_jail_uids *uids, uint32_t *ret_uid)
{
	if (uids->n_taken == uids->n) {
		return -EAGAIN;
	}
	while (is_taken(uids, uids->next)) {
		uids->next = (uids->next + 1) % uids->n;
	}
	set_taken(uids, uids->next);
	*ret_uid = uids->first + uids->next;
	uids->next = (uids->next + 1) % uids->n;
	return 0;
}

void pool_jail_uids_give(struct pool_jail_uids *uids, uint32_t uid)
{
	uint32_t i = uid - uids->first;

	assert(i < uids->n && is_taken(uids, i));
	uids->taken[i / 8] &= (uint8_t) ~(1u << i % 8);
	uids->n_taken--;
}

int pool_jail_uids_claim(struct pool_jail_uids *uids, uint32_t uid)
{
	uint32_t i = uid - uids->first;

	if (i >= uids->n) {
		return -ERANGE;
	}
	if (is_taken(uids, i)) {
		return -EEXIST;
	}
	set_taken(uids, i);
	return 0;
}
