/* SPDX-License-Identifier: Apache-2.0 */

/* Split virtqueues against drivers that follow no rules, and the buffer helpers. */

#include "vmm/virtio_queue.h"

#include "base/fd.h"
#include "virtio_driver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE 8

struct fixture {
	struct driver driver; /* without a device: memory and rings only */
	struct vmm_virtio_queue queue;
	struct vmm_virtio_chain chain;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct driver_queue *q = &f->driver.queues[0];

	driver_init(&f->driver);
	*q = (struct driver_queue){
		.desc = driver_alloc(&f->driver, 16 * SIZE, 16),
		.avail = driver_alloc(&f->driver, 6 + 2 * SIZE, 2),
		.used = driver_alloc(&f->driver, 6 + 8 * SIZE, 4),
		.size = SIZE,
	};
	f->queue = (struct vmm_virtio_queue){
		.desc_gpa = q->desc,
		.avail_gpa = q->avail,
		.used_gpa = q->used,
		.size = SIZE,
		.size_max = 16,
	};
	assert_int_equal(vmm_virtio_queue_enable(&f->queue, &f->driver.memory), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	driver_deinit(&f->driver);
	free(f);
	return 0;
}

static int pop(struct fixture *f)
{
	return vmm_virtio_queue_pop(&f->queue, &f->driver.memory, &f->chain);
}

static void enables_only_sound_queues(void **state)
{
	struct fixture *f = *state;
	const struct vmm_virtio_queue good = {
		.desc_gpa = 0x1000,
		.avail_gpa = 0x2000,
		.used_gpa = 0x3000,
		.size = 16,
		.size_max = 16,
	};
	const uint32_t bad_sizes[] = { 0, 3, 12, 17, 32, 0x10000, UINT32_MAX };
	const uint64_t end = DRIVER_MEMORY_BYTES;
	struct vmm_virtio_queue q = good;

	assert_int_equal(vmm_virtio_queue_enable(&q, &f->driver.memory), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad_sizes); i++) {
		q = good;
		q.size = bad_sizes[i];
		assert_int_equal(vmm_virtio_queue_enable(&q, &f->driver.memory), -EINVAL);
		assert_false(q.ready);
	}
	const struct {
		size_t field;
		uint64_t bytes, align;
	} rings[] = {
		{ offsetof(struct vmm_virtio_queue, desc_gpa), 16 * 16, 16 },
		{ offsetof(struct vmm_virtio_queue, avail_gpa), 6 + 2 * 16, 2 },
		{ offsetof(struct vmm_virtio_queue, used_gpa), 6 + 8 * 16, 4 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rings); i++) {
		uint64_t last = (end - rings[i].bytes) & ~(rings[i].align - 1);
		const uint64_t bad[] = { 0x2001, last + rings[i].align, end, UINT64_MAX - 15,
					 UINT64_C(1) << 63 };

		q = good;
		*(uint64_t *)((char *)&q + rings[i].field) = last;
		assert_int_equal(vmm_virtio_queue_enable(&q, &f->driver.memory), 0);
		for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
			q = good;
			*(uint64_t *)((char *)&q + rings[i].field) = bad[j];
			assert_int_equal(vmm_virtio_queue_enable(&q, &f->driver.memory), -EINVAL);
		}
	}
}

static void walks_chains_and_wraps(void **state)
{
	struct fixture *f = *state;
	gpa_t data = driver_alloc(&f->driver, 64, 1);
	const struct driver_buffer buffers[] = {
		{ data, 8, false },
		{ data + 8, 16, false },
		{ data + 24, 32, true },
	};

	assert_int_equal(pop(f), 0);
	assert_false(vmm_virtio_queue_pending(&f->queue));
	for (unsigned i = 0; i < 70000; i++) { /* past the end of the 16-bit indices */
		uint16_t head = driver_add(&f->driver, 0, buffers, 3);
		uint16_t used_head;
		uint32_t length;

		assert_true(vmm_virtio_queue_pending(&f->queue));
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->chain.head, head);
		assert_int_equal(f->chain.n_out, 2);
		assert_int_equal(f->chain.n_in, 1);
		assert_int_equal(f->chain.out_bytes, 24);
		assert_int_equal(f->chain.in_bytes, 32);
		assert_ptr_equal(f->chain.iov[2].iov_base, driver_at(&f->driver, data + 24, 32));
		vmm_virtio_queue_push(&f->queue, f->chain.head, i);
		assert_true(driver_used(&f->driver, 0, &used_head, &length));
		assert_int_equal(used_head, head);
		assert_int_equal(length, i);
		assert_int_equal(pop(f), 0);
	}
}

static void unpop_gives_the_same_chain_again(void **state)
{
	struct fixture *f = *state;
	const struct driver_buffer buffer = { driver_alloc(&f->driver, 8, 1), 8, true };
	uint16_t head = driver_add(&f->driver, 0, &buffer, 1);

	assert_int_equal(pop(f), 1);
	assert_int_equal(pop(f), 0);
	vmm_virtio_queue_unpop(&f->queue);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.head, head);
}

static void takes_the_longest_chain(void **state)
{
	struct fixture *f = *state;
	gpa_t data = driver_alloc(&f->driver, 64, 1);
	struct driver_buffer buffers[SIZE];

	for (unsigned i = 0; i < SIZE; i++) {
		buffers[i] = (struct driver_buffer){ data, 1, false };
	}
	driver_add(&f->driver, 0, buffers, SIZE);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.n_out, SIZE);
}

static void refuses_bad_chains(void **state)
{
	struct fixture *f = *state;
	const uint64_t end = DRIVER_MEMORY_BYTES;
	const struct {
		const char *what;
		uint64_t gpa;
		uint32_t length;
		uint16_t flags, next;
	} cases[] = {
		{ "a cycle of one", 0x1000, 1, DESC_NEXT, 0 },
		{ "a next out of the table", 0x1000, 1, DESC_NEXT, SIZE },
		{ "a next far out of the table", 0x1000, 1, DESC_NEXT, UINT16_MAX },
		{ "an indirect table", 0x1000, 16, 4, 0 },
		{ "unknown flags", 0x1000, 16, 0x8000, 0 },
		{ "no bytes", 0x1000, 0, 0, 0 },
		{ "one byte past the end", end - 15, 16, 0, 0 },
		{ "past the end", end, 1, 0, 0 },
		{ "a sum that overflows", UINT64_MAX, 2, 0, 0 },
		{ "a length over everything", 0, UINT32_MAX, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		driver_set_desc(&f->driver, 0, 0, cases[i].gpa, cases[i].length, cases[i].flags,
				cases[i].next);
		driver_offer(&f->driver, 0, 0);
		if (pop(f) != -EBADMSG) {
			fail_msg("%s was accepted", cases[i].what);
		}
		assert_int_equal(f->queue.next_avail, i);
		f->queue.next_avail++;
	}
	/* The last byte of memory is fine. */
	driver_set_desc(&f->driver, 0, 0, end - 16, 16, 0, 0);
	driver_offer(&f->driver, 0, 0);
	assert_int_equal(pop(f), 1);
}

static void refuses_long_cycles_and_wrong_order(void **state)
{
	struct fixture *f = *state;

	for (uint16_t i = 0; i < SIZE; i++) {
		driver_set_desc(&f->driver, 0, i, 0x1000, 1, DESC_NEXT, (uint16_t)((i + 1) % SIZE));
	}
	driver_offer(&f->driver, 0, 3);
	assert_int_equal(pop(f), -EBADMSG);
	f->queue.next_avail++;

	driver_set_desc(&f->driver, 0, 0, 0x1000, 1, DESC_NEXT | DESC_WRITE, 1);
	driver_set_desc(&f->driver, 0, 1, 0x1000, 1, 0, 0);
	driver_offer(&f->driver, 0, 0);
	assert_int_equal(pop(f), -EBADMSG);
	f->queue.next_avail++;

	driver_offer(&f->driver, 0, SIZE); /* a head out of the table */
	assert_int_equal(pop(f), -EBADMSG);
}

/* The same gigabyte over and over: small tables can name more than lengths can tell. */
static void bounds_a_chain(void **state)
{
	struct fixture *f = *state;
	struct vmm_memory memory = {};
	_cleanup_fd_ int fd = -1;

	assert_int_equal(base_fd_memfd("large", GIB(1), &fd), 0);
	assert_int_equal(vmm_memory_init(&memory, fd, GIB(1), true), 0);
	for (uint16_t i = 0; i < 4; i++) {
		driver_set_desc(&f->driver, 0, i, 0, (uint32_t)GIB(1), i < 3 ? DESC_NEXT : 0,
				(uint16_t)(i + 1));
	}
	driver_offer(&f->driver, 0, 0);
	assert_int_equal(vmm_virtio_queue_pop(&f->queue, &memory, &f->chain), -EBADMSG);
	driver_set_desc(&f->driver, 0, 3, 0, (uint32_t)GIB(1) - 1, DESC_WRITE, 0);
	assert_int_equal(vmm_virtio_queue_pop(&f->queue, &memory, &f->chain), 1);
	assert_int_equal(f->chain.out_bytes + f->chain.in_bytes, UINT32_MAX);
	vmm_memory_deinit(&memory);
}

static void refuses_an_index_that_jumps(void **state)
{
	struct fixture *f = *state;
	uint8_t *index = driver_at(&f->driver, f->queue.avail_gpa + 2, 2);

	base_store_u16(index, SIZE + 1);
	assert_int_equal(pop(f), -EBADMSG);
	base_store_u16(index, UINT16_MAX); /* backwards */
	assert_int_equal(pop(f), -EBADMSG);
	driver_set_desc(&f->driver, 0, 0, 0x1000, 1, 0, 0);
	base_store_u16(index, SIZE);
	for (unsigned i = 0; i < SIZE; i++) {
		assert_int_equal(pop(f), 1);
	}
	assert_int_equal(pop(f), 0);
}

static void interrupts_unless_told_not_to(void **state)
{
	struct fixture *f = *state;

	assert_true(vmm_virtio_queue_wants_interrupt(&f->queue));
	base_store_u16(driver_at(&f->driver, f->queue.avail_gpa, 2), 1);
	assert_false(vmm_virtio_queue_wants_interrupt(&f->queue));
}

static void slices_and_copies_buffers(void **state)
{
	char a[4] = "abcd", b[3] = "efg", c[5] = "hijkl", text[13] = { 0 };
	const struct iovec iov[] = { { a, 4 }, { b, 3 }, { c, 5 } };
	struct iovec slice[3];

	assert_int_equal(vmm_virtio_iov_read(iov, 3, 0, text, 13), 12);
	assert_string_equal(text, "abcdefghijkl");
	memset(text, 0, sizeof(text));
	assert_int_equal(vmm_virtio_iov_read(iov, 3, 5, text, 4), 4);
	assert_string_equal(text, "fghi");
	assert_int_equal(vmm_virtio_iov_read(iov, 3, 12, text, 1), 0);

	assert_int_equal(vmm_virtio_iov_slice(iov, 3, 5, 4, slice), 2);
	assert_ptr_equal(slice[0].iov_base, b + 1);
	assert_int_equal(slice[0].iov_len, 2);
	assert_int_equal(slice[1].iov_len, 2);
	assert_int_equal(vmm_virtio_iov_slice(iov, 3, 4, UINT64_MAX, slice), 2);
	assert_int_equal(vmm_virtio_iov_slice(iov, 3, 12, 1, slice), 0);
	assert_int_equal(vmm_virtio_iov_slice(iov, 3, 0, 0, slice), 0);

	assert_int_equal(vmm_virtio_iov_write(iov, 3, 3, "XYZ", 3), 3);
	assert_memory_equal(a, "abcX", 4);
	assert_memory_equal(b, "YZg", 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(enables_only_sound_queues, setup, teardown),
		cmocka_unit_test_setup_teardown(walks_chains_and_wraps, setup, teardown),
		cmocka_unit_test_setup_teardown(unpop_gives_the_same_chain_again, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_the_longest_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_bad_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_long_cycles_and_wrong_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(bounds_a_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_an_index_that_jumps, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts_unless_told_not_to, setup, teardown),
		cmocka_unit_test(slices_and_copies_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
