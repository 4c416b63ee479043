/* SPDX-License-Identifier: Apache-2.0 */

/*
 * XSAVE and XRSTOR for kvm-pvm: on a vCPU and its memory.
 *
 * KVM_RUN has ended because the emulator does not know an instruction. If it is one of the two:
 * find the area through the guest's page tables, move the state between it and KVM, set RIP behind
 * the instruction. What the CPU answers with an exception is injected, and RIP stays: kernels do
 * save to user memory that is not there. KVM_TRANSLATE would not tell whether a page is writable.
 * The guest's tables are untrusted: they only ever lead into guest memory, and what leads elsewhere
 * is refused, which ends the VM. On the vCPU's thread, with the device lock.
 */

#include "vmm/pvm_xsave.h"

#include "base/bytes.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define PAGE_BYTES     4096u
#define PAGES_MAX      (VMM_XSAVE_BYTES_MAX / PAGE_BYTES + 1)
#define INSN_BYTES_MAX 15u
#define AREA_ALIGNMENT 64u

#define CR0_TS	    (UINT64_C(1) << 3)
#define CR0_WP	    (UINT64_C(1) << 16)
#define CR4_LA57    (UINT64_C(1) << 12)
#define CR4_OSXSAVE (UINT64_C(1) << 18)
#define CR4_SMAP    (UINT64_C(1) << 21)
#define EFER_LMA    (UINT64_C(1) << 10)
#define RFLAGS_AC   (UINT64_C(1) << 18)

#define PTE_PRESENT  UINT64_C(0x1)
#define PTE_WRITABLE UINT64_C(0x2)
#define PTE_USER     UINT64_C(0x4)
#define PTE_ACCESSED UINT64_C(0x20)
#define PTE_DIRTY    UINT64_C(0x40)
#define PTE_LARGE    UINT64_C(0x80)
#define PTE_FRAME    UINT64_C(0x000ffffffffff000)

#define FAULT_PROTECTION 1u
#define FAULT_WRITE	 2u

#define VECTOR_UD 6
#define VECTOR_NM 7
#define VECTOR_GP 13
#define VECTOR_PF 14

#define OFFSET_XSTATE_BV VMM_XSAVE_LEGACY_BYTES

/* Outcomes of the functions below, besides 0 and -errno. */
#define REFUSED 1 /* not for us */
#define RAISED	2 /* an exception: see step->exception */

struct step {
	struct vmm_vcpu *vcpu;
	struct kvm_regs *regs;
	struct kvm_sregs sregs;
	struct {
		uint8_t vector;
		bool has_code;
		uint32_t code;
		uint64_t address; /* of #PF */
	} exception;
	/* The area: its address, and where its pages are in our memory. */
	uint64_t address;
	uint8_t *pages[PAGES_MAX];
	unsigned n_pages;
	uint64_t xcr0;
};

static int raise_exception(struct step *step, uint8_t vector, bool has_code)
{
	step->exception.vector = vector;
	step->exception.has_code = has_code;
	return RAISED;
}

static int raise_page_fault(struct step *step, uint64_t address, uint32_t code)
{
	step->exception.code = code;
	step->exception.address = address;
	return raise_exception(step, VECTOR_PF, true);
}

static int call(const struct step *step, unsigned long request, void *argument)
{
	return ioctl(step->vcpu->fd, request, argument) < 0 ? -errno : 0;
}

/* ---- memory ---- */

static unsigned address_bits(const struct step *step)
{
	return step->sregs.cr4 & CR4_LA57 ? 57 : 48;
}

static bool is_canonical(const struct step *step, uint64_t address)
{
	int64_t upper = (int64_t)address >> (address_bits(step) - 1);

	return upper == 0 || upper == -1;
}

/* Finds the page of an address as a supervisor access would, and marks it accessed. */
static int find_page(struct step *step, uint64_t address, bool is_write, uint8_t **ret_page)
{
	const struct vmm_memory *memory = &step->vcpu->vm->memory;
	unsigned shift = address_bits(step);
	uint64_t table = step->sregs.cr3 & PTE_FRAME;
	uint64_t allowed = PTE_WRITABLE | PTE_USER;
	uint32_t write_code = is_write ? FAULT_WRITE : 0;
	uint64_t *entry, value, offset_mask;

	do {
		shift -= 9;
		entry = vmm_memory_at(memory, table + (address >> shift & 511) * sizeof(*entry),
				      sizeof(*entry));
		if (!entry) {
			return REFUSED;
		}
		value = __atomic_load_n(entry, __ATOMIC_RELAXED);
		if (!(value & PTE_PRESENT)) {
			return raise_page_fault(step, address, write_code);
		}
		if (!(value & PTE_ACCESSED)) {
			__atomic_fetch_or(entry, PTE_ACCESSED, __ATOMIC_RELAXED);
		}
		allowed &= value;
		table = value & PTE_FRAME;
	} while (shift > 12 && (shift > 30 || !(value & PTE_LARGE)));
	if ((is_write && !(allowed & PTE_WRITABLE) && (step->sregs.cr0 & CR0_WP)) ||
	    ((allowed & PTE_USER) && (step->sregs.cr4 & CR4_SMAP) &&
	     !(step->regs->rflags & RFLAGS_AC))) {
		return raise_page_fault(step, address, write_code | FAULT_PROTECTION);
	}
	if (is_write && !(value & PTE_DIRTY)) {
		__atomic_fetch_or(entry, PTE_DIRTY, __ATOMIC_RELAXED);
	}
	offset_mask = (UINT64_C(1) << shift) - PAGE_BYTES;
	*ret_page =
		vmm_memory_at(memory, (table & ~offset_mask) | (address & offset_mask), PAGE_BYTES);
	return *ret_page ? 0 : REFUSED;
}

/* Makes the first bytes of the area reachable; call it again for more of them. */
static int find_area(struct step *step, uint32_t bytes, bool is_write)
{
	uint64_t first_page = step->address & ~(uint64_t)(PAGE_BYTES - 1);
	unsigned n = (unsigned)((step->address - first_page + bytes + PAGE_BYTES - 1) / PAGE_BYTES);

	while (step->n_pages < n) {
		uint64_t page = first_page + (uint64_t)step->n_pages * PAGE_BYTES;
		int r;

		if (!is_canonical(step, page)) {
			return raise_exception(step, VECTOR_GP, true);
		}
		r = find_page(step, step->n_pages == 0 ? step->address : page, is_write,
			      &step->pages[step->n_pages]);
		if (r != 0) {
			return r;
		}
		step->n_pages++;
	}
	return 0;
}

/* Copies within what find_area() has found. */
static void copy_area(const struct step *step, uint32_t offset, uint8_t *data, uint32_t bytes,
		      bool is_write)
{
	uint64_t position = (step->address & (PAGE_BYTES - 1)) + offset;

	while (bytes > 0) {
		uint8_t *at = step->pages[position / PAGE_BYTES] + position % PAGE_BYTES;
		uint32_t n = MIN(bytes, (uint32_t)(PAGE_BYTES - position % PAGE_BYTES));

		if (is_write) {
			memcpy(at, data, n);
		} else {
			memcpy(data, at, n);
		}
		data += n;
		position += n;
		bytes -= n;
	}
}

/* The instruction, where KVM has fetched only the part of it that lies before a page boundary. */
static int fetch(struct step *step, uint8_t bytes[INSN_BYTES_MAX])
{
	for (unsigned i = 0; i < INSN_BYTES_MAX; i++) {
		uint64_t address = step->regs->rip + i;
		uint8_t *page;

		if (find_page(step, address, false, &page) != 0) {
			return REFUSED;
		}
		bytes[i] = page[address % PAGE_BYTES];
	}
	return 0;
}

/* ---- the two instructions ---- */

static int get_image(const struct step *step, uint8_t *image)
{
	return call(step, step->vcpu->vm->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, image);
}

static int save(struct step *step, const struct vmm_xsave_insn *insn, uint64_t requested)
{
	const struct vmm_xsave_layout *layout = &step->vcpu->vm->xsave;
	struct vmm_xsave_piece pieces[VMM_XSAVE_PIECES_MAX];
	uint8_t image[VMM_XSAVE_BYTES_MAX], old_bv[8];
	unsigned n;
	int r;

	r = find_area(step, vmm_pvm_xsave_extent(layout, requested), true);
	if (r == 0) {
		r = get_image(step, image);
	}
	if (r != 0) {
		return r;
	}
	copy_area(step, OFFSET_XSTATE_BV, old_bv, sizeof(old_bv), false);
	vmm_pvm_xsave_prepare(image, insn->is_wide, requested, base_load_u64(old_bv));
	n = vmm_pvm_xsave_pieces(layout, requested, pieces);
	for (unsigned i = 0; i < n; i++) {
		copy_area(step, pieces[i].offset, image + pieces[i].offset, pieces[i].bytes, true);
	}
	copy_area(step, OFFSET_XSTATE_BV, image + OFFSET_XSTATE_BV, sizeof(old_bv), true);
	return 0;
}

static int restore(struct step *step, const struct vmm_xsave_insn *insn, uint64_t requested)
{
	const struct vmm_xsave_layout *layout = &step->vcpu->vm->xsave;
	uint8_t area[VMM_XSAVE_BYTES_MAX], image[VMM_XSAVE_BYTES_MAX];
	uint32_t extent;
	int r;

	r = find_area(step, VMM_XSAVE_HEADER_END, false);
	if (r != 0) {
		return r;
	}
	copy_area(step, 0, area, VMM_XSAVE_HEADER_END, false);
	if (!vmm_pvm_xsave_is_valid(layout, area, step->xcr0, requested)) {
		return raise_exception(step, VECTOR_GP, true);
	}
	extent = vmm_pvm_xsave_extent(layout, requested & base_load_u64(area + OFFSET_XSTATE_BV));
	r = find_area(step, extent, false);
	if (r != 0) {
		return r;
	}
	/* Not the header again, which could be another one by now. */
	copy_area(step, VMM_XSAVE_HEADER_END, area + VMM_XSAVE_HEADER_END,
		  extent - VMM_XSAVE_HEADER_END, false);
	if ((requested & layout->features) == layout->features) {
		memset(image, 0, layout->image_bytes);
	} else {
		r = get_image(step, image);
		if (r < 0) {
			return r;
		}
	}
	vmm_pvm_xsave_merge(layout, image, area, requested, insn->is_wide);
	return call(step, KVM_SET_XSAVE, image);
}

static int execute(struct step *step, const struct vmm_xsave_insn *insn)
{
	struct kvm_xcrs xcrs;
	uint64_t requested;
	int r;

	if (!(step->sregs.cr4 & CR4_OSXSAVE)) {
		return raise_exception(step, VECTOR_UD, false);
	}
	if (step->sregs.cr0 & CR0_TS) {
		return raise_exception(step, VECTOR_NM, false);
	}
	if (insn->address % AREA_ALIGNMENT != 0 || !is_canonical(step, insn->address)) {
		return raise_exception(step, VECTOR_GP, true);
	}
	r = call(step, KVM_GET_XCRS, &xcrs);
	if (r < 0) {
		return r;
	}
	step->xcr0 = xcrs.nr_xcrs > 0 ? xcrs.xcrs[0].value : VMM_XFEATURE_X87;
	if (step->xcr0 & ~step->vcpu->vm->xsave.features) {
		return REFUSED;
	}
	step->address = insn->address;
	requested = (step->regs->rdx << 32 | (uint32_t)step->regs->rax) & step->xcr0;
	return insn->is_restore ? restore(step, insn, requested) : save(step, insn, requested);
}

static int inject(struct step *step)
{
	struct kvm_vcpu_events events;
	int r;

	if (step->exception.vector == VECTOR_PF) {
		step->sregs.cr2 = step->exception.address;
		r = call(step, KVM_SET_SREGS, &step->sregs);
		if (r < 0) {
			return r;
		}
	}
	r = call(step, KVM_GET_VCPU_EVENTS, &events);
	if (r < 0) {
		return r;
	}
	events.exception.injected = 1;
	events.exception.nr = step->exception.vector;
	events.exception.has_error_code = step->exception.has_code;
	events.exception.error_code = step->exception.code;
	return call(step, KVM_SET_VCPU_EVENTS, &events);
}

int vmm_pvm_xsave_step(struct vmm_vcpu *vcpu, const uint8_t *bytes, unsigned size,
		       struct kvm_regs *regs)
{
	struct step step = { .vcpu = vcpu, .regs = regs };
	uint8_t fetched[INSN_BYTES_MAX];
	struct vmm_xsave_insn insn;
	int failed, r;

	r = vmm_pvm_xsave_decode(bytes, size, regs, &insn);
	if (r == -EOPNOTSUPP || vcpu->vm->xsave.image_bytes == 0) {
		return REFUSED;
	}
	failed = call(&step, KVM_GET_SREGS, &step.sregs);
	if (failed < 0) {
		return failed;
	}
	/* Only 64-bit ring 0 is interpreted. */
	if (step.sregs.cs.dpl != 0 || !step.sregs.cs.l || !(step.sregs.efer & EFER_LMA)) {
		return REFUSED;
	}
	if (r == -EAGAIN && (fetch(&step, fetched) != 0 ||
			     vmm_pvm_xsave_decode(fetched, sizeof(fetched), regs, &insn) < 0)) {
		return REFUSED;
	}
	r = execute(&step, &insn);
	if (r == RAISED) {
		return inject(&step);
	}
	if (r == 0) {
		regs->rip += insn.length;
		r = call(&step, KVM_SET_REGS, regs);
	}
	return r;
}
