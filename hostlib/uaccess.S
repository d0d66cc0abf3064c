/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uaccess.S - copies from and to memory that the program named, which may not be there. A fault anywhere between
 * sc_uaccess_start and sc_uaccess_end is sent by the SIGSEGV or SIGBUS handler to sc_uaccess_fault, which returns -EFAULT
 * to the caller: so these functions are leaves and leave the stack alone.
 */
	.text
	.balign 64
	.globl sc_uaccess_start
	.hidden sc_uaccess_start
sc_uaccess_start:

/* long sc_copy_*_user(dst, src, len): 0 or -EFAULT */
	.globl sc_copy_from_user
	.hidden sc_copy_from_user
	.type sc_copy_from_user, @function
	.globl sc_copy_to_user
	.hidden sc_copy_to_user
	.type sc_copy_to_user, @function
sc_copy_from_user:
sc_copy_to_user:
	cmp $256, %rdx
	jae 3f
	cmp $8, %rdx
	jb 4f
	mov -8(%rsi, %rdx), %rax	/* the last 8 bytes, overlapping the loop's; stored last */
	mov %rdx, %rcx
	mov %rdi, %r8
1:	mov (%rsi), %r9
	mov %r9, (%rdi)
	add $8, %rsi
	add $8, %rdi
	sub $8, %rcx
	cmp $8, %rcx
	jae 1b
	mov %rax, -8(%r8, %rdx)
	xor %eax, %eax
	ret
3:	mov %rdx, %rcx
	rep movsb
	xor %eax, %eax
	ret
4:	test %rdx, %rdx
	jz 6f
	xor %ecx, %ecx
5:	movzbl (%rsi, %rcx), %eax
	mov %al, (%rdi, %rcx)
	inc %rcx
	cmp %rdx, %rcx
	jb 5b
6:	xor %eax, %eax
	ret
	.size sc_copy_from_user, . - sc_copy_from_user
	.size sc_copy_to_user, . - sc_copy_to_user

/*
 * long sc_copy_to_arena(dst, src, len): the same into shared memory. Its lines were read last by the agent's CPU, and ordinary
 * stores would wait for each of them to be given up there, which takes several times what the copy does. Stores past the cache
 * do not; the fence makes them visible before whatever is published next. Less than 32 KiB is there sooner by way of the
 * caches where the two CPUs are near each other.
 */
	.globl sc_copy_to_arena
	.hidden sc_copy_to_arena
	.type sc_copy_to_arena, @function
sc_copy_to_arena:
	cmp $32768, %rdx
	jb sc_copy_from_user
	test $63, %dil		/* whole lines only: others would be written in parts */
	jnz sc_copy_from_user
	mov %rdx, %rcx
	shr $6, %rcx
1:	mov (%rsi), %rax
	mov 8(%rsi), %r8
	mov 16(%rsi), %r9
	mov 24(%rsi), %r10
	movnti %rax, (%rdi)
	movnti %r8, 8(%rdi)
	movnti %r9, 16(%rdi)
	movnti %r10, 24(%rdi)
	mov 32(%rsi), %rax
	mov 40(%rsi), %r8
	mov 48(%rsi), %r9
	mov 56(%rsi), %r10
	movnti %rax, 32(%rdi)
	movnti %r8, 40(%rdi)
	movnti %r9, 48(%rdi)
	movnti %r10, 56(%rdi)
	add $64, %rsi
	add $64, %rdi
	dec %rcx
	jnz 1b
	sfence
	and $63, %edx
	jmp sc_copy_from_user
	.size sc_copy_to_arena, . - sc_copy_to_arena

/* long sc_strnlen_user(s, max). Aligned words never cross into a page that the string does not reach. */
	.globl sc_strnlen_user
	.hidden sc_strnlen_user
	.type sc_strnlen_user, @function
sc_strnlen_user:
	xor %eax, %eax
	movabs $0x0101010101010101, %r8
	movabs $0x8080808080808080, %r9
1:	cmp %rsi, %rax
	jae 4f
	lea (%rdi, %rax), %rcx
	test $7, %cl
	jz 2f
	cmpb $0, (%rcx)
	je 4f
	inc %rax
	jmp 1b
2:	mov (%rdi, %rax), %rcx	/* aligned from here on */
	mov %rcx, %rdx
	sub %r8, %rdx
	not %rcx
	and %rcx, %rdx
	and %r9, %rdx		/* lowest set bit: the first NUL */
	jnz 3f
	add $8, %rax
	cmp %rsi, %rax
	jb 2b
	mov %rsi, %rax
	ret
3:	bsf %rdx, %rdx
	shr $3, %rdx
	add %rdx, %rax
	cmp %rsi, %rax
	cmova %rsi, %rax
4:	ret
	.size sc_strnlen_user, . - sc_strnlen_user

	.globl sc_uaccess_end
	.hidden sc_uaccess_end
sc_uaccess_end:

	.globl sc_uaccess_fault
	.hidden sc_uaccess_fault
sc_uaccess_fault:
	mov $-14, %rax
	ret

	.section .note.GNU-stack, "", @progbits
