/* SPDX-License-Identifier: Apache-2.0 */

/* A CPU that shoots NMIs and start-up messages at itself and at CPUs that do not exist. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	interrupts_init();
	exceptions_init();
	for (uint64_t i = 0; i < 200; i++) {
		wrmsr(MSR_X2APIC_ICR, 0x4400u);
		wrmsr(MSR_X2APIC_ICR, (i + 1) << 32 | 0x4400u);
		wrmsr(MSR_X2APIC_ICR, (i + 1) << 32 | 0x4600u | 0x10);
		wrmsr(MSR_X2APIC_ICR, (i + 1) << 32 | 0x4500u);
	}
	EXPECT(nmi_count > 0);
	expect_works(RNG);
	return 0;
}
