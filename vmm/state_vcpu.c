/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One vCPU's state, out of KVM and into KVM.
 *
 * The orders of reading and of writing are KVM's unwritten rules; each line that could be moved but
 * must not says why. Every failure names the call and the vCPU. Main thread, vCPU parked. The bytes
 * are made in state_vcpu_codec.c.
 */

#include "vmm/state_vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#define MSR_TSC		  0x10u
#define MSR_MCG_CTL	  0x17bu
#define MSR_TSC_DEADLINE  0x6e0u
#define MSRS_PER_CALL	  64u  /* of ours */
#define MSRS_PER_CALL_MAX 256u /* of KVM's: MAX_IO_MSRS */
#define TSC_TOLERANCE_PPM 250u

/* ---- out of KVM ---- */

static int failed(const struct vmm_vcpu *vcpu, const char *call, struct base_error *error)
{
	int r = errno ? -errno : -EIO;

	return base_error_set_errno(error, r, "vCPU %u: %s", vcpu->index, call);
}

#define GET(vcpu, request, target, error)                     \
	do {                                                  \
		if (ioctl((vcpu)->fd, request, target) < 0) { \
			return failed(vcpu, #request, error); \
		}                                             \
	} while (0)
#define SET GET

static int get_xsave(const struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state,
		     struct base_error *error)
{
	state->xsave_bytes = vcpu->vm->xsave_bytes;
	if (state->xsave_bytes > VMM_XSAVE_BYTES_MAX) {
		return base_error_set(error, -E2BIG, "vCPU %u: extended state of %u bytes",
				      vcpu->index, state->xsave_bytes);
	}
	if (vcpu->vm->has_xsave2) {
		GET(vcpu, KVM_GET_XSAVE2, state->xsave, error);
	} else {
		GET(vcpu, KVM_GET_XSAVE, state->xsave, error);
	}
	return 0;
}

/* struct kvm_msr_list with room for the most entries. */
struct msr_list {
	uint32_t n_indices;
	uint32_t indices[VMM_MSRS_MAX];
};

/* KVM has no bit in the list for some of its own; and the list itself can name what reads fail
 * for. Only what can be read is saved; what was saved must be writable. */
static int list_msrs(const struct vmm_vcpu *vcpu, struct vmm_msrs *msrs, struct base_error *error)
{
	struct msr_list list = { .n_indices = VMM_MSRS_MAX };

	if (ioctl(vcpu->vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, &list) < 0) {
		return failed(vcpu, "KVM_GET_MSR_INDEX_LIST", error);
	}
	msrs->n_entries = 0;
	for (uint32_t i = 0; i < list.n_indices; i++) {
		uint32_t index = list.indices[i];

		/* The TSC and its deadline have fields of their own; MCG_CTL reads but does not
		 * write back without MCG_CTL_P. */
		if (index != MSR_TSC && index != MSR_TSC_DEADLINE && index != MSR_MCG_CTL) {
			msrs->entries[msrs->n_entries++] = (struct kvm_msr_entry){ .index = index };
		}
	}
	return 0;
}

/* KVM_GET_MSRS or KVM_SET_MSRS for some entries: the number done, or -errno. */
static int transfer_msrs(const struct vmm_vcpu *vcpu, unsigned long request,
			 struct kvm_msr_entry *entries, uint32_t n)
{
	struct {
		uint32_t n_entries;
		uint32_t padding;
		struct kvm_msr_entry entries[MSRS_PER_CALL];
	} chunk = { .n_entries = n };
	int done;

	memcpy(chunk.entries, entries, n * sizeof(*entries));
	done = ioctl(vcpu->fd, request, &chunk);
	if (done < 0) {
		return -errno;
	}
	memcpy(entries, chunk.entries, n * sizeof(*entries));
	return done;
}

static int get_msrs(const struct vmm_vcpu *vcpu, struct vmm_msrs *msrs, struct base_error *error)
{
	uint32_t kept = 0, next = 0;

	while (next < msrs->n_entries) {
		uint32_t n = MIN(msrs->n_entries - next, MSRS_PER_CALL);
		int done = transfer_msrs(vcpu, KVM_GET_MSRS, &msrs->entries[next], n);

		if (done < 0) {
			return base_error_set_errno(error, done, "vCPU %u: KVM_GET_MSRS",
						    vcpu->index);
		}
		memmove(&msrs->entries[kept], &msrs->entries[next],
			(size_t)done * sizeof(msrs->entries[0]));
		kept += (uint32_t)done;
		/* The one it stopped at cannot be read on this host: leave it out. */
		next += (uint32_t)done + ((uint32_t)done < n);
	}
	msrs->n_entries = kept;
	return 0;
}

static int get_msr(const struct vmm_vcpu *vcpu, uint32_t index, uint64_t *ret_value,
		   struct base_error *error)
{
	struct kvm_msr_entry entry = { .index = index };
	int done = transfer_msrs(vcpu, KVM_GET_MSRS, &entry, 1);

	if (done != 1) {
		return base_error_set_errno(error, done < 0 ? done : -EIO,
					    "vCPU %u: reading MSR %#x", vcpu->index, index);
	}
	*ret_value = entry.data;
	return 0;
}

int vmm_vcpu_state_get(const struct vmm_vcpu *vcpu, struct vmm_vcpu_state *ret_state,
		       struct base_error *error)
{
	struct vmm_vcpu_state *state = ret_state;
	int r;

	memset(state, 0, sizeof(*state));
	/* First: it lets a pending INIT or SIPI take effect, which changes registers. */
	GET(vcpu, KVM_GET_MP_STATE, &state->mp_state, error);
	GET(vcpu, KVM_GET_REGS, &state->regs, error);
	GET(vcpu, KVM_GET_SREGS2, &state->sregs, error);
	r = get_xsave(vcpu, state, error);
	if (r < 0) {
		return r;
	}
	GET(vcpu, KVM_GET_XCRS, &state->xcrs, error);
	GET(vcpu, KVM_GET_DEBUGREGS, &state->debugregs, error);
	GET(vcpu, KVM_GET_LAPIC, &state->lapic, error);
	r = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	if (r <= 0) {
		return failed(vcpu, "KVM_GET_TSC_KHZ", error);
	}
	state->tsc_khz = (uint32_t)r;
	/* Read back, not remembered: KVM changes some leaves by itself. */
	state->cpuid.n_entries = VMM_CPUID_ENTRIES_MAX;
	GET(vcpu, KVM_GET_CPUID2, &state->cpuid, error);
	r = list_msrs(vcpu, &state->msrs, error);
	if (r == 0) {
		r = get_msrs(vcpu, &state->msrs, error);
	}
	if (r == 0) {
		r = get_msr(vcpu, MSR_TSC_DEADLINE, &state->tsc_deadline, error);
	}
	if (r == 0) {
		r = get_msr(vcpu, MSR_TSC, &state->tsc, error);
	}
	if (r < 0) {
		return r;
	}
	/* Last: the calls above may have moved what is pending. */
	GET(vcpu, KVM_GET_VCPU_EVENTS, &state->events, error);
	return 0;
}

/* ---- into KVM ---- */

/*
 * Each call to a vCPU loads it onto the CPU and puts it back, which on kvm-pvm is most of what the
 * call costs. So what a new vCPU has already is not set, and what can go together does.
 */

int vmm_vcpu_state_probe(const struct vmm_vcpu *vcpu, bool *ret_tsc_is_fixed,
			 struct base_error *error)
{
	uint64_t tsc = 0;
	int r = get_msr(vcpu, MSR_TSC, &tsc, error);

	if (r == 0) {
		/* The guest's TSC starts at 0 with its first vCPU, unless it is the host's. */
		*ret_tsc_is_fixed = tsc > __rdtsc() / 2;
	}
	return r;
}

static int set_tsc_khz(const struct vmm_vcpu *vcpu, uint32_t wanted_khz, struct base_error *error)
{
	int khz = ioctl(vcpu->vm->fd, KVM_GET_TSC_KHZ, 0);
	uint64_t difference;

	if (khz <= 0) {
		/* Only newer kernels answer for the whole VM. */
		khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	}
	if (khz <= 0) {
		return failed(vcpu, "KVM_GET_TSC_KHZ", error);
	}
	difference = wanted_khz > (uint32_t)khz ? wanted_khz - (uint32_t)khz
						: (uint32_t)khz - wanted_khz;
	/* Within the tolerance the difference is measurement, and scaling has a cost. */
	if (difference * 1000000 <= (uint64_t)khz * TSC_TOLERANCE_PPM) {
		return 0;
	}
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)wanted_khz) < 0) {
		return base_error_set_errno(error, -errno,
					    "vCPU %u: this CPU cannot run the guest's TSC at %u "
					    "kHz (it has %d)",
					    vcpu->index, wanted_khz, khz);
	}
	return 0;
}

static int set_mp_state(const struct vmm_vcpu *vcpu, const struct kvm_mp_state *mp_state,
			struct base_error *error)
{
	uint32_t fresh = vcpu->index == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;

	if (mp_state->mp_state != fresh) {
		SET(vcpu, KVM_SET_MP_STATE, mp_state, error);
	}
	return 0;
}

static int set_xcrs(const struct vmm_vcpu *vcpu, const struct kvm_xcrs *xcrs,
		    struct base_error *error)
{
	bool is_fresh = xcrs->nr_xcrs == 1 && xcrs->flags == 0 && xcrs->xcrs[0].xcr == 0 &&
			xcrs->xcrs[0].value == VMM_XFEATURE_X87;

	if (!is_fresh) {
		SET(vcpu, KVM_SET_XCRS, xcrs, error);
	}
	return 0;
}

static int set_debugregs(const struct vmm_vcpu *vcpu, const struct kvm_debugregs *debugregs,
			 struct base_error *error)
{
	static const struct kvm_debugregs fresh = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };

	if (memcmp(debugregs, &fresh, sizeof(fresh)) != 0) {
		SET(vcpu, KVM_SET_DEBUGREGS, debugregs, error);
	}
	return 0;
}

static int set_events(const struct vmm_vcpu *vcpu, const struct kvm_vcpu_events *events,
		      struct base_error *error)
{
	static const struct kvm_vcpu_events fresh;
	struct kvm_vcpu_events copy = *events;

	copy.flags = 0; /* they say which fields count */
	if (memcmp(&copy, &fresh, sizeof(fresh)) != 0) {
		SET(vcpu, KVM_SET_VCPU_EVENTS, events, error);
	}
	return 0;
}

static int refused_msr(const struct vmm_vcpu *vcpu, const struct kvm_msr_entry *entry, int done,
		       struct base_error *error)
{
	if (done < 0) {
		return base_error_set_errno(error, done, "vCPU %u: KVM_SET_MSRS", vcpu->index);
	}
	return base_error_set(error, -EINVAL, "vCPU %u: KVM refuses MSR %#x with value %#llx",
			      vcpu->index, entry->index, entry->data);
}

/* As they lie in the state, with the TSC behind them; most often that is one call. */
static int set_msrs(const struct vmm_vcpu *vcpu, struct vmm_msrs *msrs, uint64_t tsc,
		    struct base_error *error)
{
	uint32_t saved = msrs->n_entries, next;
	int done;

	msrs->entries[saved] = (struct kvm_msr_entry){ .index = MSR_TSC, .data = tsc };
	next = MIN(saved + 1, MSRS_PER_CALL_MAX);
	msrs->n_entries = next;
	done = ioctl(vcpu->fd, KVM_SET_MSRS, msrs);
	msrs->n_entries = saved;
	if (done < 0 || (uint32_t)done != next) {
		return refused_msr(vcpu, &msrs->entries[MAX(done, 0)], done < 0 ? -errno : done,
				   error);
	}
	while (next < saved + 1) {
		uint32_t n = MIN(saved + 1 - next, MSRS_PER_CALL);

		done = transfer_msrs(vcpu, KVM_SET_MSRS, &msrs->entries[next], n);
		if (done < 0 || (uint32_t)done != n) {
			return refused_msr(vcpu, &msrs->entries[next + (uint32_t)MAX(done, 0)],
					   done, error);
		}
		next += n;
	}
	return 0;
}

/* In a call of its own and after the LAPIC: KVM drops the write silently while the timer is in
 * another mode. A new vCPU has none armed. */
static int set_deadline(const struct vmm_vcpu *vcpu, uint64_t deadline, struct base_error *error)
{
	struct kvm_msr_entry entry = { .index = MSR_TSC_DEADLINE, .data = deadline };
	int done;

	if (deadline == 0) {
		return 0;
	}
	done = transfer_msrs(vcpu, KVM_SET_MSRS, &entry, 1);
	return done == 1 ? 0 : refused_msr(vcpu, &entry, done, error);
}

int vmm_vcpu_state_tsc(const struct vmm_vcpu *vcpu, uint64_t *ret_tsc, struct base_error *error)
{
	if (vcpu->vm->tsc_is_fixed) {
		*ret_tsc = __rdtsc();
		return 0;
	}
	return get_msr(vcpu, MSR_TSC, ret_tsc, error);
}

/*
 * kvm-pvm takes a write to the TSC without an error and leaves the guest at the host's TSC. The
 * guest then keeps time by kvmclock, which the host kind can move (vmm/boot.c sees to it); what is
 * left in units of the TSC is the armed timer, so that is moved by as much as the TSC is not. The
 * TSC is written all the same: KVM's own arithmetic goes by what was written, and would take the
 * timer for overdue.
 */
static int set_msrs_and_timer(const struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state,
			      struct base_error *error)
{
	uint64_t tsc = vcpu->vm->tsc_is_fixed ? __rdtsc() : state->tsc;
	uint64_t deadline = state->tsc_deadline;
	int r;

	r = set_msrs(vcpu, &state->msrs, tsc, error);
	if (deadline != 0) {
		deadline += tsc - state->tsc;
	}
	return r ?: set_deadline(vcpu, deadline, error);
}

int vmm_vcpu_state_set(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state,
		       struct base_error *error)
{
	int r;

	if (state->xsave_bytes != vcpu->vm->xsave_bytes) {
		return base_error_set(error, -EINVAL,
				      "vCPU %u: extended state of %u bytes, this host has %u",
				      vcpu->index, state->xsave_bytes, vcpu->vm->xsave_bytes);
	}
	r = set_tsc_khz(vcpu, state->tsc_khz, error);
	r = r ?: vmm_vcpu_set_cpuid(vcpu, &state->cpuid, error);
	r = r ?: set_mp_state(vcpu, &state->mp_state, error);
	if (r < 0) {
		return r;
	}
	/* Before the events: it clears a pending exception. */
	SET(vcpu, KVM_SET_REGS, &state->regs, error);
	/* Before the LAPIC: it carries the APIC base, with the mode of the APIC. */
	SET(vcpu, KVM_SET_SREGS2, &state->sregs, error);
	SET(vcpu, KVM_SET_XSAVE, state->xsave, error);
	r = set_xcrs(vcpu, &state->xcrs, error);
	r = r ?: set_debugregs(vcpu, &state->debugregs, error);
	if (r < 0) {
		return r;
	}
	SET(vcpu, KVM_SET_LAPIC, &state->lapic, error);
	r = set_msrs_and_timer(vcpu, state, error);
	return r ?: set_events(vcpu, &state->events, error);
}
