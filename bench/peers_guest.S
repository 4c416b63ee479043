/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The guest that bench-peers gives QEMU: the least that can show that it runs.
 *
 * Entered by PVH, in 32-bit protected mode without paging. Writes 'R' to the first serial port, for
 * ever: the first one after a restore says that the guest goes on.
 */

	.section .note.pvh, "a", @note
	.align	4
	.long	4, 4, 18	/* sizes of name and descriptor, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start

	.code32
	.text
	.globl	_start
_start:
	movl	$0x3f8, %edx
	movb	$'R', %al
1:	outb	%al, %dx
	pause
	jmp	1b

	.section .note.GNU-stack, "", @progbits
