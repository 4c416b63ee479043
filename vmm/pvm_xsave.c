/* SPDX-License-Identifier: Apache-2.0 */

/*
 * XSAVE and XRSTOR for kvm-pvm: decoding, and what the two do to an image of the state.
 *
 * Everything here computes on copies of what the guest gave; the registers and the memory of the
 * guest are reached in pvm_xsave_step.c. Stateless; any thread. Chapter 13 of the Intel manual's
 * first volume is the reference.
 */

#include "vmm/pvm_xsave.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

#define LEAF_XSAVE 0xdu

#define REX_FIRST    0x40
#define REX_MASK     0xf0
#define REX_B	     0x1
#define REX_X	     0x2
#define REX_W	     0x8
#define OPCODE_0F    0x0f
#define OPCODE_GRP15 0xae
#define GRP15_XSAVE  4
#define GRP15_XRSTOR 5
#define RM_SIB	     4
#define RM_DISP32    5

#define OFFSET_FCW	  0u
#define OFFSET_FIP_HIGH	  12u
#define OFFSET_FDP_HIGH	  20u
#define OFFSET_MXCSR	  24u
#define OFFSET_MXCSR_MASK 28u
#define OFFSET_ST0	  32u
#define OFFSET_XMM0	  160u
#define OFFSET_XMM_END	  416u
#define OFFSET_XSTATE_BV  512u
#define OFFSET_XCOMP_BV	  520u
#define HEADER_MBZ_BYTES  16u /* XCOMP_BV and the eight bytes after it */
#define FCW_INITIAL	  0x37fu
#define MXCSR_INITIAL	  0x1f80u
#define MXCSR_MASK_OLDEST 0xffbfu /* of a CPU that says 0 */

/* ---- layout ---- */

/* The bits of MXCSR that this CPU has; ring 3 of the guest runs on it. */
static uint32_t mxcsr_mask(void)
{
	uint8_t area[512] __attribute__((aligned(16))) = {};
	uint32_t mask;

	__asm__ volatile("fxsave %0" : "+m"(area));
	mask = base_load_u32(area + OFFSET_MXCSR_MASK);
	return mask ? mask : MXCSR_MASK_OLDEST;
}

void vmm_pvm_xsave_layout(const struct vmm_cpuid *cpuid, uint32_t image_bytes,
			  struct vmm_xsave_layout *ret_layout)
{
	struct vmm_xsave_layout layout = { .image_bytes = image_bytes };
	uint64_t offered = 0;

	for (uint32_t i = 0; i < cpuid->n_entries; i++) {
		const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

		if (entry->function != LEAF_XSAVE) {
			continue;
		}
		if (entry->index == 0) {
			offered = (uint64_t)entry->edx << 32 | entry->eax;
		} else if (entry->index > 1 && entry->index < VMM_XSAVE_COMPONENTS &&
			   entry->eax > 0 && entry->ebx >= VMM_XSAVE_HEADER_END &&
			   entry->ebx <= image_bytes && entry->eax <= image_bytes - entry->ebx) {
			layout.components[entry->index] =
				(struct vmm_xsave_piece){ .offset = entry->ebx,
							  .bytes = entry->eax };
			layout.features |= UINT64_C(1) << entry->index;
		}
	}
	layout.features = (layout.features | VMM_XFEATURE_X87 | VMM_XFEATURE_SSE) & offered;
	if (image_bytes < KIB(4) || image_bytes > VMM_XSAVE_BYTES_MAX) {
		layout.image_bytes = 0;
	}
	layout.mxcsr_mask = mxcsr_mask();
	*ret_layout = layout;
}

static void add_piece(struct vmm_xsave_piece *pieces, unsigned *n, uint32_t offset, uint32_t end)
{
	pieces[(*n)++] = (struct vmm_xsave_piece){ .offset = offset, .bytes = end - offset };
}

unsigned vmm_pvm_xsave_pieces(const struct vmm_xsave_layout *layout, uint64_t features,
			      struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX])
{
	unsigned n = 0;

	features &= layout->features;
	if (features & VMM_XFEATURE_X87) {
		add_piece(pieces, &n, OFFSET_FCW, OFFSET_MXCSR);
	}
	if (features & (VMM_XFEATURE_SSE | VMM_XFEATURE_AVX)) {
		add_piece(pieces, &n, OFFSET_MXCSR, OFFSET_ST0);
	}
	if (features & VMM_XFEATURE_X87) {
		add_piece(pieces, &n, OFFSET_ST0, OFFSET_XMM0);
	}
	if (features & VMM_XFEATURE_SSE) {
		add_piece(pieces, &n, OFFSET_XMM0, OFFSET_XMM_END);
	}
	for (unsigned i = 2; i < VMM_XSAVE_COMPONENTS; i++) {
		if (features & UINT64_C(1) << i) {
			pieces[n++] = layout->components[i];
		}
	}
	return n;
}

uint32_t vmm_pvm_xsave_extent(const struct vmm_xsave_layout *layout, uint64_t features)
{
	uint32_t end = VMM_XSAVE_HEADER_END;

	for (unsigned i = 2; i < VMM_XSAVE_COMPONENTS; i++) {
		if (features & layout->features & UINT64_C(1) << i) {
			end = MAX(end, layout->components[i].offset + layout->components[i].bytes);
		}
	}
	return end;
}

/* ---- decoding ---- */

static uint64_t register_value(const struct kvm_regs *regs, unsigned number)
{
	const uint64_t values[16] = {
		regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp,
		regs->rsi, regs->rdi, regs->r8,	 regs->r9,  regs->r10, regs->r11,
		regs->r12, regs->r13, regs->r14, regs->r15,
	};

	return values[number & 15];
}

/* What is left of the bytes; next() gives 0 past the end and remembers. */
struct cursor {
	const uint8_t *bytes;
	unsigned size, position;
	bool is_short;
};

static uint8_t next(struct cursor *cursor)
{
	if (cursor->position >= cursor->size) {
		cursor->is_short = true;
		return 0;
	}
	return cursor->bytes[cursor->position++];
}

static uint64_t next_displacement(struct cursor *cursor, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		value |= (uint32_t)next(cursor) << 8 * i;
	}
	return size == 1 ? (uint64_t)(int8_t)value : (uint64_t)(int32_t)value;
}

/* The address of a ModRM operand in memory. */
static uint64_t next_address(struct cursor *cursor, uint8_t rex, uint8_t modrm,
			     const struct kvm_regs *regs)
{
	static const uint8_t sizes[] = { 0, 1, 4 };
	unsigned mod = modrm >> 6, base = modrm & 7;
	unsigned displacement = sizes[mod];
	bool has_base = true, is_relative = false;
	uint64_t address = 0;

	if (base == RM_SIB) {
		uint8_t sib = next(cursor);
		unsigned index = (sib >> 3 & 7) | (rex & REX_X ? 8 : 0);

		base = sib & 7;
		if (index != 4) {
			address = register_value(regs, index) << (sib >> 6);
		}
		has_base = base != RM_DISP32 || mod != 0;
	} else if (base == RM_DISP32 && mod == 0) {
		has_base = false;
		is_relative = true;
	}
	if (has_base) {
		address += register_value(regs, base | (rex & REX_B ? 8 : 0));
	} else {
		displacement = 4;
	}
	if (displacement) {
		address += next_displacement(cursor, displacement);
	}
	/* The displacement is the last part of it: the next instruction begins here. */
	return is_relative ? address + regs->rip + cursor->position : address;
}

int vmm_pvm_xsave_decode(const uint8_t *bytes, unsigned size, const struct kvm_regs *regs,
			 struct vmm_xsave_insn *ret_insn)
{
	struct cursor cursor = { .bytes = bytes, .size = size };
	struct vmm_xsave_insn insn = {};
	uint8_t byte = next(&cursor);
	uint8_t rex = 0;

	if ((byte & REX_MASK) == REX_FIRST) {
		rex = byte;
		byte = next(&cursor);
	}
	if (!cursor.is_short && byte != OPCODE_0F) {
		return -EOPNOTSUPP;
	}
	byte = next(&cursor);
	if (!cursor.is_short && byte != OPCODE_GRP15) {
		return -EOPNOTSUPP;
	}
	byte = next(&cursor);
	if (cursor.is_short) {
		return -EAGAIN;
	}
	if (byte >> 6 == 3 || ((byte >> 3 & 7) != GRP15_XSAVE && (byte >> 3 & 7) != GRP15_XRSTOR)) {
		return -EOPNOTSUPP;
	}
	insn.is_restore = (byte >> 3 & 7) == GRP15_XRSTOR;
	insn.is_wide = rex & REX_W;
	insn.address = next_address(&cursor, rex, byte, regs);
	insn.length = cursor.position;
	if (cursor.is_short) {
		return -EAGAIN;
	}
	*ret_insn = insn;
	return 0;
}

/* ---- images ---- */

/* Without REX.W the upper halves of the x87 pointers are selectors, which CPUs write as 0. */
static void narrow(uint8_t *image)
{
	memset(image + OFFSET_FIP_HIGH, 0, 4);
	memset(image + OFFSET_FDP_HIGH, 0, 4);
}

void vmm_pvm_xsave_prepare(uint8_t *image, bool is_wide, uint64_t requested, uint64_t old_bv)
{
	uint64_t in_use = base_load_u64(image + OFFSET_XSTATE_BV);

	/* MXCSR is no part of what makes SSE "in use", but XSAVE counts it. */
	if (base_load_u32(image + OFFSET_MXCSR) != MXCSR_INITIAL) {
		in_use |= VMM_XFEATURE_SSE;
	}
	if (!is_wide) {
		narrow(image);
	}
	base_store_u64(image + OFFSET_XSTATE_BV, (old_bv & ~requested) | (in_use & requested));
}

bool vmm_pvm_xsave_is_valid(const struct vmm_xsave_layout *layout, const uint8_t *area,
			    uint64_t xcr0, uint64_t requested)
{
	if (base_load_u64(area + OFFSET_XSTATE_BV) & ~xcr0) {
		return false;
	}
	for (unsigned i = 0; i < HEADER_MBZ_BYTES; i++) {
		if (area[OFFSET_XCOMP_BV + i]) {
			return false;
		}
	}
	return !(requested & (VMM_XFEATURE_SSE | VMM_XFEATURE_AVX)) ||
	       !(base_load_u32(area + OFFSET_MXCSR) & ~layout->mxcsr_mask);
}

void vmm_pvm_xsave_merge(const struct vmm_xsave_layout *layout, uint8_t *image, const uint8_t *area,
			 uint64_t requested, bool is_wide)
{
	uint64_t given = base_load_u64(area + OFFSET_XSTATE_BV) & requested;
	uint64_t live = base_load_u64(image + OFFSET_XSTATE_BV);
	struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX];
	uint32_t mxcsr = base_load_u32(image + OFFSET_MXCSR);
	unsigned n;

	if (requested & (VMM_XFEATURE_SSE | VMM_XFEATURE_AVX)) {
		/* From memory whatever XSTATE_BV says. */
		mxcsr = base_load_u32(area + OFFSET_MXCSR);
	}
	n = vmm_pvm_xsave_pieces(layout, requested, pieces);
	for (unsigned i = 0; i < n; i++) {
		memset(image + pieces[i].offset, 0, pieces[i].bytes);
	}
	n = vmm_pvm_xsave_pieces(layout, given, pieces);
	for (unsigned i = 0; i < n; i++) {
		memcpy(image + pieces[i].offset, area + pieces[i].offset, pieces[i].bytes);
	}
	if (given & VMM_XFEATURE_X87) {
		if (!is_wide) {
			narrow(image);
		}
	} else if (requested & VMM_XFEATURE_X87) {
		base_store_u16(image + OFFSET_FCW, FCW_INITIAL);
	}
	base_store_u32(image + OFFSET_MXCSR, mxcsr);
	base_store_u32(image + OFFSET_MXCSR_MASK, layout->mxcsr_mask);
	live = (live & ~requested) | given;
	/* KVM takes MXCSR only together with the registers. */
	if (mxcsr != MXCSR_INITIAL) {
		live |= VMM_XFEATURE_SSE;
	}
	base_store_u64(image + OFFSET_XSTATE_BV, live);
}
