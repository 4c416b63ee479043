/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the guest "touch" is asked, and what it answers: once it has taken its identity, a message
 * that is a struct touch has it read the pages it names, compare the first word of each with
 * TOUCH_WORD() and write to every fourth. The message comes back with the outcome filled in.
 */

#include <stdint.h>

#define TOUCH_PAGE_BYTES 4096u
/* The first word of page n of guest memory. Never 0 above page 0. */
#define TOUCH_WORD(n) ((uint64_t)(n)*UINT64_C(0x9e3779b97f4a7c15))

/* Visits `count` pages of the n_pages from first_page on: first_page itself, then each `stride`
 * pages further, around the end. Multiples of 4 in size and place, for it lies in a packet. */
struct touch {
	uint32_t first_page, n_pages, stride, count;
	/* The answer. */
	uint32_t touched, wrong;
};
_Static_assert(sizeof(struct touch) == 24, "both ends agree");
