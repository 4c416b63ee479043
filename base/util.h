/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Cleanup attributes and small arithmetic.
 *
 * _cleanup_(f) runs f(&variable) when the variable leaves its scope. A function that gives a value
 * away takes it out first: TAKE_PTR() and TAKE_FD() return the value and leave NULL or -1 behind.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define _cleanup_(f)   __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_       __attribute__((unused))

/* Defines `<type>p`-style cleanup helpers: BASE_DEFINE_CLEANUP(struct foo *, foo_free) makes
 * foo_freep(). */
#define BASE_DEFINE_CLEANUP(type, func)     \
	static inline void func##p(type *p) \
	{                                   \
		if (*p) {                   \
			func(*p);           \
		}                           \
	}

static inline void base_freep(void *p)
{
	free(*(void **)p);
}
#define _cleanup_free_ _cleanup_(base_freep)

#define TAKE_PTR(p)                                 \
	({                                          \
		typeof(p) *take_ptr_ = &(p);        \
		typeof(p) take_value_ = *take_ptr_; \
		*take_ptr_ = NULL;                  \
		take_value_;                        \
	})

#define TAKE_FD(fd)                          \
	({                                   \
		int *take_fd_ = &(fd);       \
		int take_value_ = *take_fd_; \
		*take_fd_ = -1;              \
		take_value_;                 \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define MIN(a, b)                                  \
	({                                         \
		typeof(a) min_a_ = (a);            \
		typeof(b) min_b_ = (b);            \
		min_a_ < min_b_ ? min_a_ : min_b_; \
	})

#define MAX(a, b)                                  \
	({                                         \
		typeof(a) max_a_ = (a);            \
		typeof(b) max_b_ = (b);            \
		max_a_ > max_b_ ? max_a_ : max_b_; \
	})

#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* align must be a power of two; the caller makes sure that the sum does not overflow. */
static inline uint64_t base_align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

#define NSEC_PER_USEC UINT64_C(1000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_SEC  UINT64_C(1000000000)
