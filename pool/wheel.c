/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The timing wheel.
 *
 * Level n has slots of 64^n ms. An entry is on the level of the highest group of six bits in which
 * its tick differs from the wheel's, so all on a level share what is above with the wheel, and all
 * on a lower level come first: the next is in the first slot of the lowest level that has any. When
 * the wheel reaches a slot its entries move down, each at most once a level, and from below they
 * are due.
 *
 * Nothing fails, nothing is allocated.
 */

#include "pool/wheel.h"

#define DUE (POOL_WHEEL_LEVELS * POOL_WHEEL_SLOTS)

void pool_wheel_init(struct pool_wheel *wheel, uint64_t now_ns)
{
	*wheel = (struct pool_wheel){ .tick = now_ns / NSEC_PER_MSEC };
	for (unsigned i = 0; i < ARRAY_SIZE(wheel->slots); i++) {
		base_list_init(&wheel->slots[i]);
	}
	base_list_init(&wheel->due);
}

static void place(struct pool_wheel *wheel, struct pool_wheel_entry *entry)
{
	unsigned level, slot;

	if (entry->tick <= wheel->tick) {
		entry->place = DUE;
		base_list_append(&wheel->due, &entry->link);
		return;
	}
	level = (63 - (unsigned)__builtin_clzll(entry->tick ^ wheel->tick)) / POOL_WHEEL_SLOT_BITS;
	slot = (entry->tick >> (level * POOL_WHEEL_SLOT_BITS)) % POOL_WHEEL_SLOTS;
	entry->place = level * POOL_WHEEL_SLOTS + slot;
	wheel->occupied[level] |= UINT64_C(1) << slot;
	base_list_append(&wheel->slots[entry->place], &entry->link);
}

void pool_wheel_add(struct pool_wheel *wheel, struct pool_wheel_entry *entry, uint64_t at_ns)
{
	entry->tick = at_ns / NSEC_PER_MSEC + (at_ns % NSEC_PER_MSEC > 0);
	place(wheel, entry);
}

void pool_wheel_remove(struct pool_wheel *wheel, struct pool_wheel_entry *entry)
{
	unsigned level = entry->place / POOL_WHEEL_SLOTS, slot = entry->place % POOL_WHEEL_SLOTS;

	base_list_remove(&entry->link);
	if (entry->place != DUE && base_list_is_empty(&wheel->slots[entry->place])) {
		wheel->occupied[level] &= ~(UINT64_C(1) << slot);
	}
}

/* Where the first occupied slot begins; UINT64_MAX: there is none. */
static uint64_t first_slot(const struct pool_wheel *wheel, unsigned *ret_place)
{
	for (unsigned level = 0; level < POOL_WHEEL_LEVELS; level++) {
		unsigned shift = level * POOL_WHEEL_SLOT_BITS;
		uint64_t above = wheel->tick >> shift >> POOL_WHEEL_SLOT_BITS;
		unsigned slot;

		if (wheel->occupied[level] != 0) {
			slot = (unsigned)__builtin_ctzll(wheel->occupied[level]);
			*ret_place = level * POOL_WHEEL_SLOTS + slot;
			return (above << POOL_WHEEL_SLOT_BITS | slot) << shift;
		}
	}
	return UINT64_MAX;
}

static void advance(struct pool_wheel *wheel, uint64_t tick)
{
	unsigned from;
	uint64_t begin;

	while ((begin = first_slot(wheel, &from)) <= tick) {
		struct base_link *slot = &wheel->slots[from];

		wheel->tick = begin;
		wheel->occupied[from / POOL_WHEEL_SLOTS] &=
			~(UINT64_C(1) << (from % POOL_WHEEL_SLOTS));
		BASE_LIST_FOR_EACH(link, slot)
		{
			base_list_remove(link);
			place(wheel, CONTAINER_OF(link, struct pool_wheel_entry, link));
		}
	}
	wheel->tick = MAX(wheel->tick, tick);
}

struct pool_wheel_entry *pool_wheel_take_due(struct pool_wheel *wheel, uint64_t now_ns)
{
	struct pool_wheel_entry *entry;

	advance(wheel, now_ns / NSEC_PER_MSEC);
	if (base_list_is_empty(&wheel->due)) {
		return NULL;
	}
	entry = CONTAINER_OF(wheel->due.next, struct pool_wheel_entry, link);
	base_list_remove(&entry->link);
	return entry;
}

uint64_t pool_wheel_next_ns(const struct pool_wheel *wheel)
{
	unsigned from;
	uint64_t tick = base_list_is_empty(&wheel->due) ? first_slot(wheel, &from) : wheel->tick;

	return tick > UINT64_MAX / NSEC_PER_MSEC ? UINT64_MAX : tick * NSEC_PER_MSEC;
}
