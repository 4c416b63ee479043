/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * XSAVE and XRSTOR of guest ring 0 on kvm-pvm, whose emulator knows neither.
 *
 * Ring 3 runs on the CPU, with all the vector registers that the host has switched on: the guest
 * kernel must save and restore them when it switches tasks. It uses the plain instructions, in the
 * standard format; the compacted and the optimizing ones are hidden from it (vmm/boot.c).
 *
 * The functions above vmm_pvm_xsave_step() only compute; any thread.
 */

#include "vmm/cpuid.h"

#include "base/util.h"

#include <stdbool.h>

/* The largest extended state of a vCPU, in KVM's format, which is the standard one. */
#define VMM_XSAVE_BYTES_MAX KIB(16)

#define VMM_XSAVE_LEGACY_BYTES 512u
#define VMM_XSAVE_HEADER_END   576u
#define VMM_XSAVE_COMPONENTS   63u
/* Runs of bytes of one image: three of the legacy area for x87 and MXCSR, one for SSE, the rest. */
#define VMM_XSAVE_PIECES_MAX (4u + VMM_XSAVE_COMPONENTS)

#define VMM_XFEATURE_X87 UINT64_C(1)
#define VMM_XFEATURE_SSE UINT64_C(2)
#define VMM_XFEATURE_AVX UINT64_C(4)

struct vmm_xsave_piece {
	uint32_t offset, bytes;
};

struct vmm_xsave_layout {
	uint32_t image_bytes; /* of KVM's image; 0: not known, nothing is stepped over */
	uint32_t mxcsr_mask;
	uint64_t features; /* bits of XCR0 that have a place below (or in the legacy area) */
	struct vmm_xsave_piece components[VMM_XSAVE_COMPONENTS];
};

/* Where a CPUID table puts the components. image_bytes: what KVM_CAP_XSAVE2 says, at least 4096.
 * A component that does not lie behind the header and in the image has no place. */
void vmm_pvm_xsave_layout(const struct vmm_cpuid *cpuid, uint32_t image_bytes,
			  struct vmm_xsave_layout *ret_layout);

struct vmm_xsave_insn {
	bool is_restore;
	bool is_wide;	  /* REX.W: 64-bit x87 pointers */
	unsigned length;  /* of the instruction, in bytes */
	uint64_t address; /* linear, of the area */
};

/* Decodes the instruction in 64-bit mode. 0; -EAGAIN: it goes on after these bytes; -EOPNOTSUPP:
 * neither XSAVE nor XRSTOR, or with a prefix other than REX. */
int vmm_pvm_xsave_decode(const uint8_t *bytes, unsigned size, const struct kvm_regs *regs,
			 struct vmm_xsave_insn *ret_insn);

/* The bytes of an image that belong to these features, without the header. The number of pieces. */
unsigned vmm_pvm_xsave_pieces(const struct vmm_xsave_layout *layout, uint64_t features,
			      struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX]);
/* The end of the last of them; at least the end of the header. */
uint32_t vmm_pvm_xsave_extent(const struct vmm_xsave_layout *layout, uint64_t features);

/* Makes the live state ready to be stored piece by piece: the narrow form of the x87 pointers, and
 * in the header the XSTATE_BV to store, given the one in memory. */
void vmm_pvm_xsave_prepare(uint8_t *image, bool is_wide, uint64_t requested, uint64_t old_bv);

/* Whether XRSTOR takes this area, of which the first VMM_XSAVE_HEADER_END bytes are looked at. If
 * not, it raises #GP. */
bool vmm_pvm_xsave_is_valid(const struct vmm_xsave_layout *layout, const uint8_t *area,
			    uint64_t xcr0, uint64_t requested);

/*
 * XRSTOR of a valid area into the live state: requested features come from the area where its
 * XSTATE_BV has them, else they get their initial state; others stay. area must hold
 * vmm_pvm_xsave_extent() of what is requested and in its XSTATE_BV.
 */
void vmm_pvm_xsave_merge(const struct vmm_xsave_layout *layout, uint8_t *image, const uint8_t *area,
			 uint64_t requested, bool is_wide);

struct vmm_vcpu;

/*
 * Executes the instruction at regs->rip if it is one of the two: it takes effect, or the exception
 * that it raises is injected. bytes: what KVM has fetched of it. On the vCPU's thread, with the
 * device lock. 0; 1: it is not for this function; or -errno.
 */
int vmm_pvm_xsave_step(struct vmm_vcpu *vcpu, const uint8_t *bytes, unsigned size,
		       struct kvm_regs *regs);
