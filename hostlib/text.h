/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * text.h - putting text together in a buffer, without libc. What does not fit is cut off, and `at` is then equal to `end`.
 */
#ifndef HOSTLIB_TEXT_H
#define HOSTLIB_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sc_text {
	char *at;
	char *end;
};

static inline void sc_put(struct sc_text *x, const char *s, size_t n)
{
	if ((size_t)(x->end - x->at) <= n) {
		x->at = x->end;
		return;
	}
	memcpy(x->at, s, n);
	x->at += n;
}

static inline void sc_put_str(struct sc_text *x, const char *s)
{
	sc_put(x, s, strlen(s));
}

/* base: 8, 10 or 16. At least `width` digits. */
static inline void sc_put_number(struct sc_text *x, uint64_t v, unsigned base, int width)
{
	char digits[24];
	int n = sizeof(digits);

	do
		digits[--n] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (n > 0 && (int)sizeof(digits) - n < width)
		digits[--n] = '0';
	sc_put(x, digits + n, sizeof(digits) - (size_t)n);
}

static inline void sc_put_dec(struct sc_text *x, uint64_t v)
{
	sc_put_number(x, v, 10, 1);
}

static inline void sc_put_signed(struct sc_text *x, int64_t v)
{
	if (v < 0)
		sc_put(x, "-", 1);
	sc_put_dec(x, v < 0 ? -(uint64_t)v : (uint64_t)v);
}

static inline void sc_put_hex(struct sc_text *x, uint64_t v, char after)
{
	sc_put_number(x, v, 16, 1);
	sc_put(x, &after, 1);
}

#endif
