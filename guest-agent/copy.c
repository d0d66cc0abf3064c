/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.c - see copy.h. */
#include "copy.h"

#include <cpuid.h>
#include <emmintrin.h>
#include <stdint.h>
#include <string.h>

#define LINE 64u

bool copy_pays(void)
{
	static const char tcg[] =
	    "TCGTCGTCGTCG"; /* QEMU's emulator, where a hypervisor gives its name */
	unsigned int eax, regs[3];

	__cpuid(1, eax, regs[0], regs[1], regs[2]);
	if (!(regs[1] >> 31)) /* no hypervisor */
		return true;
	__cpuid(0x40000000, eax, regs[0], regs[1], regs[2]);
	return memcmp(regs, tcg, sizeof(regs));
}

void copy_to_arena(void *to, const void *from, size_t n)
{
	const char *s = from;
	char *d = to;
	size_t head = -(uintptr_t)d & (LINE - 1);

	if (n < LINE + head) {
		memcpy(d, s, n);
		return;
	}
	memcpy(d, s, head); /* whole lines only: others would be written in parts */
	d += head;
	s += head;
	for (n -= head; n >= LINE; n -= LINE, d += LINE, s += LINE) {
		__m128i a = _mm_loadu_si128((const __m128i *)s);
		__m128i b = _mm_loadu_si128((const __m128i *)(s + 16));
		__m128i e = _mm_loadu_si128((const __m128i *)(s + 32));
		__m128i f = _mm_loadu_si128((const __m128i *)(s + 48));

		_mm_stream_si128((__m128i *)d, a);
		_mm_stream_si128((__m128i *)(d + 16), b);
		_mm_stream_si128((__m128i *)(d + 32), e);
		_mm_stream_si128((__m128i *)(d + 48), f);
	}
	memcpy(d, s, n);
	_mm_sfence(); /* such stores are not ordered with those that publish */
}
