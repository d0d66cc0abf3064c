// SPDX-License-Identifier: BSD-3-Clause
/*
 * calls_mmap.c - mmap of remote files, msync, mprotect.
 *
 * A remote file that is mapped has an object (attach.h): memory as long as the file, which all who map it share. The agent
 * is asked for it (SC_OP_MAP), the broker hands out its memfd, and that is mapped in the file's stead, with the program's
 * own protection and flags. So from there on the kernel does what it does for any file: private pages, SIGBUS beyond the
 * end, truncation under the mapping, munmap, mremap, MAP_FIXED, madvise, fork, exec. The descriptor is closed at once.
 *
 * A shared mapping that is not written to gets a descriptor for reading only, even of a file that is open for writing: as
 * long as nobody may store, the agent need not look for what was stored (lmdb maps like that, and writes by pwrite). When
 * the program asks for PROT_WRITE later, mprotect fails, as it does in the kernel for a file that is not open for
 * writing; then the mapping is replaced in place by one of a descriptor for writing.
 *
 * msync has what was stored written to the file and to the disk by the agent. Which objects lie in a range is read from
 * /proc/self/maps, where they are known by their inode; the table below holds those that this process (or, before a fork,
 * its parent) mapped and may write to. Entries are never removed: there is one for each such file.
 *
 * Where there is no object to be had (limits, an older domain) a private mapping, or one of a file that is open for
 * reading only, is a copy: anonymous memory filled with the file's content. Others fail with the agent's error.
 */
#include <linux/memfd.h>
#include <sys/mman.h>

#include "calls.h"
#include "chan-priv.h"
#include "kstat.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Flags that mean something for anonymous memory, too. */
#define FLAGS_KEPT (MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE | MAP_LOCKED | MAP_STACK)

#define OBJECTS_MAX \
	4096u /* files that a process may map for writing and still msync; the oldest are forgotten */

/* An object that this process may write to. */
struct known {
	uint64_t ino; /* of the memfd */
	uint64_t dev;
	struct sc_dom *dom;
	uint64_t object;
	uint64_t token; /* the right to write */
};

static struct known *known; /* OBJECTS_MAX; NULL: none yet */
static uint32_t nknown;	    /* ever; atomic. Entry i is at i % OBJECTS_MAX */
static SC_FORK_DATA struct sc_mutex known_lock;

static bool is_error(long res)
{
	return res < 0 && res > -(long)SC_PAGE;
}

/* ---- known objects ---- */

static struct known *find_known(uint64_t dev, uint64_t ino)
{
	uint32_t n = nknown < OBJECTS_MAX ? nknown : OBJECTS_MAX;

	for (uint32_t i = 0; i < n; i++)
		if (known[i].ino == ino && known[i].dev == dev)
			return &known[i];
	return NULL;
}

static void remember(struct sc_dom *d, const struct sc_map *m, int fd)
{
	struct sc_kstat st = {0};
	struct known *k;

	if (!m->token || sc_sys2(__NR_fstat, fd, &st))
		return;
	sc_mutex_lock(&known_lock);
	if (!known)
		known = sc_map(OBJECTS_MAX * sizeof(*known));
	k = known ? find_known(st.dev, st.ino) : NULL;
	if (known && !k) {
		k = &known[nknown % OBJECTS_MAX];
		__atomic_store_n(&nknown, nknown + 1, __ATOMIC_RELAXED);
	}
	if (k)
		*k = (struct known){
		    .ino = st.ino, .dev = st.dev, .dom = d, .object = m->object, .token = m->token};
	sc_mutex_unlock(&known_lock);
}

static bool recall(uint64_t dev, uint64_t ino, struct known *out)
{
	struct known *k;

	sc_mutex_lock(&known_lock);
	k = known ? find_known(dev, ino) : NULL;
	if (k)
		*out = *k;
	sc_mutex_unlock(&known_lock);
	return k;
}

SC_HOT_TEXT void sc_mmap_after_fork_child(void)
{
	sc_mutex_reset(&known_lock);
}

/* ---- mmap ---- */

/* The checks that the kernel makes before it looks at the kind of file. */
static long argument_error(const struct sc_file *f, uint64_t len, long flags, uint64_t off)
{
	if (off % SC_PAGE)
		return -EINVAL;
	if (sc_is_path(f))
		return -EBADF;
	if (flags & MAP_HUGETLB || len == 0)
		return -EINVAL;
	if (len > UINT64_MAX - SC_PAGE)
		return -ENOMEM;
	if (off + len < off)
		return -EOVERFLOW;
	return 0;
}

static long kind_error(const struct sc_file *f, long prot, long flags)
{
	long type = flags & MAP_TYPE;

	if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE)
		return -EINVAL;
	if (type == MAP_SHARED_VALIDATE && flags & MAP_SYNC)
		return -EOPNOTSUPP;
	if (type != MAP_PRIVATE && prot & PROT_WRITE && !sc_may_write(f))
		return -EACCES;
	if (!sc_may_read(f))
		return -EACCES;
	if (f->type != S_IFREG)
		return -ENODEV;
	if (flags & MAP_GROWSDOWN)
		return -EINVAL;
	return 0;
}

/* Asks for the file's object. Its descriptor (the library's) or -errno. */
static long get_object(struct sc_thread *t, struct sc_file *f, uint32_t rights, struct sc_map *m)
{
	struct sc_opx x = {
	    .op = SC_OP_MAP, .arg0 = rights, .d2 = {.p = m, .len = sizeof(*m), .out = 1}};
	struct sc_slot s = {.handle = f->handle};
	struct sc_hlane *l;
	long res = sc_lane_get(t, f->dom, &l);

	if (res)
		return res;
	res = sc_file_grant(t, l, f);
	if (!res)
		res = sc_lane_opx(t, l, &s, &x);
	if (res >= 0)
		res = sc_object_fetch(l->chan, m->object, rights);
	sc_lane_put(t, l);
	return res;
}

static long map_object(struct sc_thread *t, struct sc_file *f, const struct sc_call *c)
{
	bool stores = (c->a[3] & MAP_TYPE) != MAP_PRIVATE && c->a[2] & PROT_WRITE;
	struct sc_map m = {0};
	long fd, at;

	fd = get_object(t, f, SC_OBJECT_READ | (stores ? SC_OBJECT_WRITE : 0), &m);
	if (fd < 0)
		return fd;
	if ((c->a[3] & MAP_TYPE) != MAP_PRIVATE)
		remember(f->dom, &m, (int)fd);
	at = sc_sys6(__NR_mmap, c->a[0], c->a[1], c->a[2], c->a[3], fd, c->a[5]);
	sc_libfd_close((int)fd);
	return at;
}

/* Fills memory with the file's bytes from off on; what lies beyond its end stays zero. 0 or -errno. */
static long fill(struct sc_thread *t, struct sc_file *f, uint8_t *to, uint64_t len, uint64_t off)
{
	uint64_t done = 0;

	while (done < len) {
		uint32_t want = len - done < SC_POOL_BLOCK ? (uint32_t)(len - done) : SC_POOL_BLOCK;
		struct sc_opx x = {
		    .op = SC_OP_READ,
		    .off = off + done,
		    .d1 = {.p = to + done, .len = want, .out = 1, .user = 1, .by_res = 1}};
		long res = sc_file_call(t, f, &x);

		if (res < 0)
			return res;
		if (res == 0)
			return 0;
		done += (uint64_t)res;
		if ((uint64_t)res % SC_PAGE)
			return 0; /* the file's end; a file with O_DIRECT could not be asked again */
	}
	return 0;
}

/* A copy instead. MAP_FIXED replaces what was there in one step (mremap of the filled memory), so a failure leaves the old
 * mapping alone. */
static long map_copy(struct sc_thread *t, struct sc_file *f, const struct sc_call *c)
{
	uint64_t len = ((uint64_t)c->a[1] + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1);
	long flags = c->a[3];
	bool fixed = (flags & MAP_FIXED) && !(flags & MAP_FIXED_NOREPLACE);
	long at;
	long err;

	if (fixed && c->a[0] % SC_PAGE)
		return -EINVAL;
	at = sc_sys6(__NR_mmap, fixed ? 0 : c->a[0], len, PROT_READ | PROT_WRITE,
		     (flags & FLAGS_KEPT) | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (is_error(at))
		return at;
	err = fill(t, f, (uint8_t *)at, len, (uint64_t)c->a[5]);
	if (!err)
		err = sc_sys3(__NR_mprotect, at, len, c->a[2]);
	if (!err && fixed) {
		err = sc_raw_syscall(__NR_mremap, at, (long)len, (long)len,
				     MREMAP_MAYMOVE | MREMAP_FIXED, c->a[0], 0);
		if (err == c->a[0])
			return err;
	}
	if (!err)
		return at;
	sc_sys2(__NR_munmap, at, len);
	return err;
}

/* Errors of SC_OP_MAP that mean "no object", not "not this mapping". */
static bool means_no_object(long res)
{
	return res == -ENODEV || res == -ENOMEM || res == -ENOSYS || res == -EBUSY;
}

long call_mmap(struct sc_thread *t, const struct sc_call *c)
{
	struct sc_file *f;
	bool copies;
	long res;

	if (c->a[3] & MAP_ANONYMOUS)
		return SC_NATIVE;
	f = sc_fd_file(t, sc_int(c->a[4]));
	if (!f)
		return SC_NATIVE;
	res = argument_error(f, (uint64_t)c->a[1], c->a[3], (uint64_t)c->a[5]);
	if (!res)
		res = kind_error(f, c->a[2], c->a[3]);
	if (res)
		return res;
	res = map_object(t, f, c);
	copies = (c->a[3] & MAP_TYPE) == MAP_PRIVATE || !sc_may_write(f);
	return means_no_object(res) && copies ? map_copy(t, f, c) : res;
}

/* ---- what lies in a range ---- */

/* A mapping of an object, cut to the range that was asked for. */
struct piece {
	uint64_t start;
	uint64_t end;
	uint64_t off;	/* of start in the file */
	bool may_write; /* it is writable now */
	struct known object;
};

/* Reads a file of /proc line by line. */
struct lines {
	int fd;
	uint32_t at;
	uint32_t n;
	char buf[4096];
};

static int next_char(struct lines *r)
{
	if (r->at == r->n) {
		long n = sc_sys3(__NR_read, r->fd, r->buf, sizeof(r->buf));

		if (n <= 0)
			return -1;
		r->at = 0;
		r->n = (uint32_t)n;
	}
	return (uint8_t)r->buf[r->at++];
}

/* The start of the next line, which is longer than we care for. Its length, or -1: the end. */
static int next_line(struct lines *r, char *to, int size)
{
	int n = 0, c;

	while ((c = next_char(r)) >= 0 && c != '\n')
		if (n < size - 1)
			to[n++] = (char)c;
	to[n] = '\0';
	return c < 0 && n == 0 ? -1 : n;
}

/* A number; *s is moved behind it and one more character. */
static uint64_t number(const char **s, unsigned int base)
{
	uint64_t v = 0;
	unsigned int d;

	for (; **s; ++*s) {
		char c = **s;

		d = c >= '0' && c <= '9'   ? (unsigned int)(c - '0')
		    : c >= 'a' && c <= 'f' ? (unsigned int)(c - 'a' + 10)
					   : 99u;
		if (d >= base)
			break;
		v = v * base + d;
	}
	if (**s)
		++*s;
	return v;
}

/* "start-end rwxp offset major:minor inode ...": true if it is a shared mapping of a known object. */
static bool parse_line(const char *s, struct piece *p)
{
	uint64_t major, minor, ino;
	bool shared;

	p->start = number(&s, 16);
	p->end = number(&s, 16);
	if (sc_strnlen(s, 5) < 5)
		return false;
	p->may_write = s[1] == 'w';
	shared = s[3] == 's';
	s += 5;
	p->off = number(&s, 16);
	major = number(&s, 16);
	minor = number(&s, 16);
	ino = number(&s, 10);
	return shared && ino &&
	       recall(sc_makedev((uint32_t)major, (uint32_t)minor), ino, &p->object);
}

/* The first piece of a known object at or after *from, before `to`. False: none. */
static bool next_piece(uint64_t *from, uint64_t to, struct piece *p)
{
	struct lines r = {
	    .fd = (int)sc_sys4(__NR_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0)};
	char line[128];
	bool found = false;

	if (r.fd < 0)
		return false;
	while (!found && *from < to && next_line(&r, line, sizeof(line)) >= 0)
		found = parse_line(line, p) && p->end > *from && p->start < to;
	sc_sys1(__NR_close, r.fd);
	if (!found)
		return false;
	if (p->start < *from) {
		p->off += *from - p->start;
		p->start = *from;
	}
	if (p->end > to)
		p->end = to;
	*from = p->end;
	return true;
}

static bool any_known(void)
{
	return __atomic_load_n(&nknown, __ATOMIC_RELAXED) != 0;
}

/* ---- msync ---- */

static long sync_piece(struct sc_thread *t, const struct piece *p)
{
	struct sc_opx x = {
	    .op = SC_OP_MSYNC, .off = p->off, .arg0 = p->end - p->start, .arg1 = p->object.object};
	struct sc_slot s = {0};
	struct sc_hlane *l;
	long res = sc_lane_get(t, p->object.dom, &l);

	if (res)
		return -EIO;
	res = sc_lane_opx(t, l, &s, &x);
	sc_lane_put(t, l);
	return res;
}

long call_msync(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t from = (uint64_t)c->a[0], to;
	struct piece p;
	long res, err = 0;

	if (!any_known())
		return SC_NATIVE;
	res = sc_sys3(__NR_msync, c->a[0], c->a[1], c->a[2]);
	if ((res && res != -ENOMEM) || !(c->a[2] & MS_SYNC))
		return res;
	/* ENOMEM: with gaps in the range; the rest of it is synced all the same. */
	to = from + (((uint64_t)c->a[1] + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1));
	while (!err && next_piece(&from, to, &p))
		err = sync_piece(t, &p);
	return err ? err : res;
}

/* ---- mprotect ---- */

/* Puts a mapping that may be written to in the place of one that may not. 0 or -errno. */
static long make_writable(struct sc_thread *t, const struct piece *p, long prot)
{
	struct sc_opx x = {
	    .op = SC_OP_MAP_WRITE, .arg1 = p->object.object, .arg2 = p->object.token};
	struct sc_slot s = {0};
	struct sc_hlane *l;
	long res = sc_lane_get(t, p->object.dom, &l), fd;

	if (res)
		return -EACCES;
	res = sc_lane_opx(t, l, &s, &x);
	fd = res < 0 ? res
		     : sc_object_fetch(l->chan, p->object.object, SC_OBJECT_READ | SC_OBJECT_WRITE);
	sc_lane_put(t, l);
	if (fd < 0)
		return -EACCES;
	res = sc_sys6(__NR_mmap, p->start, p->end - p->start, prot, MAP_SHARED | MAP_FIXED, fd,
		      p->off);
	sc_libfd_close((int)fd);
	return is_error(res) ? res : 0;
}

long call_mprotect(struct sc_thread *t, const struct sc_call *c)
{
	uint64_t from = (uint64_t)c->a[0], to;
	struct piece p;
	bool changed = false;
	long res;

	if (!(c->a[2] & PROT_WRITE) || !any_known())
		return SC_NATIVE;
	res = sc_sys3(__NR_mprotect, c->a[0], c->a[1], c->a[2]);
	if (res != -EACCES)
		return res;
	to = from + (((uint64_t)c->a[1] + SC_PAGE - 1) & ~(uint64_t)(SC_PAGE - 1));
	while (next_piece(&from, to, &p)) {
		if (p.may_write)
			continue;
		res = make_writable(t, &p, c->a[2] & (PROT_READ | PROT_WRITE | PROT_EXEC));
		if (res)
			return res;
		changed = true;
	}
	return changed ? sc_sys3(__NR_mprotect, c->a[0], c->a[1], c->a[2]) : -EACCES;
}
