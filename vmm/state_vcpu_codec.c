/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One vCPU's state to bytes and from bytes.
 *
 * Each structure is converted field by field, by one function for both directions, so that they
 * cannot disagree; padding never reaches the file. A count beyond its limit is remembered by the
 * reader like a read past the end. Works on buffers; any thread.
 */

#include "vmm/state_vcpu.h"

#include <errno.h>
#include <string.h>

/* Converts fields one after the other: to bytes, or from bytes when `decode`. */
struct codec {
	bool decode;
	struct base_writer *writer;
	struct base_reader *reader;
};

static uint8_t code_u8(struct codec *c, uint8_t value)
{
	if (c->decode) {
		return base_reader_u8(c->reader);
	}
	base_writer_u8(c->writer, value);
	return value;
}

static uint16_t code_u16(struct codec *c, uint16_t value)
{
	if (c->decode) {
		return base_reader_u16(c->reader);
	}
	base_writer_u16(c->writer, value);
	return value;
}

static uint32_t code_u32(struct codec *c, uint32_t value)
{
	if (c->decode) {
		return base_reader_u32(c->reader);
	}
	base_writer_u32(c->writer, value);
	return value;
}

static uint64_t code_u64(struct codec *c, uint64_t value)
{
	if (c->decode) {
		return base_reader_u64(c->reader);
	}
	base_writer_u64(c->writer, value);
	return value;
}

static void code_bytes(struct codec *c, void *data, size_t size)
{
	if (c->decode) {
		base_reader_copy(c->reader, data, size);
	} else {
		base_writer_bytes(c->writer, data, size);
	}
}

/* A count of things that follow; at most max. */
static uint32_t code_count(struct codec *c, uint32_t count, uint32_t max)
{
	count = code_u32(c, count);
	if (c->decode && count > max) {
		c->reader->result = -EBADMSG;
		return 0;
	}
	return count;
}

#define CODE8(c, field)	 ((field) = code_u8((c), (field)))
#define CODE16(c, field) ((field) = code_u16((c), (field)))
#define CODE32(c, field) ((field) = code_u32((c), (field)))
#define CODE64(c, field) ((field) = code_u64((c), (field)))

static void code_regs(struct codec *c, struct kvm_regs *regs)
{
	CODE64(c, regs->rax);
	CODE64(c, regs->rbx);
	CODE64(c, regs->rcx);
	CODE64(c, regs->rdx);
	CODE64(c, regs->rsi);
	CODE64(c, regs->rdi);
	CODE64(c, regs->rsp);
	CODE64(c, regs->rbp);
	CODE64(c, regs->r8);
	CODE64(c, regs->r9);
	CODE64(c, regs->r10);
	CODE64(c, regs->r11);
	CODE64(c, regs->r12);
	CODE64(c, regs->r13);
	CODE64(c, regs->r14);
	CODE64(c, regs->r15);
	CODE64(c, regs->rip);
	CODE64(c, regs->rflags);
}

static void code_segment(struct codec *c, struct kvm_segment *segment)
{
	CODE64(c, segment->base);
	CODE32(c, segment->limit);
	CODE16(c, segment->selector);
	CODE8(c, segment->type);
	CODE8(c, segment->present);
	CODE8(c, segment->dpl);
	CODE8(c, segment->db);
	CODE8(c, segment->s);
	CODE8(c, segment->l);
	CODE8(c, segment->g);
	CODE8(c, segment->avl);
	CODE8(c, segment->unusable);
}

static void code_sregs(struct codec *c, struct kvm_sregs2 *sregs)
{
	struct kvm_segment *segments[] = { &sregs->cs, &sregs->ds, &sregs->es, &sregs->fs,
					   &sregs->gs, &sregs->ss, &sregs->tr, &sregs->ldt };

	for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
		code_segment(c, segments[i]);
	}
	CODE64(c, sregs->gdt.base);
	CODE16(c, sregs->gdt.limit);
	CODE64(c, sregs->idt.base);
	CODE16(c, sregs->idt.limit);
	CODE64(c, sregs->cr0);
	CODE64(c, sregs->cr2);
	CODE64(c, sregs->cr3);
	CODE64(c, sregs->cr4);
	CODE64(c, sregs->cr8);
	CODE64(c, sregs->efer);
	CODE64(c, sregs->apic_base);
	CODE64(c, sregs->flags);
	for (size_t i = 0; i < ARRAY_SIZE(sregs->pdptrs); i++) {
		CODE64(c, sregs->pdptrs[i]);
	}
}

static void code_debugregs(struct codec *c, struct kvm_debugregs *debugregs)
{
	for (size_t i = 0; i < ARRAY_SIZE(debugregs->db); i++) {
		CODE64(c, debugregs->db[i]);
	}
	CODE64(c, debugregs->dr6);
	CODE64(c, debugregs->dr7);
	CODE64(c, debugregs->flags);
}

static void code_xcrs(struct codec *c, struct kvm_xcrs *xcrs)
{
	xcrs->nr_xcrs = code_count(c, xcrs->nr_xcrs, KVM_MAX_XCRS);
	CODE32(c, xcrs->flags);
	for (uint32_t i = 0; i < xcrs->nr_xcrs; i++) {
		CODE32(c, xcrs->xcrs[i].xcr);
		CODE64(c, xcrs->xcrs[i].value);
	}
}

static void code_cpuid(struct codec *c, struct vmm_cpuid *cpuid)
{
	cpuid->n_entries = code_count(c, cpuid->n_entries, VMM_CPUID_ENTRIES_MAX);
	for (uint32_t i = 0; i < cpuid->n_entries; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

		CODE32(c, entry->function);
		CODE32(c, entry->index);
		CODE32(c, entry->flags);
		CODE32(c, entry->eax);
		CODE32(c, entry->ebx);
		CODE32(c, entry->ecx);
		CODE32(c, entry->edx);
	}
}

static void code_msrs(struct codec *c, struct vmm_msrs *msrs)
{
	msrs->n_entries = code_count(c, msrs->n_entries, VMM_MSRS_MAX);
	for (uint32_t i = 0; i < msrs->n_entries; i++) {
		CODE32(c, msrs->entries[i].index);
		CODE64(c, msrs->entries[i].data);
	}
}

static void code_events(struct codec *c, struct kvm_vcpu_events *events)
{
	CODE8(c, events->exception.injected);
	CODE8(c, events->exception.nr);
	CODE8(c, events->exception.has_error_code);
	CODE8(c, events->exception.pending);
	CODE32(c, events->exception.error_code);
	CODE8(c, events->interrupt.injected);
	CODE8(c, events->interrupt.nr);
	CODE8(c, events->interrupt.soft);
	CODE8(c, events->interrupt.shadow);
	CODE8(c, events->nmi.injected);
	CODE8(c, events->nmi.pending);
	CODE8(c, events->nmi.masked);
	CODE32(c, events->sipi_vector);
	CODE32(c, events->flags);
	CODE8(c, events->smi.smm);
	CODE8(c, events->smi.pending);
	CODE8(c, events->smi.smm_inside_nmi);
	CODE8(c, events->smi.latched_init);
	CODE8(c, events->triple_fault.pending);
	CODE8(c, events->exception_has_payload);
	CODE64(c, events->exception_payload);
}

static void code_state(struct codec *c, struct vmm_vcpu_state *state)
{
	CODE32(c, state->mp_state.mp_state);
	code_regs(c, &state->regs);
	code_sregs(c, &state->sregs);
	state->xsave_bytes = code_count(c, state->xsave_bytes, VMM_XSAVE_BYTES_MAX);
	code_bytes(c, state->xsave, state->xsave_bytes);
	code_xcrs(c, &state->xcrs);
	code_debugregs(c, &state->debugregs);
	code_bytes(c, state->lapic.regs, sizeof(state->lapic.regs));
	CODE32(c, state->tsc_khz);
	code_cpuid(c, &state->cpuid);
	code_msrs(c, &state->msrs);
	CODE64(c, state->tsc);
	CODE64(c, state->tsc_deadline);
	code_events(c, &state->events);
}

void vmm_vcpu_state_write(const struct vmm_vcpu_state *state, struct base_writer *writer)
{
	struct codec codec = { .writer = writer };

	/* Encoding writes each field's own value back to it. */
	code_state(&codec, (struct vmm_vcpu_state *)state);
}

int vmm_vcpu_state_read(struct vmm_vcpu_state *ret_state, struct base_reader *reader,
			struct base_error *error)
{
	struct codec codec = { .decode = true, .reader = reader };

	code_state(&codec, ret_state);
	if (base_reader_finish(reader) < 0) {
		return base_error_set(error, -EBADMSG,
				      "state: vCPU: a count or the length does not fit");
	}
	return 0;
}
