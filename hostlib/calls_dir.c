// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_dir.c - reading directories: getdents64, getdents.
 *
 * The agent fills records of its own form (struct sc_dirent), each at least as long as the kernel's
 * two forms of the same entry. So what was read into a buffer as large as the program's always fits
 * when converted, in place. Only if the program's buffer is smaller than the longest possible
 * record, more is read than may fit; then the directory's position is set back to the first entry
 * that was not delivered.
 *
 * Records are copied out of the channel before they are looked at (sc_file_call()), and checked one
 * by one.
 */
#include <dirent.h>

#include "calls.h"

#define RECORD_MAX 280u /* of a 255-byte name */
#define NAME_MOST  255u

/* The kernel's two forms of a record, without the name. */
struct dirent64_head {
	uint64_t ino;
	uint64_t off;
	uint16_t reclen;
	uint8_t type;
} __attribute__((packed));

struct dirent_head {
	uint64_t ino;
	uint64_t off;
	uint16_t reclen;
} __attribute__((packed));

static uint32_t round8(uint32_t n)
{
	return (n + 7) & ~7u;
}

/* Length of the program's record for a name. The old form keeps the type in its last byte. */
static uint32_t record_len(bool old, uint32_t namelen)
{
	if (old)
		return round8(sizeof(struct dirent_head) + namelen + 2);
	return round8(sizeof(struct dirent64_head) + namelen + 1);
}

/* Writes one record at `to`; the name lies at or above its new place in the same buffer. */
static void put_record(uint8_t *to, bool old, const struct sc_dirent *d, const uint8_t *name)
{
	uint32_t len = record_len(old, d->namelen);
	uint32_t head = old ? sizeof(struct dirent_head) : sizeof(struct dirent64_head);
	struct dirent64_head h = {
	    .ino = d->ino, .off = d->off, .reclen = (uint16_t)len, .type = d->type};

	memmove(to + head, name, d->namelen);
	memset(to + head + d->namelen, 0, len - head - d->namelen);
	memcpy(to, &h, head);
	if (old)
		to[len - 1] = d->type;
}

/* Is this a record that an agent may send? `left`: bytes from its start to the end of what was
 * read. */
static bool record_ok(const struct sc_dirent *d, uint32_t left)
{
	return d->reclen <= left && d->reclen % 8 == 0 && d->namelen >= 1 &&
	       d->namelen <= NAME_MOST && d->reclen >= sizeof(*d) + d->namelen + 1;
}

/* Is this a name that a directory can hold? Programs hand it back to calls, so "../x" would lead them
 * elsewhere: the kernel, too, refuses such names of a file system. */
static bool name_ok(const uint8_t *name, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		if (name[i] == '/' || name[i] == '\0')
			return false;
	return true;
}

/*
 * Converts `n` bytes of records in place, as many as give at most `room` bytes. Returns the bytes
 * made, or -EIO if the records are not well-formed. *next: the position behind the last one
 * (unchanged if there is none); *all: none is left.
 */
static long convert(uint8_t *buf, uint32_t n, uint32_t room, bool old, uint64_t *next, bool *all)
{
	uint32_t from = 0;
	uint32_t to = 0;
	struct sc_dirent d;

	*all = false;
	while (from < n) {
		if (n - from < sizeof(d))
			return -EIO;
		memcpy(&d, buf + from, sizeof(d));
		if (!record_ok(&d, n - from) || !name_ok(buf + from + sizeof(d), d.namelen))
			return -EIO;
		if (to + record_len(old, d.namelen) > room)
			return to;
		put_record(buf + to, old, &d, buf + from + sizeof(d));
		to += record_len(old, d.namelen);
		from += d.reclen;
		*next = d.off;
	}
	*all = true;
	return to;
}

static long seek_dir(struct sc_thread *t, struct sc_file *f, uint64_t off, uint64_t whence)
{
	struct sc_opx x = {.op = SC_OP_SEEK, .off = off, .arg0 = whence};

	return sc_file_call(t, f, &x);
}

static long read_dir(struct sc_thread *t, const struct sc_call *c, bool old)
{
	struct sc_serve_thread *st = sc_serve_of(t);
	uint32_t room = (uint32_t)c->a[2];
	uint32_t cap = room < RECORD_MAX ? RECORD_MAX : room;
	uint64_t pos = 0;
	bool all;
	long n;

	if (sc_is_path(c->file))
		return -EBADF;
	if (c->file->type != S_IFDIR)
		return -ENOTDIR;
	if (!st)
		return -ENOMEM;
	if (room < RECORD_MAX) { /* not one record may fit: know the way back */
		n = seek_dir(t, c->file, 0, SEEK_CUR);
		if (n < 0)
			return n;
		pos = (uint64_t)n;
	}
	if (cap > sizeof(st->scratch))
		cap = sizeof(st->scratch);
	struct sc_opx x = {.op = SC_OP_READDIR,
			   .d1 = {.p = st->scratch, .len = cap & ~7u, .out = 1, .by_res = 1}};
	n = sc_file_call(t, c->file, &x);
	if (n <= 0)
		return n;
	n = convert(st->scratch, (uint32_t)n, room, old, &pos, &all);
	if (n >= 0 && !all)
		seek_dir(t, c->file, pos, SEEK_SET);
	if (n <= 0)
		return n ? n : -EINVAL;
	if (sc_copy_to_user((void *)c->a[1], st->scratch, (size_t)n))
		return -EFAULT;
	return n;
}

long call_getdents64(struct sc_thread *t, const struct sc_call *c)
{
	return read_dir(t, c, false);
}

long call_getdents(struct sc_thread *t, const struct sc_call *c)
{
	return read_dir(t, c, true);
}
