/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * json.h - the little JSON that ctl.sock needs: writing objects into a growing buffer, and looking
 * up members of a small object that was received.
 */
#ifndef VHOST_SC_JSON_H
#define VHOST_SC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *text; /* owned; NUL-terminated once anything was written */
	size_t len;
	size_t cap;
	bool failed; /* out of memory: the text is not complete */
	bool comma;  /* something precedes in this object or array */
};

/* Each writer takes the member's name, or NULL for an element of an array or the outermost value.
 */
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_end_object(struct json *j);
void json_end_array(struct json *j);
void json_u64(struct json *j, const char *key, uint64_t v);
void json_i64(struct json *j, const char *key, int64_t v);
void json_double(struct json *j, const char *key, double v);
void json_bool(struct json *j, const char *key, bool v);

/* Text of any bytes: those that are not printable ASCII are escaped. NULL becomes null. */
void json_string(struct json *j, const char *key, const char *v);

/* `raw` is valid JSON already. */
void json_raw(struct json *j, const char *key, const char *raw, size_t len);

void json_free(struct json *j);

/* A piece of received text. */
struct json_slice {
	const char *at;
	size_t len;
};

/* True if text is one valid JSON value (at most JSON_DEPTH levels deep) with nothing but blanks
 * after. */
bool json_valid(const char *text, size_t len);
#define JSON_DEPTH 16

/* Finds a member of the object in text, which json_valid() accepted. */
bool json_member(const char *text, size_t len, const char *key, struct json_slice *value);

/* A string value without escapes into buf. Returns false if it is no such string or does not fit.
 */
bool json_text(const struct json_slice *value, char *buf, size_t cap);

#endif
