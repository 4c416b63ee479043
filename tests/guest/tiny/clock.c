/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reads kvmclock, says "ready <ns>", and after "go" says "now <ns>". Ends with 0, or with 1 when
 * the clock ever went back, before, across or after the snapshot.
 */

#include "tests/guest/tiny/guest.h"

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01
#define ENABLE			1
#define READS			200

static struct {
	volatile uint32_t version;
	uint32_t padding;
	volatile uint64_t tsc_timestamp;
	volatile uint64_t system_time;
	volatile uint32_t mul;
	volatile int8_t shift;
	volatile uint8_t flags;
	uint8_t padding2[2];
} page __attribute__((aligned(64)));

static uint64_t now_ns(void)
{
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = page.version;
		delta = rdtsc() - page.tsc_timestamp;
		delta = page.shift >= 0 ? delta << page.shift : delta >> -page.shift;
		ns = page.system_time + (uint64_t)((unsigned __int128)delta * page.mul >> 32);
	} while ((version & 1) || version != page.version);
	return ns;
}

static uint64_t last_ns;

static int advances(void)
{
	for (unsigned i = 0; i < READS; i++) {
		uint64_t ns = now_ns();

		if (ns < last_ns) {
			return 0;
		}
		last_ns = ns;
	}
	return 1;
}

uint32_t guest_main(void)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uint64_t)(uintptr_t)&page | ENABLE);
	if (!advances()) {
		return 1;
	}
	print("ready ");
	print_hex(last_ns);
	print("\n");
	while (!mailbox->go) {
		if (!advances()) {
			return 1;
		}
	}
	if (!advances()) {
		return 1;
	}
	print("now ");
	print_hex(last_ns);
	print("\n");
	return 0;
}
