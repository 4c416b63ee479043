/* SPDX-License-Identifier: Apache-2.0 */

/*
 * getrandom(2) until there is enough. It waits for the kernel's generator only while that has never
 * been seeded, early in a boot. No state; any thread.
 */

#include "base/random.h"

#include <errno.h>
#include <sys/random.h>

int base_random(void *buffer, size_t size)
{
	uint8_t *p = buffer;

	while (size > 0) {
		ssize_t n = getrandom(p, size, 0);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

void base_hex(const uint8_t *bytes, size_t size, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < size; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}
