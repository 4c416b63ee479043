/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Clocks in nanoseconds. */

#include "base/util.h"

#include <time.h>

static inline uint64_t base_clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static inline uint64_t base_clock_monotonic_ns(void)
{
	return base_clock_ns(CLOCK_MONOTONIC);
}

static inline uint64_t base_clock_realtime_ns(void)
{
	return base_clock_ns(CLOCK_REALTIME);
}
