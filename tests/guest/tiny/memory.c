/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Waits for "go", then fills 256 pages with a value of its own and reads them back again and again:
 * the clones of one image must not see each other. Says "wrote <value>", and after the last round
 * ends with 0, or with 1 for a foreign value.
 */

#include "tests/guest/tiny/guest.h"

#define FIRST_GPA   0x200000
#define PAGES	    256
#define PAGE_BYTES  4096
#define ROUNDS	    20
#define TEMPLATE    UINT64_C(0x7e3a11a7e)
#define PAUSE_TICKS UINT64_C(20000000)

static volatile uint64_t *word(unsigned page, unsigned last)
{
	return (volatile uint64_t *)(uintptr_t)(FIRST_GPA + page * PAGE_BYTES +
						(last ? PAGE_BYTES - 8 : 0));
}

static void fill(uint64_t value)
{
	for (unsigned i = 0; i < PAGES; i++) {
		*word(i, 0) = value + i;
		*word(i, 1) = value ^ i;
	}
}

static int holds(uint64_t value)
{
	for (unsigned i = 0; i < PAGES; i++) {
		if (*word(i, 0) != value + i || *word(i, 1) != (value ^ i)) {
			return 0;
		}
	}
	return 1;
}

uint32_t guest_main(void)
{
	uint64_t value;

	fill(TEMPLATE);
	print("ready\n");
	wait_for_go();
	if (!holds(TEMPLATE)) {
		print("the template's pattern is damaged\n");
		return 1;
	}
	value = rdtsc() * UINT64_C(0x9e3779b97f4a7c15);
	fill(value);
	print("wrote ");
	print_hex(value);
	print("\n");
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t end = rdtsc() + PAUSE_TICKS;

		while (rdtsc() < end) {
		}
		if (!holds(value)) {
			print("foreign value\n");
			return 1;
		}
	}
	return 0;
}
