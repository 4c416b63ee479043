/* SPDX-License-Identifier: Apache-2.0 */

/*
 * XSAVE and XRSTOR in ring 0: on the CPU, or supplied by the VMM on kvm-pvm, whose emulator knows
 * neither and no AVX instruction either. So what is in the registers is seen through the area: a
 * pattern is restored from one area and saved to another one, twice with something else between.
 * Then each way that the two raise an exception. Ends with 0, or with the number of the check that
 * failed.
 */

#include "tests/guest/tiny/guest.h"

#define AVX_OFFSET 576
#define AVX_BYTES  256
#define XSTATE_BV  512
#define XMM0	   160
#define MXCSR	   24

#define X87 1
#define SSE 2
#define AVX 4

#define PAGE_4K	    4096
#define LARGE_2M    0x200000
#define PTE_DEFAULT 3 /* present, writable */

struct area {
	uint8_t bytes[2 * PAGE_4K];
} __attribute__((aligned(4096)));

static struct area first, second, third;
static uint64_t page_table[512] __attribute__((aligned(4096)));

/* What the last exception was; its handler goes on at the address in rbx. */
volatile uint64_t fault_vector, fault_code, fault_address;
void fault_gp(void);
void fault_pf(void);
void fault_ud(void);
__asm__(".text\n"
	"fault_ud:\n"
	"	push $0\n"
	"	movq $6, fault_vector\n"
	"	jmp fault_common\n"
	"fault_gp:\n"
	"	movq $13, fault_vector\n"
	"	jmp fault_common\n"
	"fault_pf:\n"
	"	movq $14, fault_vector\n"
	"fault_common:\n"
	"	pop %rcx\n"
	"	mov %rcx, fault_code\n"
	"	mov %cr2, %rcx\n"
	"	mov %rcx, fault_address\n"
	"	mov %rbx, (%rsp)\n"
	"	iretq\n");

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, zero;
};
static struct gate idt[32] __attribute__((aligned(16)));

static void set_gate(unsigned vector, void (*handler)(void))
{
	uint64_t offset = (uint64_t)handler;
	uint16_t selector;

	__asm__ volatile("mov %%cs, %0" : "=r"(selector));
	idt[vector] = (struct gate){
		.offset_low = (uint16_t)offset,
		.selector = selector,
		.type = 0x8e,
		.offset_middle = (uint16_t)(offset >> 16),
		.offset_high = (uint32_t)(offset >> 32),
	};
}

static void set_gates(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) descriptor = { sizeof(idt) - 1, (uint64_t)idt };

	set_gate(6, fault_ud);
	set_gate(13, fault_gp);
	set_gate(14, fault_pf);
	__asm__ volatile("lidt %0" : : "m"(descriptor));
}

/* Executes it; what it raises is in fault_vector, 0: nothing. */
#define TRY(instruction, pointer, features)                                  \
	do {                                                                 \
		fault_vector = 0;                                            \
		__asm__ volatile("lea 1f(%%rip), %%rbx\n" instruction "\n1:" \
				 :                                           \
				 : "D"(pointer), "a"(features), "d"(0)       \
				 : "rbx", "rcx", "memory");                  \
	} while (0)
#define XSAVE(pointer, features)  TRY("xsave64 (%%rdi)", pointer, features)
#define XRSTOR(pointer, features) TRY("xrstor64 (%%rdi)", pointer, features)

static uint64_t read_cr4(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}

static void write_cr4(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

static uint64_t read_cr3(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr3, %0" : "=r"(value));
	return value;
}

static uint64_t *at(struct area *area, unsigned offset)
{
	return (uint64_t *)(area->bytes + offset);
}

static void fill(struct area *area, uint64_t seed)
{
	for (unsigned i = 0; i < 256; i += 8) {
		*at(area, XMM0 + i) = seed + i;
		*at(area, AVX_OFFSET + i) = ~seed - i;
	}
	*at(area, 0) = 0x37f;
	*at(area, MXCSR) = 0x1f80;
	*at(area, XSTATE_BV) = X87 | SSE | AVX;
	*at(area, XSTATE_BV + 8) = 0;
	*at(area, XSTATE_BV + 16) = 0;
}

static int holds(struct area *area, uint64_t seed)
{
	for (unsigned i = 0; i < 256; i += 8) {
		if (*at(area, XMM0 + i) != seed + i || *at(area, AVX_OFFSET + i) != ~seed - i) {
			return 0;
		}
	}
	return (*at(area, XSTATE_BV) & (SSE | AVX)) == (SSE | AVX);
}

/* Splits the 2 MiB page that the areas are in, so that their pages can be taken away. */
static void split_page(void)
{
	uint64_t address = (uint64_t)&first & ~(uint64_t)(LARGE_2M - 1);
	uint64_t *pdpt = (uint64_t *)(*(uint64_t *)read_cr3() & ~0xfffull);
	uint64_t *directory = (uint64_t *)(pdpt[0] & ~0xfffull);

	for (unsigned i = 0; i < 512; i++) {
		page_table[i] = (address + (uint64_t)i * PAGE_4K) | PTE_DEFAULT;
	}
	directory[address / LARGE_2M] = (uint64_t)page_table | PTE_DEFAULT;
	__asm__ volatile("mov %0, %%cr3" : : "r"(read_cr3()) : "memory");
}

static void set_page(void *page, uint64_t flags)
{
	uint64_t address = (uint64_t)page;

	page_table[address / PAGE_4K % 512] = address | flags;
	__asm__ volatile("mov %0, %%cr3" : : "r"(read_cr3()) : "memory");
}

static uint32_t check_contents(void)
{
	fill(&first, 0x0123456789abcd00);
	fill(&second, 0xfedcba9876543200);
	XRSTOR(&first, X87 | SSE | AVX);
	XSAVE(&third, X87 | SSE | AVX);
	if (fault_vector || !holds(&third, 0x0123456789abcd00)) {
		return 10;
	}
	/* Only what is asked for comes, and goes. */
	XRSTOR(&second, SSE);
	XSAVE(&third, AVX);
	if (!holds(&third, 0x0123456789abcd00)) {
		return 11;
	}
	XRSTOR(&second, X87 | SSE | AVX);
	XSAVE(&third, X87 | SSE | AVX);
	if (!holds(&third, 0xfedcba9876543200)) {
		return 12;
	}
	/* What the header does not have gets its initial state. */
	*at(&first, XSTATE_BV) = SSE;
	XRSTOR(&first, X87 | SSE | AVX);
	XSAVE(&third, X87 | SSE | AVX);
	if (*at(&third, AVX_OFFSET) != 0 || *at(&third, XMM0) != 0x0123456789abcd00 ||
	    (*at(&third, XSTATE_BV) & (SSE | AVX)) != SSE || (uint16_t)*at(&third, 0) != 0x37f) {
		return 13;
	}
	return 0;
}

static uint32_t check_protection(void)
{
	fill(&first, 1);
	XRSTOR(first.bytes + 8, SSE);
	if (fault_vector != 13 || fault_code != 0) {
		return 20;
	}
	*at(&first, XSTATE_BV) = UINT64_C(1) << 62;
	XRSTOR(&first, SSE);
	if (fault_vector != 13) {
		return 21;
	}
	fill(&first, 1);
	*at(&first, XSTATE_BV + 8) = 1;
	XRSTOR(&first, SSE);
	if (fault_vector != 13) {
		return 22;
	}
	fill(&first, 1);
	*at(&first, MXCSR) = 0x80000000;
	XRSTOR(&first, SSE);
	if (fault_vector != 13) {
		return 23;
	}
	XSAVE((void *)0x8000000000000000, SSE);
	if (fault_vector != 13) {
		return 24;
	}
	return 0;
}

/* Which byte of the page it was is the CPU's choice. */
static uint64_t fault_page(void)
{
	return fault_address & ~(uint64_t)(PAGE_4K - 1);
}

static uint32_t check_paging(void)
{
	/* Crosses into the second page with its AVX part. */
	struct area *crossing = (struct area *)(third.bytes + PAGE_4K - 576);
	uint64_t boundary = (uint64_t)third.bytes + PAGE_4K;

	split_page();
	fill(&first, 0x1111111111111100);
	XRSTOR(&first, X87 | SSE | AVX);
	set_page(third.bytes + PAGE_4K, 0);
	XSAVE(crossing, X87 | SSE | AVX);
	if (fault_vector != 14 || fault_code != 2 || fault_page() != boundary) {
		return 30;
	}
	set_page(third.bytes + PAGE_4K, 1);
	XSAVE(crossing, X87 | SSE | AVX);
	if (fault_vector != 14 || fault_code != 3 || fault_page() != boundary) {
		return 31;
	}
	set_page(third.bytes + PAGE_4K, PTE_DEFAULT);
	XSAVE(crossing, X87 | SSE | AVX);
	if (fault_vector || !holds(crossing, 0x1111111111111100)) {
		return 32;
	}
	set_page(&first, 0);
	XRSTOR(&first, X87 | SSE | AVX);
	if (fault_vector != 14 || fault_code != 0 || fault_page() != (uint64_t)&first) {
		return 33;
	}
	set_page(&first, 1);
	XRSTOR(&first, X87 | SSE | AVX);
	return fault_vector ? 34 : 0;
}

/* CR0: no EM or TS; writes obey read-only pages. CR4: OSFXSR, OSXMMEXCPT, OSXSAVE. */
static uint32_t enable(void)
{
	uint64_t cr0;

	__asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
	cr0 = (cr0 & ~UINT64_C(0xc)) | 0x10002;
	__asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
	XSAVE(&third, SSE);
	if (fault_vector != 6) {
		return 1;
	}
	write_cr4(read_cr4() | 0x40600);
	if (!(read_cr4() & 0x40000)) {
		return 2;
	}
	__asm__ volatile("xsetbv" : : "a"(X87 | SSE | AVX), "d"(0), "c"(0));
	return 0;
}

uint32_t guest_main(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx, result;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if ((ecx & (1u << 26 | 1u << 28)) != (1u << 26 | 1u << 28)) {
		print("no AVX\n");
		return 0;
	}
	set_gates();
	result = enable();
	if (result == 0) {
		result = check_contents();
	}
	if (result == 0) {
		result = check_protection();
	}
	if (result == 0) {
		result = check_paging();
	}
	if (result == 0) {
		print("xsave ok\n");
	}
	return result;
}
