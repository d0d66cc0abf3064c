/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * insn_test.c - the length decoder against Zydis, over all code of the objects named on the command
 * line: same lengths, same branch targets, and whatever Zydis calls relative to %rip or a branch
 * must not be called movable.
 */
#include <Zydis/Zydis.h>
#include <elf.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "insn.h"

static long checked, bad;

static void complain(const char *what, const uint8_t *code, const ZydisDecodedInstruction *z)
{
	if (bad++ > 20)
		return;
	printf("%s: %s, bytes", what, ZydisMnemonicGetString(z->mnemonic));
	for (int i = 0; i < z->length; i++)
		printf(" %02x", code[i]);
	printf("\n");
}

static bool is_branch(const ZydisDecodedInstruction *z)
{
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
		return true;
	default:
		return z->mnemonic == ZYDIS_MNEMONIC_SYSCALL;
	}
}

static void compare(const uint8_t *code, size_t room, const ZydisDecodedInstruction *z,
		    const ZydisDecodedOperand *op)
{
	struct sc_insn mine;

	checked++;
	if (sc_insn_decode(code, room, &mine)) {
		complain("not decoded", code, z);
		return;
	}
	if (mine.length != z->length) {
		complain("length", code, z);
		return;
	}
	if (is_branch(z) &&
	    (mine.kind == SC_INSN_PLAIN || mine.kind == SC_INSN_RIP || mine.kind == SC_INSN_NOP))
		complain("a branch called movable", code, z);
	if (z->mnemonic == ZYDIS_MNEMONIC_SYSCALL && mine.kind != SC_INSN_SYSCALL)
		complain("syscall not seen", code, z);
	if ((z->attributes & ZYDIS_ATTRIB_IS_RELATIVE) && mine.kind == SC_INSN_PLAIN)
		complain("relative called plain", code, z);
	if (mine.kind == SC_INSN_RIP && mine.disp_offset != z->raw.disp.offset)
		complain("displacement", code, z);
	if (mine.kind == SC_INSN_BRANCH) {
		ZyanU64 target = 0;

		if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(z, op, 0x100000000, &target)) ||
		    (int64_t)(target - 0x100000000) != mine.target)
			complain("target", code, z);
	}
}

static void walk(const ZydisDecoder *d, const uint8_t *code, size_t size)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;

	for (size_t at = 0; at < size;) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, code + at, size - at, &z, ops))) {
			at++;
			continue;
		}
		compare(code + at, size - at, &z, ops);
		at += z.length;
	}
}

static void object(const ZydisDecoder *d, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const uint8_t *map;
	const Elf64_Ehdr *elf;
	const Elf64_Phdr *ph;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		printf("%s: not there, skipped\n", path);
		return;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	elf = (const Elf64_Ehdr *)map;
	if (map == MAP_FAILED || memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0)
		return;
	ph = (const Elf64_Phdr *)(map + elf->e_phoff);
	for (int i = 0; i < elf->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && (ph[i].p_flags & PF_X))
			walk(d, map + ph[i].p_offset, ph[i].p_filesz);
	munmap((void *)map, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
	ZydisDecoder d;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (int i = 1; i < argc; i++)
		object(&d, argv[i]);
	printf("%ld instructions, %ld differences\n", checked, bad);
	return bad || !checked;
}
