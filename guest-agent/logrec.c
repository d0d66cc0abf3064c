/* SPDX-License-Identifier: BSD-3-Clause */
/* logrec.c - see logrec.h. */
#include "logrec.h"

#include "crc32c.h"

#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#define AGAIN_VALID (1ull << 32)
#define NAME_BYTES  255u
#define LINK_BYTES  4096u  /* a symbolic link's text */
#define VALUE_BYTES 65536u /* an attribute's */

static bool knows_later(const struct sc_log_rec *rec)
{
	return rec->kind == SC_LOG_CREATE || rec->kind == SC_LOG_CHMOD ||
	       rec->kind == SC_LOG_CHOWN || rec->kind == SC_LOG_UTIMENS;
}

/* A copy of the header, without what is known later. */
static struct sc_log_rec fixed(const struct sc_log_rec *rec)
{
	struct sc_log_rec r;

	memcpy(&r, rec, sizeof(r));
	if (r.kind == SC_LOG_UTIMENS)
		r.off = r.size = 0;
	if (r.kind == SC_LOG_CREATE || r.kind == SC_LOG_CHOWN)
		r.uid = r.gid = 0;
	if (knows_later(rec))
		r.mode = 0;
	if (r.kind == SC_LOG_CREATE) {
		memset(&r.obj, 0, sizeof(r.obj));
		memset(&r.obj2, 0, sizeof(r.obj2));
	}
	return r;
}

uint32_t logrec_check(const struct sc_log_rec *rec)
{
	const struct sc_log_rec r = fixed(rec);
	uint32_t crc = crc32c(0, &r, offsetof(struct sc_log_rec, state));

	crc = crc32c(crc, &r.call, sizeof(r.call));
	crc = crc32c(crc, &r.flags,
		     offsetof(struct sc_log_rec, done_check) - offsetof(struct sc_log_rec, flags));
	crc = crc32c(crc, &r.obj, sizeof(r) - offsetof(struct sc_log_rec, obj));
	return crc32c(crc, rec->body, (size_t)rec->name_len + rec->name2_len);
}

uint64_t logrec_done_check(const struct sc_log_rec *rec)
{
	uint32_t crc;

	if (!knows_later(rec))
		return 0;
	crc = crc32c(0, &rec->off, 16);
	crc = crc32c(crc, &rec->mode, 12);
	return crc32c(crc, &rec->obj, sizeof(rec->obj));
}

uint64_t logrec_again_check(const struct sc_log_rec *rec)
{
	return crc32c(0, &rec->obj2, sizeof(rec->obj2)) | AGAIN_VALID;
}

uint32_t logrec_header_check(const struct sc_log *log)
{
	return crc32c(0, log, offsetof(struct sc_log, check));
}

const char *logrec_header(const struct sc_log *log, uint64_t size, uint64_t *head, uint64_t *synced,
			  uint64_t *tail)
{
	if (size < SC_LOG_BEGIN + 64)
		return "the segment is too small for a log";
	if (__atomic_load_n(&log->magic, __ATOMIC_ACQUIRE) != SC_LOG_MAGIC)
		return "no log (magic)";
	if (log->version != SC_LOG_VERSION)
		return "a log of another version";
	if (log->check != logrec_header_check(log))
		return "the header's checksum";
	if (!log->ring || log->ring % 64 || log->ring > size - SC_LOG_BEGIN)
		return "the ring's length";
	*tail = __atomic_load_n(&log->tail, __ATOMIC_ACQUIRE);
	*synced = __atomic_load_n(&log->synced, __ATOMIC_ACQUIRE);
	*head = __atomic_load_n(&log->head, __ATOMIC_ACQUIRE);
	if (*tail % 64 || *synced % 64 || *head % 64 || *synced > *tail || *head > *synced ||
	    *tail - *head > log->ring)
		return "head, synced and tail do not fit together";
	return NULL;
}

bool logrec_name_ok(const uint8_t *name, uint32_t len)
{
	if (!len || len > NAME_BYTES || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static bool fid_ok(const struct sc_fid *fid)
{
	return fid->len <= SC_FID_MAX;
}

/* The names that a kind has, in `obj`'s directory or as an attribute's. */
static const char *judge_names(const struct sc_log_rec *rec)
{
	const uint8_t *name = rec->body;

	switch (rec->kind) {
	case SC_LOG_CREATE:
		if (rec->flags & SC_LOG_F_ANON)
			return rec->name_len || rec->name2_len ? "a name too many" : NULL;
		/* fallthrough */
	case SC_LOG_LINK:
	case SC_LOG_UNLINK:
		if (!logrec_name_ok(name, rec->name_len) || rec->name2_len)
			return "an impossible name";
		return rec->dir.len ? NULL : "no directory";
	case SC_LOG_RENAME:
		if (!logrec_name_ok(name, rec->name_len) ||
		    !logrec_name_ok(name + rec->name_len, rec->name2_len))
			return "an impossible name";
		return rec->dir.len && rec->dir2.len ? NULL : "no directory";
	case SC_LOG_SETXATTR:
	case SC_LOG_REMOVEXATTR:
		if (!rec->name_len || rec->name_len > NAME_BYTES || rec->name2_len ||
		    memchr(name, 0, rec->name_len))
			return "an attribute's impossible name";
		return NULL;
	default:
		return rec->name_len || rec->name2_len ? "a name too many" : NULL;
	}
}

static const char *judge_data(const struct sc_log_rec *rec)
{
	switch (rec->kind) {
	case SC_LOG_WRITE:
		if (rec->data_len != rec->size)
			return "data of another length";
		/* fallthrough */
	case SC_LOG_FALLOCATE:
		return rec->off > INT64_MAX || rec->size > INT64_MAX - rec->off
			   ? "an impossible range"
			   : NULL;
	case SC_LOG_TRUNCATE:
		return rec->size > INT64_MAX ? "an impossible size" : NULL;
	case SC_LOG_CREATE:
		return S_ISLNK(rec->mode) && (!rec->data_len || rec->data_len >= LINK_BYTES)
			   ? "a link's impossible text"
			   : NULL;
	case SC_LOG_SETXATTR:
		return rec->data_len > VALUE_BYTES ? "an attribute's impossible value" : NULL;
	default:
		return NULL;
	}
}

static const char *judge(const struct sc_log_rec *rec)
{
	const char *wrong;

	if (rec->kind >= SC_LOG_KINDS || rec->state > SC_LOG_FAILED)
		return "an unknown kind or state";
	if (SC_LOG_DATA(rec) + (uint64_t)rec->data_len > rec->len)
		return "longer inside than outside";
	if (rec->check != logrec_check(rec))
		return "its checksum";
	if (rec->state == SC_LOG_DONE && rec->done_check != logrec_done_check(rec))
		return "its second checksum";
	if (!fid_ok(&rec->obj) || !fid_ok(&rec->dir) || !fid_ok(&rec->obj2) || !fid_ok(&rec->dir2))
		return "an impossible file identity";
	if (rec->state == SC_LOG_DONE && !rec->obj.len)
		return "no file";
	wrong = judge_names(rec);
	return wrong ? wrong : judge_data(rec);
}

struct sc_log_rec *logrec_at(struct sc_log *log, uint64_t at, uint64_t tail, const char **wrong)
{
	uint64_t place = at % log->ring;
	struct sc_log_rec *rec = (void *)((uint8_t *)log + SC_LOG_BEGIN + place);
	uint64_t least = rec->kind == SC_LOG_PAD ? 64 : sizeof(*rec);

	*wrong = NULL;
	/* All lengths are multiples of 64, so that seq, len, kind and state of what is announced are within. */
	if (rec->seq != at)
		*wrong = "no record";
	else if (rec->len < least || rec->len % 64 || rec->len > log->ring - place ||
		 rec->len > tail - at)
		*wrong = "its length";
	else if (rec->kind != SC_LOG_PAD &&
		 __atomic_load_n(&rec->state, __ATOMIC_ACQUIRE) != SC_LOG_EMPTY)
		*wrong = judge(rec);
	return *wrong ? NULL : rec;
}
