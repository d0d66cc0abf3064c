/* SPDX-License-Identifier: BSD-3-Clause */
/* json.c - see json.h. The reader is a recursive descent over the text, without copies. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static void put(struct json *j, const char *text, size_t len)
{
	if (j->failed)
		return;
	if (j->cap - j->len < len + 1) {
		size_t cap = j->cap ? j->cap : 1024;
		char *bigger;

		while (cap - j->len < len + 1)
			cap *= 2;
		bigger = realloc(j->text, cap);
		if (!bigger) {
			j->failed = true;
			return;
		}
		j->text = bigger;
		j->cap = cap;
	}
	memcpy(j->text + j->len, text, len);
	j->len += len;
	j->text[j->len] = '\0';
}

static void put_string(struct json *j, const char *v)
{
	char code[8];

	put(j, "\"", 1);
	for (; *v; v++) {
		unsigned char c = (unsigned char)*v;

		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
			put(j, v, 1);
			continue;
		}
		snprintf(code, sizeof(code), "\\u%04x", c);
		put(j, code, 6);
	}
	put(j, "\"", 1);
}

static void begin(struct json *j, const char *key)
{
	if (j->comma)
		put(j, ",", 1);
	j->comma = true;
	if (!key)
		return;
	put_string(j, key);
	put(j, ":", 1);
}

void json_object(struct json *j, const char *key)
{
	begin(j, key);
	put(j, "{", 1);
	j->comma = false;
}

void json_array(struct json *j, const char *key)
{
	begin(j, key);
	put(j, "[", 1);
	j->comma = false;
}

void json_end_object(struct json *j)
{
	put(j, "}", 1);
	j->comma = true;
}

void json_end_array(struct json *j)
{
	put(j, "]", 1);
	j->comma = true;
}

void json_u64(struct json *j, const char *key, uint64_t v)
{
	char text[24];

	begin(j, key);
	put(j, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, v));
}

void json_i64(struct json *j, const char *key, int64_t v)
{
	char text[24];

	begin(j, key);
	put(j, text, (size_t)snprintf(text, sizeof(text), "%" PRId64, v));
}

void json_double(struct json *j, const char *key, double v)
{
	char text[40];

	begin(j, key);
	put(j, text, (size_t)snprintf(text, sizeof(text), "%.6f", v));
}

void json_bool(struct json *j, const char *key, bool v)
{
	begin(j, key);
	if (v)
		put(j, "true", 4);
	else
		put(j, "false", 5);
}

void json_string(struct json *j, const char *key, const char *v)
{
	begin(j, key);
	if (v)
		put_string(j, v);
	else
		put(j, "null", 4);
}

void json_raw(struct json *j, const char *key, const char *raw, size_t len)
{
	begin(j, key);
	put(j, raw, len);
}

void json_free(struct json *j)
{
	free(j->text);
	*j = (struct json){0};
}

struct reader {
	const char *at;
	const char *end;
};

static void blanks(struct reader *r)
{
	while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
		r->at++;
}

static bool take(struct reader *r, char c)
{
	if (r->at >= r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

static bool word(struct reader *r, const char *w)
{
	size_t len = strlen(w);

	if ((size_t)(r->end - r->at) < len || memcmp(r->at, w, len) != 0)
		return false;
	r->at += len;
	return true;
}

static bool string(struct reader *r)
{
	if (!take(r, '"'))
		return false;
	while (r->at < r->end) {
		unsigned char c = (unsigned char)*r->at++;

		if (c == '"')
			return true;
		if (c < 0x20)
			return false;
		if (c != '\\')
			continue;
		if (r->at >= r->end)
			return false;
		c = (unsigned char)*r->at++;
		if (!c || !strchr("\"\\/bfnrtu", c))
			return false;
		if (c != 'u')
			continue;
		for (int i = 0; i < 4; i++) {
			if (r->at >= r->end || !*r->at || !strchr("0123456789abcdefABCDEF", *r->at))
				return false;
			r->at++;
		}
	}
	return false;
}

static bool digits(struct reader *r)
{
	const char *start = r->at;

	while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
		r->at++;
	return r->at > start;
}

static bool number(struct reader *r)
{
	take(r, '-');
	if (!digits(r))
		return false;
	if (take(r, '.') && !digits(r))
		return false;
	if (take(r, 'e') || take(r, 'E')) {
		if (!take(r, '+'))
			take(r, '-');
		return digits(r);
	}
	return true;
}

static bool value(struct reader *r, int depth);

static bool object(struct reader *r, int depth)
{
	blanks(r);
	if (take(r, '}'))
		return true;
	do {
		blanks(r);
		if (!string(r))
			return false;
		blanks(r);
		if (!take(r, ':') || !value(r, depth))
			return false;
	} while (take(r, ','));
	return take(r, '}');
}

static bool array(struct reader *r, int depth)
{
	blanks(r);
	if (take(r, ']'))
		return true;
	do {
		if (!value(r, depth))
			return false;
	} while (take(r, ','));
	return take(r, ']');
}

/* One value with the blanks around it. */
static bool value(struct reader *r, int depth)
{
	bool ok;

	if (depth >= JSON_DEPTH)
		return false;
	blanks(r);
	if (r->at >= r->end)
		return false;
	if (*r->at == '"')
		ok = string(r);
	else if (take(r, '{'))
		ok = object(r, depth + 1);
	else if (take(r, '['))
		ok = array(r, depth + 1);
	else
		ok = word(r, "true") || word(r, "false") || word(r, "null") || number(r);
	blanks(r);
	return ok;
}

bool json_valid(const char *text, size_t len)
{
	struct reader r = {text, text + len};

	return value(&r, 0) && r.at == r.end;
}

bool json_member(const char *text, size_t len, const char *key, struct json_slice *found)
{
	struct reader r = {text, text + len};
	size_t keylen = strlen(key);

	blanks(&r);
	if (!take(&r, '{'))
		return false;
	do {
		const char *name;
		bool match;

		blanks(&r);
		name = r.at + 1;
		if (!string(&r))
			return false;
		match = (size_t)(r.at - 1 - name) == keylen && memcmp(name, key, keylen) == 0;
		blanks(&r);
		if (!take(&r, ':'))
			return false;
		blanks(&r);
		found->at = r.at;
		if (!value(&r, 0))
			return false;
		found->len = (size_t)(r.at - found->at);
		while (found->len && strchr(" \t\r\n", found->at[found->len - 1]))
			found->len--;
		if (match)
			return true;
	} while (take(&r, ','));
	return false;
}

bool json_text(const struct json_slice *v, char *buf, size_t cap)
{
	if (v->len < 2 || v->at[0] != '"' || v->len - 2 >= cap)
		return false;
	if (memchr(v->at, '\\', v->len))
		return false;
	memcpy(buf, v->at + 1, v->len - 2);
	buf[v->len - 2] = '\0';
	return true;
}
