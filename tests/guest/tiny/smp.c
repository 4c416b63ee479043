/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Starts the second CPU by INIT and SIPI. It goes from real mode to long mode on the boot page
 * tables, says "second" and then counts. The first waits until it counts, says "ready", waits for
 * "go", and ends with 0 when the other still counts.
 */

#include "tests/guest/tiny/second.h"

#define PATIENCE_TICKS UINT64_C(20000000000)

volatile uint64_t counter;

void second_main(void)
{
	print("second\n");
	for (;;) {
		counter++;
	}
}

/* 1 when the other CPU counts within the patience. */
static int counts(void)
{
	uint64_t end = rdtsc() + PATIENCE_TICKS;
	uint64_t before = counter;

	while (rdtsc() < end) {
		if (counter != before) {
			return 1;
		}
	}
	return 0;
}

uint32_t guest_main(void)
{
	second_start();
	if (!counts()) {
		return 1;
	}
	print("ready\n");
	wait_for_go();
	if (!counts()) {
		return 2;
	}
	print("both run\n");
	return 0;
}
