/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Model-specific registers: unknown ones, paravirtual ones with addresses outside of memory, a
 * moved and a disabled local APIC, feature control. What is refused raises #GP; the devices go on.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t unknown[] = { 0x1234,	0x40000001, 0x4b564dff,
					    0xc0011234, 0xffffffff, 0x9c1 };
	/* Clock, steal time, asynchronous faults, end of interrupt
	 * (Documentation/virt/kvm/x86/msr.rst). */
	static const uint32_t paravirtual[] = { 0x11,	    0x12,	0x4b564d00, 0x4b564d01,
						0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d06 };
	static const uint64_t nowhere[] = { 0xd0000001, MEMORY_BYTES | 1, UINT64_MAX,
					    UINT64_C(1) << 51 | 1, MEMORY_BYTES - 3 };

	exceptions_init();
	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		EXPECT(rdmsr_raises(unknown[i]));
		EXPECT(wrmsr_raises(unknown[i], UINT64_MAX));
	}
	for (unsigned i = 0; i < sizeof(paravirtual) / sizeof(paravirtual[0]); i++) {
		for (unsigned n = 0; n < sizeof(nowhere) / sizeof(nowhere[0]); n++) {
			(void)wrmsr_raises(paravirtual[i], nowhere[n]);
			wait_ticks(10000);
		}
		(void)wrmsr_raises(paravirtual[i], 0);
	}
	/* EFER, PAT, debugging, performance counters, microcode, machine checks. */
	EXPECT(wrmsr_raises(0xc0000080, UINT64_MAX));
	(void)wrmsr_raises(0x277, UINT64_MAX);
	(void)wrmsr_raises(0x1d9, UINT64_MAX);
	(void)wrmsr_raises(0x186, UINT64_MAX);
	(void)wrmsr_raises(0x79, UINT64_MAX);
	(void)wrmsr_raises(0x17b, UINT64_MAX);
	(void)wrmsr_raises(0x3a, 5);
	/* On top of the first device, outside of what there is, and off. */
	(void)wrmsr_raises(MSR_APIC_BASE, 0xd0000900);
	expect_works(DISK);
	(void)wrmsr_raises(MSR_APIC_BASE, UINT64_MAX);
	(void)wrmsr_raises(MSR_APIC_BASE, 0xfee00100);
	expect_works(RNG);
	return 0;
}
