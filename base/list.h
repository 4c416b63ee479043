/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Circular lists whose links are embedded in their members. The head is a link that no member
 * contains; a member's link that is in no list points to itself, so that removing it twice does no
 * harm.
 */

#include "base/util.h"

#include <stdbool.h>

struct base_link {
	struct base_link *previous, *next;
};

static inline void base_list_init(struct base_link *head)
{
	head->previous = head->next = head;
}

static inline bool base_list_is_empty(const struct base_link *head)
{
	return head->next == head;
}

static inline void base_list_append(struct base_link *head, struct base_link *link)
{
	link->previous = head->previous;
	link->next = head;
	head->previous->next = link;
	head->previous = link;
}

static inline void base_list_remove(struct base_link *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
	base_list_init(link);
}

/* The members of `from`, in their order, come after those of `to`. */
static inline void base_list_append_all(struct base_link *to, struct base_link *from)
{
	if (!base_list_is_empty(from)) {
		from->next->previous = to->previous;
		from->previous->next = to;
		to->previous->next = from->next;
		to->previous = from->previous;
		base_list_init(from);
	}
}

/* All members of `from` become those of `to`, which is initialized by that. */
static inline void base_list_move(struct base_link *from, struct base_link *to)
{
	base_list_init(to);
	base_list_append_all(to, from);
}

/* The body may remove the member it is at, and no other. */
#define BASE_LIST_FOR_EACH(link, head)                                                         \
	for (struct base_link *link = (head)->next, *link##_next = link->next; link != (head); \
	     link = link##_next, link##_next = link->next)
