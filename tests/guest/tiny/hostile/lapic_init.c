/* SPDX-License-Identifier: Apache-2.0 */

/*
 * CPUs that send INIT to each other and to themselves by their local APICs: the first one starts
 * where firmware would be and there is none.
 */

#include "tests/guest/tiny/hostile/driver.h"
#include "tests/guest/tiny/second.h"

void second_main(void)
{
	for (;;) {
		wrmsr(MSR_X2APIC_ICR, 0x4500u);
	}
}

uint32_t guest_main(void)
{
	print("going\n");
	second_start();
	wait_ticks(TICKS_SHORT);
	wrmsr(MSR_X2APIC_ICR, 0x4500u | 3u << 18); /* all but itself */
	wrmsr(MSR_X2APIC_ICR, 0x4500u);		   /* itself */
	wait_ticks(TICKS_SHORT * 10);
	return 0;
}
