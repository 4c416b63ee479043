/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The guest of identity.c with something to do that wants memory: touch.h says what. Few
 * instructions for each page, so that what takes its time is how the page gets there. A message
 * that is not a struct touch is only sent back.
 */

#include "tests/guest/tiny/touch.h"

#include "tests/guest/tiny/guest.h"

void agent_work(uint8_t *payload, uint32_t length)
{
	struct touch *touch = (struct touch *)(void *)payload;
	uint32_t index = 0, wrong = 0;

	if (length != sizeof(*touch)) {
		return;
	}
	for (uint32_t i = 0; i < touch->count; i++) {
		uint64_t page = touch->first_page + index;
		volatile uint64_t *words = (volatile uint64_t *)(page * TOUCH_PAGE_BYTES);

		wrong += words[0] != TOUCH_WORD(page);
		if (i % 4 == 0) {
			words[1] = page;
		}
		index += touch->stride;
		if (index >= touch->n_pages) {
			index -= touch->n_pages;
		}
	}
	touch->touched = touch->count;
	touch->wrong = wrong;
}
