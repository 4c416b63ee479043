/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Deadlines by the thousand: adding, removing and finding the next cost the same however many there
 * are. A hierarchical timing wheel of milliseconds that knows no clock; every call is told the
 * time, which never goes back.
 *
 * Entries are embedded in their owners. An entry is due from its deadline on, rounded up to a
 * millisecond: never before.
 */

#include "base/list.h"

#define POOL_WHEEL_SLOT_BITS 6
#define POOL_WHEEL_SLOTS     (1 << POOL_WHEEL_SLOT_BITS)
/* A count of nanoseconds has at most 45 bits of milliseconds. */
#define POOL_WHEEL_LEVELS 8

struct pool_wheel_entry {
	struct base_link link;
	uint64_t tick;
	unsigned place; /* level × slots + slot, or that it is due */
};

struct pool_wheel {
	uint64_t tick; /* all before has been looked at */
	uint64_t occupied[POOL_WHEEL_LEVELS];
	struct base_link slots[POOL_WHEEL_LEVELS * POOL_WHEEL_SLOTS];
	struct base_link due;
};

void pool_wheel_init(struct pool_wheel *wheel, uint64_t now_ns);
/* UINT64_MAX, like any other time, may be given, and is never reached. */
void pool_wheel_add(struct pool_wheel *wheel, struct pool_wheel_entry *entry, uint64_t at_ns);
/* Only one that is in the wheel. */
void pool_wheel_remove(struct pool_wheel *wheel, struct pool_wheel_entry *entry);
/* Takes one that is due out of the wheel, or returns NULL. */
struct pool_wheel_entry *pool_wheel_take_due(struct pool_wheel *wheel, uint64_t now_ns);
/* When to ask again: no later than the first deadline, and a few times for nothing before a distant
 * one. UINT64_MAX: the wheel is empty. */
uint64_t pool_wheel_next_ns(const struct pool_wheel *wheel);
