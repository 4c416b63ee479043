/* SPDX-License-Identifier: Apache-2.0 */

/* A string of bytes to the exit port, where the first one ends the VM. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint8_t codes[] = { 7, 8, 9, 10 };
	const uint8_t *from = codes;
	uint64_t count = sizeof(codes);

	__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(PORT_EXIT) : "memory");
	return 0;
}
