/* SPDX-License-Identifier: Apache-2.0 */

/* Two CPUs that spin for ever, interrupts off, and never leave to the VMM. */

#include "tests/guest/tiny/hostile/driver.h"
#include "tests/guest/tiny/second.h"

void second_main(void)
{
	for (;;) {
		__asm__ volatile("cli; pause");
	}
}

uint32_t guest_main(void)
{
	second_start();
	print("going\n");
	second_main();
	return 0;
}
