/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Intrusive doubly linked rings. The head is a link that no object contains; an object's link that
 * is in no ring points to itself, so that removing it twice does no harm.
 */

#include "base/util.h"

#include <stdbool.h>

struct pool_link {
	struct pool_link *previous, *next;
};

static inline void pool_link_init(struct pool_link *link)
{
	link->previous = link->next = link;
}

static inline bool pool_link_is_empty(const struct pool_link *head)
{
	return head->next == head;
}

static inline void pool_link_append(struct pool_link *head, struct pool_link *link)
{
	link->previous = head->previous;
	link->next = head;
	head->previous->next = link;
	head->previous = link;
}

static inline void pool_link_remove(struct pool_link *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
	pool_link_init(link);
}
