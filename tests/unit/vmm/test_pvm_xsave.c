/* SPDX-License-Identifier: Apache-2.0 */

/* XSAVE and XRSTOR for kvm-pvm: the decoder, the layout, and what the two do to an image. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "vmm/pvm_xsave.h"

#include <errno.h>
#include <string.h>

#define IMAGE_BYTES 4096u
#define MXCSR	    24
#define XMM0	    160
#define XSTATE_BV   512
#define AVX	    576
#define OPMASK	    832

static const struct kvm_regs regs = {
	.rax = 0x1000,
	.rcx = 0x2000,
	.rdx = 0x3000,
	.rbx = 0x4000,
	.rsp = 0x5000,
	.rbp = 0x6000,
	.rsi = 0x7000,
	.rdi = 0x8000,
	.r8 = 0x108000,
	.r9 = 0x109000,
	.r10 = 0x10a000,
	.r11 = 0x10b000,
	.r12 = 0x10c000,
	.r13 = 0x10d000,
	.r14 = 0x10e000,
	.r15 = 0x10f000,
	.rip = 0xffffffff81000000,
};

static void test_addresses(void **state)
{
	static const struct {
		uint8_t bytes[10];
		unsigned length;
		bool is_restore, is_wide;
		uint64_t address;
	} cases[] = {
		{ { 0x0f, 0xae, 0x27 }, 3, false, false, 0x8000 },
		{ { 0x48, 0x0f, 0xae, 0x27 }, 4, false, true, 0x8000 },
		{ { 0x48, 0x0f, 0xae, 0x2f }, 4, true, true, 0x8000 },
		{ { 0x0f, 0xae, 0x28 }, 3, true, false, 0x1000 },
		{ { 0x0f, 0xae, 0x22 }, 3, false, false, 0x3000 },
		{ { 0x0f, 0xae, 0x23 }, 3, false, false, 0x4000 },
		/* REX.B, and bits of REX that mean nothing here. */
		{ { 0x41, 0x0f, 0xae, 0x27 }, 4, false, false, 0x10f000 },
		{ { 0x44, 0x0f, 0xae, 0x2f }, 4, true, false, 0x8000 },
		{ { 0x4f, 0x0f, 0xae, 0x2e }, 4, true, true, 0x10e000 },
		/* Displacements, of 8 and of 32 bits, up and down. */
		{ { 0x48, 0x0f, 0xae, 0x67, 0x40 }, 5, false, true, 0x8040 },
		{ { 0x48, 0x0f, 0xae, 0x6d, 0xc0 }, 5, true, true, 0x5fc0 },
		{ { 0x48, 0x0f, 0xae, 0xa7, 0x00, 0x00, 0x01, 0x00 }, 8, false, true, 0x18000 },
		{ { 0x49, 0x0f, 0xae, 0xad, 0x00, 0xff, 0xff, 0xff }, 8, true, true, 0x10cf00 },
		/* RIP-relative: from the end of the instruction, REX.B or not. */
		{ { 0x48, 0x0f, 0xae, 0x25, 0x38, 0, 0, 0 }, 8, false, true, 0xffffffff81000040 },
		{ { 0x49, 0x0f, 0xae, 0x2d, 0xf8, 0xff, 0xff, 0xff },
		  8,
		  true,
		  true,
		  0xffffffff81000000 },
		/* SIB: base only (rsp, r12), base and scaled index, index only, neither. */
		{ { 0x0f, 0xae, 0x24, 0x24 }, 4, false, false, 0x5000 },
		{ { 0x41, 0x0f, 0xae, 0x24, 0x24 }, 5, false, false, 0x10c000 },
		{ { 0x0f, 0xae, 0x2c, 0xc8 }, 4, true, false, 0x11000 },
		{ { 0x42, 0x0f, 0xae, 0x2c, 0x20 }, 5, true, false, 0x10d000 },
		{ { 0x0f, 0xae, 0x64, 0x4d, 0x80 }, 5, false, false, 0x9f80 },
		{ { 0x0f, 0xae, 0x24, 0x8d, 0x00, 0x10, 0x00, 0x00 }, 8, false, false, 0x9000 },
		{ { 0x0f, 0xae, 0x24, 0x25, 0x00, 0x10, 0x00, 0x80 },
		  8,
		  false,
		  false,
		  0xffffffff80001000 },
		{ { 0x41, 0x0f, 0xae, 0xac, 0x25, 0x00, 0x01, 0x00, 0x00 },
		  9,
		  true,
		  false,
		  0x10d100 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmm_xsave_insn insn = {};

		assert_int_equal(
			vmm_pvm_xsave_decode(cases[i].bytes, sizeof(cases[i].bytes), &regs, &insn),
			0);
		assert_int_equal(insn.length, cases[i].length);
		assert_int_equal(insn.is_restore, cases[i].is_restore);
		assert_int_equal(insn.is_wide, cases[i].is_wide);
		assert_int_equal(insn.address, cases[i].address);
		/* Every shorter form of it goes on. */
		for (unsigned size = 0; size < insn.length; size++) {
			assert_int_equal(vmm_pvm_xsave_decode(cases[i].bytes, size, &regs, &insn),
					 -EAGAIN);
		}
	}
}

static void test_refusals(void **state)
{
	static const uint8_t cases[][6] = {
		{ 0x90 },			  /* nop */
		{ 0x48, 0x89, 0xc0 },		  /* not 0f */
		{ 0x0f, 0xc7, 0x27 },		  /* xsavec */
		{ 0x0f, 0xae, 0x37 },		  /* xsaveopt */
		{ 0x0f, 0xae, 0x07 },		  /* fxsave */
		{ 0x0f, 0xae, 0x0f },		  /* fxrstor */
		{ 0x0f, 0xae, 0xe8 },		  /* lfence */
		{ 0x0f, 0xae, 0xe0 },		  /* nothing */
		{ 0xf3, 0x0f, 0xae, 0x27 },	  /* ptwrite */
		{ 0x66, 0x0f, 0xae, 0x27 },	  /* prefixes */
		{ 0x65, 0x48, 0x0f, 0xae, 0x27 }, /* gs */
		{ 0x64, 0x0f, 0xae, 0x27 },	  /* fs */
		{ 0xf0, 0x0f, 0xae, 0x27 },	  /* lock */
		{ 0x67, 0x0f, 0xae, 0x27 },	  /* 32-bit address */
		{ 0x48, 0x48, 0x0f, 0xae, 0x27 }, /* two REX */
		{ 0xc5, 0xf8, 0xae, 0x27 },	  /* VEX */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmm_xsave_insn insn;

		assert_int_equal(vmm_pvm_xsave_decode(cases[i], sizeof(cases[i]), &regs, &insn),
				 -EOPNOTSUPP);
	}
}

/* All four bytes there are, with what may follow: no input reads past its end (the sanitizers
 * watch) or gives a length that is none. */
static void test_any_bytes(void **state)
{
	for (unsigned n = 0; n < 0x20000; n++) {
		uint8_t bytes[] = { 0x4f, 0x0f, 0xae, (uint8_t)n, (uint8_t)(n >> 8), 1, 2, 3, 4 };
		unsigned size = n & 0x10000 ? 9 : 5;
		struct vmm_xsave_insn insn;

		if (vmm_pvm_xsave_decode(bytes, size, &regs, &insn) == 0) {
			assert_in_range(insn.length, 4, size);
		}
	}
}

static void make_layout(struct vmm_xsave_layout *layout)
{
	struct vmm_cpuid cpuid = {
		.n_entries = 6,
		.entries = {
			{ .function = 1, .eax = 7 },
			{ .function = 0xd, .index = 0, .eax = 0x27 },
			{ .function = 0xd, .index = 1, .eax = 0xf, .ebx = 2000 },
			{ .function = 0xd, .index = 2, .eax = 256, .ebx = AVX },
			{ .function = 0xd, .index = 5, .eax = 64, .ebx = OPMASK },
			{ .function = 0xd, .index = 11, .eax = 16, .ebx = 0, .ecx = 1 },
		},
	};

	vmm_pvm_xsave_layout(&cpuid, IMAGE_BYTES, layout);
}

static void test_layout(void **state)
{
	static const struct {
		uint32_t index, offset, bytes;
		bool fits;
	} cases[] = {
		{ 2, 576, 256, true },	       { 2, 575, 256, false },
		{ 2, 576, 0, false },	       { 2, 4096 - 256, 256, true },
		{ 2, 4097 - 256, 256, false }, { 2, UINT32_MAX, 256, false },
		{ 2, 576, UINT32_MAX, false }, { 62, 576, 8, true },
		{ 63, 576, 8, false },	       { UINT32_MAX, 576, 8, false },
	};
	struct vmm_xsave_layout layout;

	make_layout(&layout);
	assert_int_equal(layout.features, 0x27);
	assert_int_equal(layout.image_bytes, IMAGE_BYTES);
	assert_int_equal(layout.mxcsr_mask & 0xffbf, 0xffbf);
	assert_int_equal(vmm_pvm_xsave_extent(&layout, 0x3), 576);
	assert_int_equal(vmm_pvm_xsave_extent(&layout, 0x4), 832);
	assert_int_equal(vmm_pvm_xsave_extent(&layout, UINT64_MAX), 896);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmm_cpuid cpuid = {
			.n_entries = 2,
			.entries = { { .function = 0xd, .eax = 7, .edx = 1u << 30 },
				     { .function = 0xd,
				       .index = cases[i].index,
				       .eax = cases[i].bytes,
				       .ebx = cases[i].offset } },
		};

		vmm_pvm_xsave_layout(&cpuid, IMAGE_BYTES, &layout);
		assert_int_equal((layout.features & ~UINT64_C(3)) != 0, cases[i].fits);
		assert_in_range(vmm_pvm_xsave_extent(&layout, UINT64_MAX), 576, IMAGE_BYTES);
	}
	make_layout(&layout);
	vmm_pvm_xsave_layout(&(struct vmm_cpuid){}, VMM_XSAVE_BYTES_MAX + 1, &layout);
	assert_int_equal(layout.image_bytes, 0);
	vmm_pvm_xsave_layout(&(struct vmm_cpuid){}, VMM_XSAVE_BYTES_MAX, &layout);
	assert_int_equal(layout.image_bytes, VMM_XSAVE_BYTES_MAX);
}

/* Which bytes belong to which features. */
static void test_pieces(void **state)
{
	struct vmm_xsave_layout layout;

	make_layout(&layout);
	for (uint64_t features = 0; features < 0x100; features++) {
		struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX];
		uint8_t touched[IMAGE_BYTES] = {};
		unsigned n = vmm_pvm_xsave_pieces(&layout, features, pieces);

		for (unsigned i = 0; i < n; i++) {
			for (uint32_t k = 0; k < pieces[i].bytes; k++) {
				assert_int_equal(touched[pieces[i].offset + k]++, 0);
			}
		}
		for (unsigned i = 0; i < IMAGE_BYTES; i++) {
			uint64_t owners = i < 24			   ? 1
					  : i < 32			   ? 6
					  : i < 160			   ? 1
					  : i < 416			   ? 2
					  : i >= AVX && i < OPMASK	   ? 4
					  : i >= OPMASK && i < OPMASK + 64 ? 0x20
									   : 0;

			assert_int_equal(touched[i], (features & owners) != 0);
		}
	}
}

static void fill(uint8_t *image, uint8_t value, uint64_t bv)
{
	memset(image, value, IMAGE_BYTES);
	memset(image + XSTATE_BV, 0, 64);
	base_store_u32(image + MXCSR, 0x1f80);
	base_store_u64(image + XSTATE_BV, bv);
}

static void test_prepare(void **state)
{
	uint8_t image[IMAGE_BYTES];

	fill(image, 0xaa, 0x25);
	vmm_pvm_xsave_prepare(image, true, 0x7, 0x8000000000000022);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0x8000000000000025);
	assert_int_equal(base_load_u32(image + 12), 0xaaaaaaaa);
	/* MXCSR counts for SSE, if that is asked for. */
	fill(image, 0xaa, 0);
	base_store_u32(image + MXCSR, 0x1fa0);
	vmm_pvm_xsave_prepare(image, false, 0x7, 0);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 2);
	assert_int_equal(base_load_u32(image + 8), 0xaaaaaaaa);
	assert_int_equal(base_load_u32(image + 12), 0);
	assert_int_equal(base_load_u32(image + 20), 0);
	fill(image, 0xaa, 0);
	base_store_u32(image + MXCSR, 0x1fa0);
	vmm_pvm_xsave_prepare(image, true, 0x5, 0);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0);
}

static void test_is_valid(void **state)
{
	struct vmm_xsave_layout layout;
	uint8_t area[IMAGE_BYTES];

	make_layout(&layout);
	layout.mxcsr_mask = 0xffff;
	fill(area, 0x55, 0x7);
	assert_true(vmm_pvm_xsave_is_valid(&layout, area, 0x7, 0x7));
	assert_false(vmm_pvm_xsave_is_valid(&layout, area, 0x3, 0x3));
	for (unsigned i = 0; i < 64 * 8; i++) {
		fill(area, 0x55, 0);
		area[XSTATE_BV + i / 8] = (uint8_t)(1 << i % 8);
		/* Known features; then nothing up to byte 24; the rest is not looked at. */
		assert_int_equal(vmm_pvm_xsave_is_valid(&layout, area, 0x27, 0x27),
				 i < 3 || i == 5 || i >= 24 * 8);
	}
	fill(area, 0x55, 0);
	base_store_u32(area + MXCSR, 0x10000);
	assert_false(vmm_pvm_xsave_is_valid(&layout, area, 0x7, 0x2));
	assert_false(vmm_pvm_xsave_is_valid(&layout, area, 0x7, 0x4));
	assert_true(vmm_pvm_xsave_is_valid(&layout, area, 0x7, 0x1));
	base_store_u32(area + MXCSR, 0xffff);
	assert_true(vmm_pvm_xsave_is_valid(&layout, area, 0x7, 0x7));
}

static void test_merge(void **state)
{
	struct vmm_xsave_layout layout;
	uint8_t image[IMAGE_BYTES], area[IMAGE_BYTES];

	make_layout(&layout);
	/* SSE comes, AVX gets its initial state, the others stay. */
	fill(image, 0xaa, 0x27);
	fill(area, 0x55, 0x3);
	base_store_u32(area + MXCSR, 0x1fa0);
	vmm_pvm_xsave_merge(&layout, image, area, 0x6, true);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0x23);
	assert_int_equal(image[0], 0xaa);
	assert_int_equal(image[159], 0xaa);
	assert_int_equal(image[XMM0], 0x55);
	assert_int_equal(image[415], 0x55);
	assert_int_equal(image[AVX], 0);
	assert_int_equal(image[AVX + 255], 0);
	assert_int_equal(image[OPMASK], 0xaa);
	assert_int_equal(base_load_u32(image + MXCSR), 0x1fa0);
	assert_int_equal(base_load_u32(image + MXCSR + 4), layout.mxcsr_mask);

	/* MXCSR comes also when XSTATE_BV has neither SSE nor AVX, and then with zeros in SSE. */
	fill(image, 0xaa, 0x27);
	fill(area, 0x55, 0);
	base_store_u32(area + MXCSR, 0x1fa0);
	vmm_pvm_xsave_merge(&layout, image, area, 0x7, true);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0x22);
	assert_int_equal(base_load_u16(image), 0x37f);
	assert_int_equal(image[2], 0);
	assert_int_equal(image[XMM0], 0);
	assert_int_equal(base_load_u32(image + MXCSR), 0x1fa0);

	/* x87 alone leaves MXCSR; its narrow form has no upper halves. */
	fill(image, 0xaa, 0);
	base_store_u32(image + MXCSR, 0x1f00);
	fill(area, 0x55, 0x1);
	vmm_pvm_xsave_merge(&layout, image, area, 0x1, false);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0x3);
	assert_int_equal(base_load_u32(image + MXCSR), 0x1f00);
	assert_int_equal(base_load_u32(image + 8), 0x55555555);
	assert_int_equal(base_load_u32(image + 12), 0);
	assert_int_equal(base_load_u32(image + 20), 0);
	assert_int_equal(image[159], 0x55);

	/* Nothing asked for: nothing done. */
	fill(image, 0xaa, 0x27);
	vmm_pvm_xsave_merge(&layout, image, area, 0, true);
	assert_int_equal(base_load_u64(image + XSTATE_BV), 0x27);
	assert_int_equal(image[0], 0xaa);
	assert_int_equal(image[AVX], 0xaa);
}

/* What is stored comes back as it was. */
static void test_round_trip(void **state)
{
	struct vmm_xsave_layout layout;

	make_layout(&layout);
	for (uint64_t requested = 0; requested < 0x28; requested++) {
		struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX];
		uint8_t image[IMAGE_BYTES], area[IMAGE_BYTES], back[IMAGE_BYTES];
		unsigned n;

		fill(image, 0x77, 0x27);
		memset(area, 0, sizeof(area));
		vmm_pvm_xsave_prepare(image, true, requested, 0);
		n = vmm_pvm_xsave_pieces(&layout, requested, pieces);
		for (unsigned i = 0; i < n; i++) {
			memcpy(area + pieces[i].offset, image + pieces[i].offset, pieces[i].bytes);
		}
		memcpy(area + XSTATE_BV, image + XSTATE_BV, 8);
		fill(back, 0x11, 0x27);
		assert_true(vmm_pvm_xsave_is_valid(&layout, area, 0x27, requested));
		vmm_pvm_xsave_merge(&layout, back, area, requested, true);
		assert_int_equal(back[0], requested & 1 ? 0x77 : 0x11);
		assert_int_equal(back[XMM0], requested & 2 ? 0x77 : 0x11);
		assert_int_equal(back[AVX], requested & 4 ? 0x77 : 0x11);
		assert_int_equal(back[OPMASK], requested & 0x20 ? 0x77 : 0x11);
		assert_int_equal(base_load_u64(back + XSTATE_BV), 0x27);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),  cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_any_bytes),  cmocka_unit_test(test_layout),
		cmocka_unit_test(test_pieces),	   cmocka_unit_test(test_prepare),
		cmocka_unit_test(test_is_valid),   cmocka_unit_test(test_merge),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests_name("vmm-pvm_xsave", tests, NULL, NULL);
}
