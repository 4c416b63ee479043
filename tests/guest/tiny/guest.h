/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What every tiny guest uses: ports, the serial port, MSRs, interrupts, the mailbox.
 *
 * A tiny guest is a static ELF file at 1 MiB that is booted like a kernel: long mode, identity map
 * of 4 GiB, interrupts off, rsi = zero page. guest_main() is called on a stack of its own; when it
 * returns, the VM ends with the value as exit code. On kvm-pvm every instruction here is
 * interpreted: keep loops short.
 */

#include <stdint.h>

#define PORT_SERIAL 0x3f8
#define PORT_EXIT   0xf4

/* A page that the host may write while the guest's memory is its own: word 0 is the "go" flag that
 * a guest waits for after its snapshot, word 1 a parameter. */
#define MAILBOX_GPA 0x90000
struct mailbox {
	volatile uint32_t go;
	volatile uint32_t parameter;
};
#define mailbox ((struct mailbox *)MAILBOX_GPA)

#define MSR_APIC_BASE	 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_EOI	 0x80b
#define MSR_X2APIC_SPIV	 0x80f
#define MSR_X2APIC_ICR	 0x830
#define MSR_X2APIC_LVTT	 0x832
#define MSR_X2APIC_SELF	 0x83f
#define LVTT_DEADLINE	 (2u << 17)

uint32_t guest_main(void);
/* Called by the guest of identity.c. */
void agent_work(uint8_t *payload, uint32_t length);

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t rdmsr(uint32_t index)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void print(const char *text)
{
	while (*text) {
		outb(PORT_SERIAL, (uint8_t)*text++);
	}
}

static inline void print_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4) {
		outb(PORT_SERIAL, (uint8_t) "0123456789abcdef"[value >> shift & 15]);
	}
}

static inline void wait_for_go(void)
{
	while (!mailbox->go) {
		__asm__ volatile("pause");
	}
}

/* --- interrupts: vectors 0x40 to 0x47 count themselves --- */

#define VECTOR_FIRST 0x40
#define VECTORS	     8
extern volatile uint32_t interrupt_count[VECTORS];

/* IDT and x2APIC; interrupts stay off. */
void interrupts_init(void);

/* --- exceptions --- */

/* Gates for all of them, and for NMIs, which are counted. An exception that is not expected ends
 * the guest with 99. */
void exceptions_init(void);
extern volatile uint32_t nmi_count;
extern void (*exception_resume)(void);
extern uint64_t exception_stack;

/* Runs instructions of which one may raise an exception; true when one did. Operands may be in
 * registers only: the stack is where it was, the registers are not. */
#define RAISES(instructions, ...)                                                        \
	({                                                                               \
		uint32_t raises_;                                                        \
		void (*resume_before_)(void) = exception_resume;                         \
		uint64_t stack_before_ = exception_stack;                                \
		__asm__ volatile("mov %%rsp, exception_stack(%%rip)\n"                   \
				 "movq $1f, exception_resume(%%rip)\n" instructions "\n" \
				 "movl $0, raises_outcome(%%rip)\n"                      \
				 "jmp 2f\n"                                              \
				 "1: movl $1, raises_outcome(%%rip)\n"                   \
				 "2:\n"                                                  \
				 :                                                       \
				 : __VA_ARGS__                                           \
				 : "memory", "cc");                                      \
		raises_ = raises_outcome;                                                \
		exception_resume = resume_before_;                                       \
		exception_stack = stack_before_;                                         \
		raises_;                                                                 \
	})
extern uint32_t raises_outcome;

static inline uint32_t wrmsr_raises(uint32_t index, uint64_t value)
{
	return RAISES("wrmsr", "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint32_t rdmsr_raises(uint32_t index)
{
	return RAISES("push %%rax; push %%rdx; rdmsr; pop %%rdx; pop %%rax", "c"(index));
}

/* Lets interrupts in and halts until vector has come more than `seen` times. */
static inline void halt_until(unsigned vector, uint32_t seen)
{
	for (;;) {
		__asm__ volatile("cli");
		if (interrupt_count[vector - VECTOR_FIRST] > seen) {
			return;
		}
		/* sti lets interrupts in only after the next instruction: none is lost. */
		__asm__ volatile("sti; hlt");
	}
}
