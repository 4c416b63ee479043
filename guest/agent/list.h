/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A circular list whose links are embedded in its members. A head is a link of its own. */

#include "base/util.h"

#include <stdbool.h>

struct agent_link {
	struct agent_link *previous;
	struct agent_link *next;
};

static inline void agent_list_init(struct agent_link *head)
{
	head->previous = head;
	head->next = head;
}

static inline bool agent_list_is_empty(const struct agent_link *head)
{
	return head->next == head;
}

static inline void agent_list_append(struct agent_link *head, struct agent_link *link)
{
	link->previous = head->previous;
	link->next = head;
	head->previous->next = link;
	head->previous = link;
}

/* The link is afterwards a list of its own, so that removing twice is harmless. */
static inline void agent_list_remove(struct agent_link *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
	agent_list_init(link);
}

#define AGENT_LIST_ENTRY(link, type, member) CONTAINER_OF(link, type, member)

/* The body may remove the member it is at, and no other. */
#define AGENT_LIST_FOR_EACH(link, head)                                                         \
	for (struct agent_link *link = (head)->next, *link##_next = link->next; link != (head); \
	     link = link##_next, link##_next = link->next)
