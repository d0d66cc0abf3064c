/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mem.c - the memory functions that the compiler may call, and we do; hidden, so that they are not
 * libc's and nobody else's. `rep` string instructions: short, no vector register, and fast on every
 * processor with ERMS.
 */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t len);
void *memmove(void *dst, const void *src, size_t len);
void *memset(void *dst, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *s);

__attribute__((visibility("hidden"))) void *memcpy(void *restrict dst, const void *restrict src,
						   size_t len)
{
	void *d = dst;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(len) : : "memory");
	return dst;
}

__attribute__((visibility("hidden"))) void *memmove(void *dst, const void *src, size_t len)
{
	uint8_t *d = dst;
	const uint8_t *s = src;

	if (d <= s || d >= s + len)
		return memcpy(dst, src, len);
	while (len--) {
		d[len] = s[len];
		__asm__ volatile("" : : : "memory"); /* or this becomes a call of memmove */
	}
	return dst;
}

__attribute__((visibility("hidden"))) void *memset(void *dst, int byte, size_t len)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(len) : "a"(byte) : "memory");
	return dst;
}

__attribute__((visibility("hidden"))) int memcmp(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a;
	const uint8_t *y = b;

	for (size_t i = 0; i < len; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

__attribute__((visibility("hidden"))) size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n]) {
		n++;
		__asm__ volatile("" : : : "memory");
	}
	return n;
}
