/* SPDX-License-Identifier: Apache-2.0 */

/* Two CPUs that wait for ever, with nothing that could wake them. */

#include "tests/guest/tiny/hostile/driver.h"
#include "tests/guest/tiny/second.h"

void second_main(void)
{
	for (;;) {
		__asm__ volatile("cli; hlt");
	}
}

uint32_t guest_main(void)
{
	second_start();
	print("going\n");
	second_main();
	return 0;
}
