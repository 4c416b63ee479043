/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Puts a pattern into every general register, every xmm register and a few MSRs, says "ready",
 * waits for "go" without touching them, and compares. Ends with 0, or with the number of the first
 * check that failed.
 */

#include "tests/guest/tiny/guest.h"

#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_FMASK	   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_KERNEL_GS_BASE 0xc0000102

static const struct {
	uint32_t index;
	uint64_t value;
} msrs[] = {
	{ MSR_STAR, 0x0023001000000000 },
	{ MSR_LSTAR, 0xffffffff81234560 },
	{ MSR_FMASK, 0x47700 },
	{ MSR_FS_BASE, 0x00007f1234567000 },
	{ MSR_KERNEL_GS_BASE, 0xffff888012345000 },
};

/* Sixteen xmm registers, loaded before and stored after the wait. */
uint64_t xmm_before[32] __attribute__((aligned(16)));
uint64_t xmm_after[32] __attribute__((aligned(16)));
uint64_t general_after[16];

/* Spins on the go flag with patterns in all registers; then stores them all. */
void registers_hold(void);
__asm__(".text\n"
	"registers_hold:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movups xmm_before + 16 * \\n(%rip), %xmm\\n\n"
	".endr\n"
	".set v, 0x1111\n"
	".irp r, rax,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15\n"
	"	mov $v, %\\r\n"
	"	.set v, v + 0x1111\n"
	".endr\n"
	"1:	pause\n"
	"	cmpl $0, 0x90000\n"
	"	je 1b\n"
	".set i, 0\n"
	".irp r, rax,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15\n"
	"	mov %\\r, general_after + i(%rip)\n"
	"	.set i, i + 8\n"
	".endr\n"
	".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movups %xmm\\n, xmm_after + 16 * \\n(%rip)\n"
	".endr\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n");

/* CR4.OSFXSR, and no EM or TS in CR0: SSE works. */
static void enable_sse(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr0, %0" : "=r"(value));
	value = (value & ~UINT64_C(0xc)) | 2;
	__asm__ volatile("mov %0, %%cr0" : : "r"(value));
	__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	value |= 0x600;
	__asm__ volatile("mov %0, %%cr4" : : "r"(value));
}

uint32_t guest_main(void)
{
	enable_sse();
	for (unsigned i = 0; i < 32; i++) {
		xmm_before[i] = UINT64_C(0x0123456789abcdef) * (i + 1);
	}
	for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		wrmsr(msrs[i].index, msrs[i].value);
	}
	print("ready\n");
	registers_hold();
	for (unsigned i = 0; i < 15; i++) {
		if (general_after[i] != UINT64_C(0x1111) * (i + 1)) {
			return 1 + i;
		}
	}
	for (unsigned i = 0; i < 32; i++) {
		if (xmm_after[i] != xmm_before[i]) {
			return 32 + i;
		}
	}
	for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		if (rdmsr(msrs[i].index) != msrs[i].value) {
			return 64 + i;
		}
	}
	print("registers ok\n");
	return 0;
}
