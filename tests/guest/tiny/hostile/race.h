/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Two CPUs at once: the second calls disturb() until the first has seen enough. */

#include "tests/guest/tiny/hostile/driver.h"
#include "tests/guest/tiny/second.h"

static volatile uint32_t race_rounds;
static volatile uint32_t race_is_over, race_has_ended;

static void disturb(uint32_t round);

void second_main(void)
{
	while (!race_is_over) {
		disturb(race_rounds++);
	}
	race_has_ended = 1;
	for (;;) {
		__asm__ volatile("cli; hlt");
	}
}

static inline void race_start(void)
{
	second_start();
	while (race_rounds == 0) {
		__asm__ volatile("pause");
	}
}

/* The other CPU was there all the time, and leaves now. */
static inline void race_end(void)
{
	uint32_t before = race_rounds;

	while (race_rounds == before) {
		__asm__ volatile("pause");
	}
	race_is_over = 1;
	while (!race_has_ended) {
		__asm__ volatile("pause");
	}
}
