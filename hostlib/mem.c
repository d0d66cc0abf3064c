/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mem.c - the memory functions that the compiler may call, and we do; hidden, so that they are not
 * libc's and nobody else's. No vector registers. What is small is moved by words, because `rep`
 * string instructions take long to begin; from SMALL bytes on they are the fastest on every
 * processor with ERMS.
 */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t len);
void *memmove(void *dst, const void *src, size_t len);
void *memset(void *dst, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *s);

#define SMALL 256

/* Words at any address, of any type. */
typedef uint64_t __attribute__((may_alias, aligned(1))) word;

/* 8 to SMALL bytes; the last word overlaps the one before it. The empty asm keeps these loops from becoming calls of the
 * very functions that they are part of. */
static inline void copy_words(uint8_t *d, const uint8_t *s, size_t len)
{
	word last = *(const word *)(s + len - 8);

	for (size_t i = 0; i + 8 < len; i += 8) {
		*(word *)(d + i) = *(const word *)(s + i);
		__asm__ volatile("" : : : "memory");
	}
	*(word *)(d + len - 8) = last;
}

static inline void fill_words(uint8_t *d, uint64_t value, size_t len)
{
	for (size_t i = 0; i + 8 < len; i += 8) {
		*(word *)(d + i) = value;
		__asm__ volatile("" : : : "memory");
	}
	*(word *)(d + len - 8) = value;
}

__attribute__((visibility("hidden"), section(".text.hot.sc"))) void *
memcpy(void *restrict dst, const void *restrict src, size_t len)
{
	void *d = dst;

	if (len >= 8 && len < SMALL) {
		copy_words(dst, src, len);
		return dst;
	}
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

__attribute__((visibility("hidden"), section(".text.hot.sc"))) void *memset(void *dst, int byte,
									    size_t len)
{
	void *d = dst;

	if (len >= 8 && len < SMALL) {
		fill_words(dst, 0x0101010101010101ull * (uint8_t)byte, len);
		return dst;
	}
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
