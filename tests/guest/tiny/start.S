/* SPDX-License-Identifier: Apache-2.0 */

/* Entry of every tiny guest, and the interrupt stubs. */

	.text
	.globl	_start
_start:
	leaq	stack_top(%rip), %rsp
	xorl	%ebp, %ebp
	call	guest_main
	outb	%al, $0xf4
1:	hlt
	jmp	1b

	.macro	stub number
	.balign	32
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	incl	interrupt_count + 4 * \number(%rip)
	xorl	%eax, %eax
	xorl	%edx, %edx
	movl	$0x80b, %ecx
	wrmsr
	popq	%rdx
	popq	%rcx
	popq	%rax
	iretq
	.endm

	.balign	32
	.globl	interrupt_stubs
interrupt_stubs:
	stub	0
	stub	1
	stub	2
	stub	3
	stub	4
	stub	5
	stub	6
	stub	7

	.bss
	.balign	16
	.skip	16384
stack_top:

	.section .note.GNU-stack, "", @progbits
