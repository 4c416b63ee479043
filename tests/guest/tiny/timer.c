/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Arms the TSC-deadline timer `parameter` million ticks ahead, halts, and says "fired"; then
 * for ever again with a short period, so that a fired timer can be told from a stuck one twice.
 * Ends with 0 after the second.
 */

#include "tests/guest/tiny/guest.h"

#define VECTOR_TIMER 0x42
#define SHORT_TICKS  UINT64_C(5000000)
#define MILLION	     UINT64_C(1000000)

uint32_t guest_main(void)
{
	uint64_t ticks = mailbox->parameter ? mailbox->parameter * MILLION : SHORT_TICKS;

	interrupts_init();
	wrmsr(MSR_X2APIC_LVTT, LVTT_DEADLINE | VECTOR_TIMER);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + ticks);
	print("armed\n");
	halt_until(VECTOR_TIMER, 0);
	print("fired\n");
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + SHORT_TICKS);
	halt_until(VECTOR_TIMER, 1);
	print("again\n");
	return 0;
}
