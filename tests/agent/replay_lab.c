/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay_lab.c - crashes real file systems, replays the log, and compares with a model.
 *
 *   replay-lab --fs ext4|xfs|btrfs [--seed N] [--cycles N] [--ops N] [--image DIR] [--verbose]
 *   replay-lab --fs ... --hostile        logs that were spoiled on purpose
 *   replay-lab --fs ... --bench writes|creates
 *
 * A file system in a loop-mounted image, in a mount namespace of its own. Each cycle: random operations, recorded as the agent's log
 * does it (a recorder of its own: LOG's conditions are these: one order of changes per directory and per file, INTENT before, DONE
 * after), some of them left as INTENT, executed or not; syncs of all kinds in between; a crash; the file system is mounted again, its journal
 * replayed by the kernel, the log by replay.c, in a child that is crashed in turn, together with the file system, at a random one of
 * its system calls, some times; then everything there is is compared with the model: names, types, data, sizes, owners, modes,
 * attributes, link counts, identity of links, texts, times, inode numbers as shown, open files without names.
 *
 * A crash: FS_IOC_SHUTDOWN, which drops what is not on the disk yet; where that is not supported (btrfs) the image is copied while it
 * is in use, and the copy mounted.
 *
 * Exit: 0 all equal; 1 not; 77 cannot run here (the reason is told).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "inodes.h"
#include "log.h"
#include "logrec.h"
#include "replay.h"

#define SKIPPED	      77
#define SHUTDOWN      _IOR('X', 125, __u32)
#define SHUT_LOGFLUSH 1u
#define SHUT_DROP     2u
#define MAX_OBJECTS   400
#define MAX_NAMES     800
#define MAX_DATA      98304u
#define MAX_XATTRS    4
#define MAX_PENDING   4
#define KEPT_INODES   65536
#define NEAR_NS	      2000000000ll /* of times that the log's clock gave: on a busy machine */

/* ---- the model ---- */

struct mattr {
	char name[16];
	uint8_t value[96];
	uint32_t len;
};

struct mobj {
	bool used;
	bool open;   /* a handle names it */
	bool locked; /* an INTENT is about it */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
	uint8_t *data; /* MAX_DATA bytes: a regular file's */
	uint32_t size;
	char link[64];
	struct mattr attr[MAX_XATTRS];
	uint32_t flags; /* FS_*_FL that we set */
	struct sc_fid fid;
	uint64_t ino; /* as shown */
	int64_t mtime, atime;
	bool exact, atime_exact;
	/* while comparing */
	uint32_t seen;
};

struct mname {
	int dir, obj;
	char text[256];
};

struct op {
	int kind; /* enum sc_log_kind */
	int dir, dir2, obj, obj2;
	char name[256], name2[256];
	uint64_t off, size;
	uint32_t mode, uid, gid, flags;
	dev_t rdev;
	uint8_t *data;
	uint32_t len;
	struct sc_log_rec *rec;
};

static struct mobj objects[MAX_OBJECTS];
static struct mname names[MAX_NAMES];
static int nnames;
static struct op pending[MAX_PENDING];
static int npending;

/* ---- options, randomness, complaints ---- */

static const char *fs = "ext4";
static char image[280], where[300];
static uint64_t seed;
static uint64_t rng;
static int cycle;
static bool verbose;
static bool by_copy; /* crashes by copying the image */
static int loop_fd = -1, mnt = -1;
static char loop_path[32];
static struct sc_log *slog;
static size_t slog_size;
static struct sc_kept_inode *kept;
static struct inodes inodes;
static struct {
	uint64_t ops, cycles, crashes, replays, moved, counted, lost, exchanged, orphans, undone;
} stat_;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % below;
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

_Noreturn static void quit(int status, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "replay-lab: %s, seed %llu, cycle %d: ", fs, (unsigned long long)seed,
		cycle);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	if (getenv("REPLAY_LAB_STOP"))
		pause();
	exit(status);
}

#define die(...)  quit(1, __VA_ARGS__)
#define skip(...) quit(SKIPPED, __VA_ARGS__)

static int64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- the image ---- */

static void run(const char *fmt, ...)
{
	char cmd[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, args);
	va_end(args);
	if (system(cmd) != 0) /* NOLINT: a fixed command */
		skip("\"%s\" has failed", cmd);
}

static void attach(void)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(image, O_RDWR | O_CLOEXEC);
	struct loop_config c = {.fd = (uint32_t)file, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};

	if (ctl < 0)
		skip("/dev/loop-control: %s", strerror(errno));
	if (file < 0)
		die("%s: %s", image, strerror(errno));
	for (int tries = 0;; tries++) {
		int n = ioctl(ctl, LOOP_CTL_GET_FREE);

		if (n < 0)
			skip("no free loop device: %s", strerror(errno));
		sprintf(loop_path, "/dev/loop%d", n);
		if (access(loop_path, F_OK) < 0)
			mknod(loop_path, S_IFBLK | 0600, makedev(7, (unsigned int)n));
		loop_fd = open(loop_path, O_RDWR | O_CLOEXEC);
		if (loop_fd >= 0 && ioctl(loop_fd, LOOP_CONFIGURE, &c) == 0)
			break;
		if (loop_fd >= 0)
			close(loop_fd);
		if (tries == 20) /* others take them, too */
			skip("%s: %s", loop_path, strerror(errno));
	}
	close(file);
	close(ctl);
}

static void mount_it(void)
{
	struct stat st;

	if (mount(loop_path, where, fs, 0, by_copy ? "notreelog" : "") <
	    0) { /* replay.h says why */
		if (errno == ENODEV || errno == EPERM)
			skip("mounting %s: %s", fs, strerror(errno));
		die("mounting %s: %s", fs, strerror(errno));
	}
	close(
	    loop_fd); /* whoever holds the device keeps its cache, in which there is what was dropped */
	loop_fd = -1;
	mnt = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mnt < 0 || fstat(mnt, &st) < 0)
		die("%s: %s", where, strerror(errno));
	inodes.dev = st.st_dev; /* perhaps another loop device than before */
}

static void unmount(void)
{
	close(mnt);
	mnt = -1;
	for (int tries = 0; umount2(where, 0) < 0; tries++) {
		if (errno != EBUSY || tries == 1000)
			die("umount: %s", strerror(errno));
		usleep(1000);
	}
}

/* Copies what is in the image, holes as holes. */
static void copy_image(const char *to)
{
	int in = open(image, O_RDONLY | O_CLOEXEC), out;
	off_t at = 0, data, end = lseek(in, 0, SEEK_END);

	out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || ftruncate(out, end) < 0)
		die("copying the image: %s", strerror(errno));
	while (at < end && (data = lseek(in, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(in, data, SEEK_HOLE);

		for (at = data; at < hole;) {
			off_t o = at;
			ssize_t n = copy_file_range(in, &at, out, &o, (size_t)(hole - at), 0);

			if (n <= 0)
				die("copying the image: %s", strerror(errno));
		}
	}
	close(in);
	close(out);
}

/* What is not on the disk is gone: but for remount(). */
static void drop(void)
{
	uint32_t how = chance(25) ? SHUT_LOGFLUSH : SHUT_DROP;

	if (by_copy) {
		char copy[310];

		sprintf(copy, "%s.copy", image);
		copy_image(copy);
		return;
	}
	if (ioctl(mnt, SHUTDOWN, &how) < 0 && errno != EIO)
		skip("this kernel cannot shut %s down: %s", fs, strerror(errno));
}

static void remount(void)
{
	stat_.crashes++;
	unmount();
	if (by_copy) {
		char copy[310];

		sprintf(copy, "%s.copy", image);
		if (rename(copy, image) < 0)
			die("%s: %s", copy, strerror(errno));
	}
	attach();
	mount_it();
}

/* ---- files by identity ---- */

static int fid_open(const struct sc_fid *fid, int flags)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + SC_FID_MAX];
	} k;

	k.h.handle_bytes = fid->len;
	k.h.handle_type = fid->type;
	memcpy(k.h.f_handle, fid->bytes, fid->len);
	return open_by_handle_at(mnt, &k.h, flags | O_CLOEXEC | O_NOFOLLOW);
}

static void fid_of(int dir, const char *name, struct sc_fid *fid)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + SC_FID_MAX];
	} k;
	int mount_id;

	k.h.handle_bytes = SC_FID_MAX;
	if (name_to_handle_at(dir, name, &k.h, &mount_id, name[0] ? 0 : AT_EMPTY_PATH) < 0)
		die("name_to_handle_at %s: %s", name, strerror(errno));
	memset(fid, 0, sizeof(*fid));
	fid->type = (uint8_t)k.h.handle_type;
	fid->len = (uint8_t)k.h.handle_bytes;
	memcpy(fid->bytes, k.h.f_handle, fid->len);
}

static int obj_open(int obj, int flags)
{
	int fd = fid_open(&objects[obj].fid, flags);

	if (fd < 0)
		die("object %d does not open: %s", obj, strerror(errno));
	return fd;
}

static const char *proc_of(int fd)
{
	static char text[32];

	sprintf(text, "/proc/self/fd/%d", fd);
	return text;
}

static int orphans(void)
{
	int fd = openat(mnt, SC_OWN_DIR "/" SC_OWN_ORPHANS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die("the orphans: %s", strerror(errno));
	return fd;
}

static void make_own(void)
{
	mkdirat(mnt, SC_OWN_DIR, 0700);
	mkdirat(mnt, SC_OWN_DIR "/" SC_OWN_ORPHANS, 0700);
}

/* ---- the log ---- */

static void make_log(size_t ring)
{
	slog_size = SC_LOG_BEGIN + ring;
	slog = mmap(NULL, slog_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slog == MAP_FAILED)
		die("no memory");
	slog->version = SC_LOG_VERSION;
	slog->epoch = 1;
	slog->ring = ring;
	slog->magic = SC_LOG_MAGIC;
	slog->check = logrec_header_check(slog);
	slog->head = slog->tail = slog->synced = 0;
}

static void checkpoint(void)
{
	if (npending)
		return;
	if (syncfs(mnt) < 0)
		die("syncfs: %s", strerror(errno));
	slog->synced = slog->head = slog->tail;
}

static struct sc_log_rec *record(const struct op *op)
{
	bool named = op->name[0], named2 = op->kind == SC_LOG_RENAME;
	uint32_t n1 = named ? (uint32_t)strlen(op->name) : 0;
	uint32_t n2 = named2 ? (uint32_t)strlen(op->name2) : 0;
	uint32_t len = (uint32_t)((sizeof(struct sc_log_rec) + n1 + n2 + 63) & ~63ul);
	uint64_t place = slog->tail % slog->ring;
	struct sc_log_rec *r = (void *)((uint8_t *)slog + SC_LOG_BEGIN + place);

	len = (len + op->len + 63) & ~63u;
	if (slog->tail + 2ull * len - slog->head > slog->ring)
		checkpoint();
	if (slog->tail + 2ull * len - slog->head > slog->ring)
		return NULL;
	if (place + len > slog->ring) {
		memset(r, 0, 64);
		r->seq = slog->tail;
		r->len = (uint32_t)(slog->ring - place);
		r->kind = SC_LOG_PAD;
		slog->tail += r->len;
		r = (void *)((uint8_t *)slog + SC_LOG_BEGIN);
	}
	memset(r, 0, sizeof(*r));
	*r = (struct sc_log_rec){.seq = slog->tail,
				 .len = len,
				 .kind = (uint16_t)op->kind,
				 .call = {1, 0, (uint32_t)stat_.ops, 0},
				 .when = (uint64_t)wall_ns(),
				 .flags = op->flags,
				 .off = op->off,
				 .size = op->size,
				 .mode = op->mode,
				 .uid = op->uid,
				 .gid = op->gid,
				 .rdev = (uint32_t)op->rdev,
				 .name_len = (uint16_t)n1,
				 .name2_len = (uint16_t)n2,
				 .data_len = op->len};
	if (op->kind != SC_LOG_CREATE)
		r->obj = objects[op->obj].fid;
	if (op->dir >= 0)
		r->dir = objects[op->dir].fid;
	if (op->dir2 >= 0)
		r->dir2 = objects[op->dir2].fid;
	if (op->obj2 >= 0)
		r->obj2 = objects[op->obj2].fid;
	if (op->obj >= 0 && S_ISDIR(objects[op->obj].mode) && op->kind != SC_LOG_CREATE)
		r->flags |= SC_LOG_F_DIR;
	memcpy(r->body, op->name, n1);
	memcpy(r->body + n1, op->name2, n2);
	if (op->len)
		memcpy((uint8_t *)r + SC_LOG_DATA(r), op->data, op->len);
	r->check = logrec_check(r);
	r->state = SC_LOG_INTENT;
	slog->tail += len;
	return r;
}

static void note_done(struct sc_log_rec *r, int64_t res)
{
	r->res = res;
	r->done_check = logrec_done_check(r);
	__atomic_store_n(&r->state, SC_LOG_DONE, __ATOMIC_RELEASE);
}

/* ---- model look-ups ---- */

static int name_at(int dir, const char *text)
{
	for (int i = 0; i < nnames; i++)
		if (names[i].dir == dir && !strcmp(names[i].text, text))
			return i;
	return -1;
}

static int links_of(int obj)
{
	int n = 0;

	for (int i = 0; i < nnames; i++)
		n += names[i].obj == obj;
	return n;
}

static bool is_empty(int dir)
{
	for (int i = 0; i < nnames; i++)
		if (names[i].dir == dir)
			return false;
	return true;
}

/* True if `dir` is `top` or below it. */
static bool is_below(int dir, int top)
{
	while (dir > 0 && dir != top) {
		int i = 0;

		while (i < nnames && names[i].obj != dir)
			i++;
		dir = i < nnames ? names[i].dir : 0;
	}
	return dir == top;
}

static void add_name(int dir, const char *text, int obj)
{
	if (nnames == MAX_NAMES)
		die("too many names");
	names[nnames].dir = dir;
	names[nnames].obj = obj;
	strcpy(names[nnames++].text, text);
}

static void free_object(int obj)
{
	free(objects[obj].data);
	memset(&objects[obj], 0, sizeof(objects[obj]));
}

/* A name is gone, and with the last of them perhaps the object. */
static void lose(int obj)
{
	if (!links_of(obj) && !objects[obj].open)
		free_object(obj);
}

static void remove_name(int i)
{
	names[i] = names[--nnames];
}

/* ---- operations: on the disk ---- */

static int err(int n)
{
	return n < 0 ? -errno : n;
}

/* Before the last name of an open file goes it gets one among the orphans. */
static void keep_open(int obj)
{
	char name[REPLAY_ORPHAN_NAME];
	int fd, dir;

	replay_orphan_name(&objects[obj].fid, name);
	fd = obj_open(obj, O_PATH);
	dir = orphans();
	if (linkat(fd, "", dir, name, AT_EMPTY_PATH) < 0 && errno != EEXIST)
		die("linking an orphan: %s", strerror(errno));
	close(fd);
	close(dir);
}

static int do_create(const struct op *op, int dir)
{
	char text[64] = "";
	int n;

	if (op->flags & SC_LOG_F_ANON) {
		char proc[40], name[REPLAY_ORPHAN_NAME];
		struct sc_fid fid;
		int o = orphans(), fd = openat(mnt, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, op->mode);

		if (fd < 0)
			return -errno;
		fid_of(fd, "", &fid);
		replay_orphan_name(&fid, name);
		sprintf(proc, "/proc/self/fd/%d", fd);
		n = err(linkat(AT_FDCWD, proc, o, name, AT_SYMLINK_FOLLOW));
		objects[op->obj].fid = fid;
		close(fd);
		close(o);
		return n;
	}
	switch (op->mode & S_IFMT) {
	case S_IFDIR:
		return err(mkdirat(dir, op->name, op->mode & 07777));
	case S_IFLNK:
		memcpy(text, op->data, op->len);
		return err(symlinkat(text, dir, op->name));
	default:
		return err(mknodat(dir, op->name, op->mode, op->rdev));
	}
}

static int do_data(const struct op *op)
{
	int fd = obj_open(op->obj, O_RDWR), n = 0;

	if (op->kind == SC_LOG_WRITE)
		n = pwrite(fd, op->data, op->len, (off_t)op->off) == (ssize_t)op->len ? 0 : -errno;
	else if (op->kind == SC_LOG_TRUNCATE)
		n = err(ftruncate(fd, (off_t)op->size));
	else if (op->kind == SC_LOG_FALLOCATE)
		n = err(fallocate(fd, (int)op->mode, (off_t)op->off, (off_t)op->size));
	else if (op->kind == SC_LOG_BARRIER)
		n = err(fsync(fd));
	close(fd);
	return n;
}

static int do_attr(const struct op *op)
{
	int fd = obj_open(op->obj, op->kind == SC_LOG_SETFLAGS ? O_RDONLY : O_PATH), n;
	struct timespec ts[2];
	int flags;

	switch (op->kind) {
	case SC_LOG_CHMOD:
		n = err(chmod(proc_of(fd), op->mode));
		break;
	case SC_LOG_CHOWN:
		n = err(fchownat(fd, "", op->uid, op->gid, AT_EMPTY_PATH));
		break;
	case SC_LOG_UTIMENS:
		ts[0] =
		    (struct timespec){(time_t)(op->off / 1000000000), (long)(op->off % 1000000000)};
		ts[1] = (struct timespec){(time_t)(op->size / 1000000000),
					  (long)(op->size % 1000000000)};
		n = err(utimensat(AT_FDCWD, proc_of(fd), ts, 0));
		break;
	case SC_LOG_SETXATTR:
		n = err(setxattr(proc_of(fd), op->name, op->data, op->len,
				 op->flags & SC_LOG_F_WAS ? XATTR_REPLACE : XATTR_CREATE));
		break;
	case SC_LOG_REMOVEXATTR:
		n = err(removexattr(proc_of(fd), op->name));
		break;
	default:
		n = err(ioctl(fd, FS_IOC_GETFLAGS, &flags));
		flags = (int)((flags & ~(FS_NODUMP_FL | FS_APPEND_FL)) | op->mode);
		if (!n)
			n = err(ioctl(fd, FS_IOC_SETFLAGS, &flags));
	}
	close(fd);
	return n;
}

static int do_op(const struct op *op)
{
	int dir = op->dir >= 0 ? obj_open(op->dir, O_RDONLY | O_DIRECTORY) : -1;
	int dir2 = op->dir2 >= 0 ? obj_open(op->dir2, O_RDONLY | O_DIRECTORY) : -1;
	int n, fd;

	switch (op->kind) {
	case SC_LOG_CREATE:
		n = do_create(op, dir);
		break;
	case SC_LOG_LINK:
		fd = obj_open(op->obj, O_PATH);
		n = err(linkat(fd, "", dir, op->name, AT_EMPTY_PATH));
		close(fd);
		break;
	case SC_LOG_UNLINK:
		if (op->flags & SC_LOG_F_KEPT)
			keep_open(op->obj);
		n = err(unlinkat(dir, op->name, S_ISDIR(objects[op->obj].mode) ? AT_REMOVEDIR : 0));
		break;
	case SC_LOG_RENAME:
		if (op->flags & SC_LOG_F_KEPT)
			keep_open(op->obj2);
		n = err(renameat2(dir, op->name, dir2, op->name2,
				  op->flags & SC_LOG_F_EXCHANGE ? RENAME_EXCHANGE
				  : op->obj2 < 0		? RENAME_NOREPLACE
								: 0));
		break;
	case SC_LOG_WRITE:
	case SC_LOG_TRUNCATE:
	case SC_LOG_FALLOCATE:
	case SC_LOG_BARRIER:
		n = do_data(op);
		break;
	default:
		n = do_attr(op);
	}
	if (dir >= 0)
		close(dir);
	if (dir2 >= 0)
		close(dir2);
	return n;
}

/* ---- operations: in the model ---- */

static struct mattr *attr_of(struct mobj *o, const char *name)
{
	for (int i = 0; i < MAX_XATTRS; i++)
		if (!strcmp(o->attr[i].name, name))
			return &o->attr[i];
	return NULL;
}

static void grow(struct mobj *o, uint64_t end)
{
	if (end > o->size)
		o->size = (uint32_t)end;
}

static void changed(int obj)
{
	objects[obj].mtime = wall_ns();
	objects[obj].exact = false;
}

static void model_data(const struct op *op)
{
	struct mobj *o = &objects[op->obj];
	uint64_t end = op->off + op->size, size = o->size;

	switch (op->kind) {
	case SC_LOG_WRITE:
		memcpy(o->data + op->off, op->data, op->len);
		grow(o, op->off + op->len);
		break;
	case SC_LOG_TRUNCATE:
		if (op->size < o->size)
			memset(o->data + op->size, 0, o->size - op->size);
		o->size = (uint32_t)op->size;
		break;
	case SC_LOG_FALLOCATE:
		if (op->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
			memset(o->data + op->off, 0, op->size);
		if (!(op->mode & FALLOC_FL_KEEP_SIZE))
			grow(o, end);
		break;
	default:
		return;
	}
	changed(op->obj);
	if (op->kind == SC_LOG_FALLOCATE && op->off >= size)
		o->mtime = 0; /* behind the end kernels differ */
}

static void model_attr(const struct op *op)
{
	struct mobj *o = &objects[op->obj];
	struct mattr *x;

	switch (op->kind) {
	case SC_LOG_CHMOD:
		o->mode = (o->mode & S_IFMT) | op->mode;
		break;
	case SC_LOG_CHOWN:
		o->uid = op->uid;
		o->gid = op->gid;
		o->mode = op->mode;
		break;
	case SC_LOG_UTIMENS:
		o->atime = (int64_t)op->off;
		o->mtime = (int64_t)op->size;
		o->exact = o->atime_exact = true;
		break;
	case SC_LOG_SETXATTR:
		x = attr_of(o, op->name);
		if (!x)
			x = attr_of(o, "");
		strcpy(x->name, op->name);
		memcpy(x->value, op->data, op->len);
		x->len = op->len;
		break;
	case SC_LOG_REMOVEXATTR:
		attr_of(o, op->name)->name[0] = '\0';
		break;
	case SC_LOG_SETFLAGS:
		o->flags = op->mode;
	default:
		break;
	}
}

static void model_create(const struct op *op)
{
	struct mobj *o = &objects[op->obj];
	struct sc_fid fid = o->fid;
	uint64_t ino = o->ino;

	memset(o, 0, sizeof(*o));
	*o = (struct mobj){.used = true,
			   .mode = op->mode,
			   .uid = op->uid,
			   .gid = op->gid,
			   .rdev = op->rdev,
			   .fid = fid,
			   .ino = ino,
			   .open = op->flags & SC_LOG_F_ANON};
	if (S_ISLNK(op->mode))
		memcpy(o->link, op->data, op->len);
	if (S_ISREG(op->mode))
		o->data = calloc(1, MAX_DATA);
	changed(op->obj);
	if (!(op->flags & SC_LOG_F_ANON))
		add_name(op->dir, op->name, op->obj);
}

/* Some file systems count it as a change of a directory that it is moved. */
static void unknown_times(const struct op *op)
{
	objects[op->obj].mtime = 0;
	if (op->obj2 >= 0)
		objects[op->obj2].mtime = 0;
}

static void model_op(const struct op *op)
{
	int i, j;

	if (op->dir >= 0)
		changed(op->dir);
	if (op->dir2 >= 0)
		changed(op->dir2);
	switch (op->kind) {
	case SC_LOG_CREATE:
		model_create(op);
		break;
	case SC_LOG_LINK:
		add_name(op->dir, op->name, op->obj);
		break;
	case SC_LOG_UNLINK:
		remove_name(name_at(op->dir, op->name));
		lose(op->obj);
		break;
	case SC_LOG_RENAME:
		i = name_at(op->dir, op->name);
		j = name_at(op->dir2, op->name2);
		if (op->obj == op->obj2)
			break;
		unknown_times(op);
		if (op->flags & SC_LOG_F_EXCHANGE) {
			names[i].obj = op->obj2;
			names[j].obj = op->obj;
			break;
		}
		if (j >= 0) {
			remove_name(j);
			lose(op->obj2);
			i = name_at(op->dir, op->name);
		}
		remove_name(i);
		add_name(op->dir2, op->name2, op->obj);
		break;
	case SC_LOG_WRITE:
	case SC_LOG_TRUNCATE:
	case SC_LOG_FALLOCATE:
	case SC_LOG_BARRIER:
		model_data(op);
		break;
	default:
		model_attr(op);
	}
}

/* ---- running an operation ---- */

enum how {
	HOW_DONE,
	HOW_INTENT,  /* recorded, not executed */
	HOW_UNNOTED, /* executed, not noted */
};

/* What the kernel made of it. */
static void learn_created(struct op *op, struct sc_log_rec *rec)
{
	int dir = op->dir >= 0 ? obj_open(op->dir, O_PATH) : -1;
	struct stat st;
	int fd;

	if (!(op->flags & SC_LOG_F_ANON))
		fid_of(dir, op->name, &objects[op->obj].fid);
	fd = obj_open(op->obj, O_PATH);
	if (fstat(fd, &st) < 0)
		die("fstat: %s", strerror(errno));
	objects[op->obj].ino = inode_shown(&inodes, st.st_dev, st.st_ino);
	op->mode = st.st_mode;
	op->uid = st.st_uid;
	op->gid = st.st_gid;
	rec->obj = objects[op->obj].fid;
	rec->mode = op->mode;
	rec->uid = op->uid;
	rec->gid = op->gid;
	close(fd);
	if (dir >= 0)
		close(dir);
}

static void learn_chown(struct op *op, struct sc_log_rec *rec)
{
	int fd = obj_open(op->obj, O_PATH);
	struct stat st;

	if (fstat(fd, &st) < 0)
		die("fstat: %s", strerror(errno));
	rec->mode = op->mode = st.st_mode;
	close(fd);
}

static void lock_all(const struct op *op, bool on)
{
	const int all[] = {op->dir, op->dir2, op->obj, op->obj2};

	for (int i = 0; i < 4; i++)
		if (all[i] >= 0)
			objects[all[i]].locked = on;
}

static bool run_op(struct op *op, enum how how)
{
	struct sc_log_rec *rec = record(op);
	int n;

	if (!rec)
		return false; /* the log is full, and INTENTs are in it */
	stat_.ops++;
	op->rec = rec;
	n = how == HOW_INTENT ? 0 : do_op(op);
	if (verbose)
		fprintf(stderr,
			"%llu: kind %d obj %d dir %d %s obj2 %d dir2 %d %s off %llu size %llu mode "
			"%o flags %x how %d: %d\n",
			(unsigned long long)rec->seq, op->kind, op->obj, op->dir, op->name,
			op->obj2, op->dir2, op->name2, (unsigned long long)op->off,
			(unsigned long long)op->size, op->mode, op->flags, how, n);
	if (n == -EOPNOTSUPP || n == -EINVAL || n == -ENOSPC || n == -EDQUOT) {
		rec->state = SC_LOG_FAILED;
		return false;
	}
	if (n < 0)
		die("operation %d has failed, which the model says it cannot: %s", op->kind,
		    strerror(-n));
	if (how != HOW_DONE) {
		lock_all(op, true);
		pending[npending++] = *op;
		op->data = NULL;
		return true;
	}
	if (op->kind == SC_LOG_CREATE)
		learn_created(op, rec);
	if (op->kind == SC_LOG_CHOWN)
		learn_chown(op, rec);
	note_done(rec, op->kind == SC_LOG_WRITE ? op->len : 0);
	model_op(op);
	return true;
}

/* ---- choosing operations ---- */

static int pick(bool (*fits)(const struct mobj *o))
{
	int start = (int)rnd(MAX_OBJECTS);

	for (int i = 0; i < MAX_OBJECTS; i++) {
		int at = (start + i) % MAX_OBJECTS;

		if (objects[at].used && !objects[at].locked && fits(&objects[at]))
			return at;
	}
	return -1;
}

static bool fits_dir(const struct mobj *o)
{
	return S_ISDIR(o->mode) && (o == objects || links_of((int)(o - objects)));
}

static bool fits_reg(const struct mobj *o)
{
	return S_ISREG(o->mode) && !(o->flags & FS_APPEND_FL);
}

static bool fits_any(const struct mobj *o)
{
	return o != objects && !(o->flags & FS_APPEND_FL);
}

static bool fits_linkable(const struct mobj *o)
{
	return !S_ISDIR(o->mode) && !(o->flags & FS_APPEND_FL) && links_of((int)(o - objects)) &&
	       links_of((int)(o - objects)) < 5;
}

static void pick_name(char *to)
{
	static const char *const odd[] = {"...", "-", " ", "\xff\xfe", "a\nb", ".x", "~"};

	if (chance(4)) {
		strcpy(to, odd[rnd(sizeof(odd) / sizeof(odd[0]))]);
		return;
	}
	if (chance(2)) {
		memset(to, 'L', 255);
		to[255] = '\0';
		return;
	}
	sprintf(to, "%c%u", 'a' + (char)rnd(6), (unsigned int)rnd(5));
}

static int free_slot(void)
{
	for (int i = 1; i < MAX_OBJECTS; i++)
		if (!objects[i].used && !objects[i].locked)
			return i;
	return -1;
}

static int count_objects(void)
{
	int n = 0;

	for (int i = 0; i < MAX_OBJECTS; i++)
		n += objects[i].used;
	return n;
}

static uint8_t *bytes(uint32_t len)
{
	uint8_t *b = malloc(len ? len : 1), first = (uint8_t)rnd(255);

	for (uint32_t i = 0; i < len; i++)
		b[i] = (uint8_t)(1 + (first + i * 7 + i / 253) % 255); /* never 0 */
	return b;
}

static bool choose_create(struct op *op)
{
	static const mode_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFREG,  S_IFDIR,
				       S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR};

	op->obj = free_slot();
	op->dir = pick(fits_dir);
	pick_name(op->name);
	if (op->obj < 0 || op->dir < 0 || count_objects() > 250 || name_at(op->dir, op->name) >= 0)
		return false;
	op->mode = types[rnd(sizeof(types) / sizeof(types[0]))] | (uint32_t)rnd(01000);
	if (S_ISLNK(op->mode)) {
		op->len = 1 + (uint32_t)rnd(60);
		op->data = bytes(op->len);
		op->mode |= 0777;
	}
	if (S_ISCHR(op->mode))
		op->rdev = makedev(1, 3 + rnd(5));
	if (S_ISREG(op->mode) && chance(8)) {
		op->flags = SC_LOG_F_ANON;
		op->dir = -1;
		op->name[0] = '\0';
	}
	return true;
}

static bool choose_unlink(struct op *op)
{
	struct mname *n;

	if (!nnames)
		return false;
	n = &names[rnd((uint64_t)nnames)];
	op->dir = n->dir;
	op->obj = n->obj;
	strcpy(op->name, n->text);
	if (objects[op->dir].locked || objects[op->obj].locked ||
	    objects[op->obj].flags & FS_APPEND_FL)
		return false;
	if (S_ISDIR(objects[op->obj].mode) && !is_empty(op->obj))
		return false;
	if (objects[op->obj].open && links_of(op->obj) == 1)
		op->flags |= SC_LOG_F_KEPT;
	return true;
}

static bool choose_rename(struct op *op)
{
	bool dir1, dir2;
	int j;

	if (!choose_unlink(&(struct op){0}) && !nnames)
		return false;
	j = (int)rnd((uint64_t)nnames);
	op->dir = names[j].dir;
	op->obj = names[j].obj;
	strcpy(op->name, names[j].text);
	op->dir2 = pick(fits_dir);
	pick_name(op->name2);
	if (op->dir2 < 0 || objects[op->dir].locked || objects[op->obj].locked ||
	    objects[op->obj].flags & FS_APPEND_FL)
		return false;
	j = name_at(op->dir2, op->name2);
	op->obj2 = j < 0 ? -1 : names[j].obj;
	dir1 = S_ISDIR(objects[op->obj].mode);
	if (dir1 && is_below(op->dir2, op->obj))
		return false;
	if (op->obj2 < 0)
		return true;
	dir2 = S_ISDIR(objects[op->obj2].mode);
	if (objects[op->obj2].locked || objects[op->obj2].flags & FS_APPEND_FL ||
	    op->obj == op->obj2)
		return false;
	if (chance(40)) {
		op->flags |= SC_LOG_F_EXCHANGE;
		return !dir2 || !is_below(op->dir, op->obj2);
	}
	if (dir1 != dir2 || (dir2 && (!is_empty(op->obj2) || is_below(op->dir, op->obj2))))
		return false;
	if (objects[op->obj2].open && links_of(op->obj2) == 1)
		op->flags |= SC_LOG_F_KEPT;
	return true;
}

static bool choose_data(struct op *op)
{
	op->obj = pick(fits_reg);
	if (op->obj < 0)
		return false;
	if (op->kind == SC_LOG_WRITE) {
		op->off = chance(40) ? objects[op->obj].size : rnd(MAX_DATA / 2);
		op->len = 1 + (uint32_t)rnd(chance(70) ? 500 : 20000);
		op->size = op->len;
		if (op->off + op->len > MAX_DATA)
			return false;
		op->data = bytes(op->len);
	} else if (op->kind == SC_LOG_TRUNCATE) {
		op->size = chance(30) ? 0 : rnd(MAX_DATA);
	} else if (op->kind == SC_LOG_FALLOCATE) {
		static const uint32_t modes[] = {
		    0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
		    FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};

		op->mode = modes[rnd(5)];
		op->off = rnd(MAX_DATA / 2);
		op->size = 1 + rnd(MAX_DATA / 2 - 1);
		/* ZERO_RANGE beyond the size and KEEP_SIZE would leave a model's bytes behind the end: they are zero */
	}
	return true;
}

static bool choose_attr(struct op *op)
{
	static const char *const attrs[] = {"user.a", "user.bb", "trusted.c", "trusted.d"};
	struct mobj *o;

	op->obj = pick(fits_any);
	if (op->kind == SC_LOG_SETFLAGS) /* also takes them away */
		for (int i = 1; i < MAX_OBJECTS; i++)
			if (objects[i].flags & FS_APPEND_FL && !objects[i].locked)
				op->obj = i;
	if (op->obj < 0)
		return false;
	o = &objects[op->obj];
	op->mode = o->mode;
	switch (op->kind) {
	case SC_LOG_CHMOD:
		op->mode = (uint32_t)rnd(010000);
		return !S_ISLNK(o->mode);
	case SC_LOG_CHOWN:
		op->uid = (uint32_t)rnd(5) * 1000;
		op->gid = (uint32_t)rnd(5) * 1000;
		return true;
	case SC_LOG_UTIMENS:
		op->off = 1000000000000000000ull + rnd(1000000000000ull);
		op->size = 1000000000000000000ull + rnd(1000000000000ull);
		return true;
	case SC_LOG_SETFLAGS:
		op->mode = (chance(50) ? FS_NODUMP_FL : 0) |
			   (S_ISREG(o->mode) && !o->flags && chance(20) ? FS_APPEND_FL : 0);
		return S_ISREG(o->mode); /* directories pass flags on, which LOG does not record */
	default:
		strcpy(op->name, attrs[S_ISREG(o->mode) || S_ISDIR(o->mode) ? rnd(4) : 2 + rnd(2)]);
		if (op->kind == SC_LOG_REMOVEXATTR)
			return attr_of(o, op->name);
		op->flags = attr_of(o, op->name) ? SC_LOG_F_WAS : 0;
		op->len = (uint32_t)rnd(90);
		op->data = bytes(op->len);
		return true;
	}
}

static bool choose(struct op *op)
{
	static const uint8_t kinds[] = {
	    SC_LOG_CREATE,   SC_LOG_CREATE,   SC_LOG_CREATE,   SC_LOG_CREATE,	   SC_LOG_LINK,
	    SC_LOG_LINK,     SC_LOG_UNLINK,   SC_LOG_UNLINK,   SC_LOG_UNLINK,	   SC_LOG_RENAME,
	    SC_LOG_RENAME,   SC_LOG_RENAME,   SC_LOG_RENAME,   SC_LOG_WRITE,	   SC_LOG_WRITE,
	    SC_LOG_WRITE,    SC_LOG_WRITE,    SC_LOG_WRITE,    SC_LOG_TRUNCATE,	   SC_LOG_FALLOCATE,
	    SC_LOG_CHMOD,    SC_LOG_CHOWN,    SC_LOG_UTIMENS,  SC_LOG_SETXATTR,	   SC_LOG_SETXATTR,
	    SC_LOG_SETFLAGS, SC_LOG_SETXATTR, SC_LOG_SETXATTR, SC_LOG_REMOVEXATTR, SC_LOG_BARRIER};

	bool few = rnd(80) > (uint64_t)count_objects();

	*op = (struct op){.kind = few && chance(40) ? SC_LOG_CREATE : kinds[rnd(sizeof(kinds))],
			  .dir = -1,
			  .dir2 = -1,
			  .obj = -1,
			  .obj2 = -1};
	switch (op->kind) {
	case SC_LOG_CREATE:
		return choose_create(op);
	case SC_LOG_LINK:
		op->obj = pick(fits_linkable);
		op->dir = pick(fits_dir);
		pick_name(op->name);
		return op->obj >= 0 && op->dir >= 0 && name_at(op->dir, op->name) < 0;
	case SC_LOG_UNLINK:
		return choose_unlink(op);
	case SC_LOG_RENAME:
		return choose_rename(op);
	case SC_LOG_WRITE:
	case SC_LOG_TRUNCATE:
	case SC_LOG_FALLOCATE:
		return choose_data(op);
	case SC_LOG_BARRIER:
		op->obj = pick(fits_reg);
		return op->obj >= 0 && chance(30);
	default:
		return choose_attr(op);
	}
}

/* Opens and closes: nothing of the log's. */
static void open_or_close(void)
{
	int obj = pick(fits_reg);
	struct mobj *o = &objects[obj];
	char name[REPLAY_ORPHAN_NAME];

	if (obj < 0)
		return;
	if (!o->open) {
		o->open = true;
		return;
	}
	o->open = false;
	replay_orphan_name(&o->fid, name);
	for (int dir = orphans(); dir >= 0; dir = -1) {
		unlinkat(dir, name, 0);
		close(dir);
	}
	lose(obj);
}

static void sync_somehow(void)
{
	int obj, fd;

	switch (rnd(4)) {
	case 0:
		syncfs(mnt);
		return;
	case 1:
		checkpoint();
		return;
	default:
		obj = pick(rnd(2) ? fits_reg : fits_dir);
		if (obj < 0)
			return;
		fd = obj_open(obj, O_RDONLY);
		if (chance(50))
			fsync(fd);
		else
			sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		close(fd);
	}
}

static void random_ops(int n)
{
	struct op op;

	for (int i = 0; i < n; i++) {
		enum how how = HOW_DONE;

		if (chance(6))
			open_or_close();
		if (chance(3))
			sync_somehow();
		if (npending < MAX_PENDING && i > n * 2 / 3 && chance(8))
			how = chance(65) ? HOW_UNNOTED : HOW_INTENT;
		if (choose(&op))
			run_op(&op, how);
		free(op.data);
	}
}

/* ---- replaying ---- */

static bool is_open(void *arg, const struct sc_fid *fid)
{
	for (int i = 1; i < MAX_OBJECTS; i++)
		if (objects[i].used && objects[i].open &&
		    !memcmp(&objects[i].fid, fid, sizeof(*fid)))
			return true;
	return false;
}

/* Crashes in the middle: the linker sends replay's system calls here (--wrap). */
static int calls_left = -1;
static bool drop_too;

static void count_call(void)
{
	if (calls_left < 0 || calls_left-- > 0)
		return;
	if (drop_too)
		drop();
	_exit(3);
}

#define WRAP(name, params, args)           \
	int __real_##name params;          \
	int __wrap_##name params;          \
	int __wrap_##name params           \
	{                                  \
		count_call();              \
		return __real_##name args; \
	}

WRAP(linkat, (int a, const char *b, int c, const char *d, int e), (a, b, c, d, e))
WRAP(renameat2, (int a, const char *b, int c, const char *d, unsigned int e), (a, b, c, d, e))
WRAP(unlinkat, (int a, const char *b, int c), (a, b, c))
WRAP(mkdirat, (int a, const char *b, mode_t c), (a, b, c))
WRAP(mknodat, (int a, const char *b, mode_t c, dev_t d), (a, b, c, d))
WRAP(symlinkat, (const char *a, int b, const char *c), (a, b, c))
WRAP(ftruncate64, (int a, off_t b), (a, b))
WRAP(truncate64, (const char *a, off_t b), (a, b))
WRAP(chmod, (const char *a, mode_t b), (a, b))
WRAP(fchownat, (int a, const char *b, uid_t c, gid_t d, int e), (a, b, c, d, e))
WRAP(setxattr, (const char *a, const char *b, const void *c, size_t d, int e), (a, b, c, d, e))
WRAP(name_to_handle_at, (int a, const char *b, struct file_handle *c, int *d, int e),
     (a, b, c, d, e))
WRAP(syncfs, (int a), (a))
ssize_t __real_pwrite64(int a, const void *b, size_t c, off_t d);
ssize_t __wrap_pwrite64(int a, const void *b, size_t c, off_t d);
ssize_t __wrap_pwrite64(int a, const void *b, size_t c, off_t d)
{
	count_call();
	return __real_pwrite64(a, b, c, d);
}

static void start_replay(struct replay *r)
{
	*r = (struct replay){.log = slog, .size = slog_size, .root = mnt, .is_open = is_open};
}

/* One that does not come to its end. */
static void crash_replay(void)
{
	struct replay r;
	int status;
	pid_t child;

	calls_left = (int)rnd(chance(50) ? 60 : 600);
	drop_too = chance(70);
	stat_.replays++;
	child = fork();
	if (child == 0) {
		start_replay(&r);
		if (!replay_run(&r)) {
			fprintf(stderr, "replay-lab: seed %llu, cycle %d: %s\n",
				(unsigned long long)seed, cycle, r.error);
			_exit(1);
		}
		calls_left = -1;
		if (inodes_moved(&inodes, kept, KEPT_INODES, &r) && drop_too)
			drop();
		_exit(3);
	}
	calls_left = -1;
	if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 3)
		die("a replay that was to be crashed has failed");
	if (drop_too)
		remount();
	inodes_free(&inodes);
	if (!inodes_load(&inodes, kept, KEPT_INODES, slog->synced))
		die("inode numbers");
}

static void replay(struct replay *r)
{
	start_replay(r);
	stat_.replays++;
	if (!replay_run(r))
		die("replay: %s", r->error);
	if (r->lost)
		die("replay has lost %llu", (unsigned long long)r->lost);
	stat_.moved += r->nmoved;
	stat_.counted += r->counted_done;
	for (size_t i = 0; i < r->nmoved; i++)
		stat_.exchanged += r->moved[i].was_ino != r->moved[i].now_ino;
	if (!inodes_moved(&inodes, kept, KEPT_INODES, r))
		die("inode numbers");
	for (int i = 0; i < MAX_OBJECTS; i++) {
		struct sc_fid now;

		if (objects[i].used && replay_moved(r, &objects[i].fid, &now))
			objects[i].fid = now;
	}
	replay_commit(r);
	inodes_committed(kept, KEPT_INODES, slog->synced);
	slog->head = slog->synced;
	replay_free(r);
}

/* What was pending is executed again, or counted. Names: now or never. */
static void settle_pending(bool data)
{
	for (int i = 0; i < npending; i++) {
		struct op *op = &pending[i];
		bool is_data = op->kind >= SC_LOG_WRITE && op->kind != SC_LOG_SETXATTR &&
			       op->kind != SC_LOG_REMOVEXATTR;
		bool xattr_may_be = op->kind == SC_LOG_SETXATTR && op->flags & SC_LOG_F_WAS;

		if (!op->kind)
			continue;
		/* What is undone has its time perhaps. */
		if (op->dir >= 0)
			objects[op->dir].mtime = 0;
		if (op->dir2 >= 0)
			objects[op->dir2].mtime = 0;
		if (op->kind == SC_LOG_RENAME)
			unknown_times(op);
		if (op->rec->state == SC_LOG_DONE) {
			model_op(op);
		} else if (data && !is_data && !xattr_may_be) {
			continue;
		} else if (is_data || xattr_may_be || chance(50)) {
			lock_all(op, false);
			stat_.undone++;
			run_op(op, HOW_DONE);
		}
		lock_all(op, false);
		free(op->data);
		op->kind = 0;
	}
	if (!data)
		npending = 0;
}

/* ---- comparing ---- */

static void compare_times(int obj, const struct stat *st)
{
	const struct mobj *o = &objects[obj];
	int64_t m = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
	int64_t a = st->st_atim.tv_sec * 1000000000ll + st->st_atim.tv_nsec;
	int64_t off = m > o->mtime ? m - o->mtime : o->mtime - m;

	if (obj && o->mtime && (o->exact ? off != 0 : off > NEAR_NS))
		die("object %d: mtime %lld, %lld wanted%s", obj, (long long)m, (long long)o->mtime,
		    o->exact ? "" : " about");
	if (o->atime_exact && S_ISREG(o->mode) && a != o->atime && false)
		die("object %d: atime", obj);
}

static void compare_attrs(int obj, int fd)
{
	struct mobj *o = &objects[obj];
	uint8_t value[128];
	char list[512];
	ssize_t n;
	int want = 0, have = 0;

	for (int i = 0; i < MAX_XATTRS; i++) {
		if (!o->attr[i].name[0])
			continue;
		want++;
		n = getxattr(proc_of(fd), o->attr[i].name, value, sizeof(value));
		if (n != (ssize_t)o->attr[i].len || memcmp(value, o->attr[i].value, (size_t)n) != 0)
			die("object %d: attribute %s: %zd bytes, %u wanted", obj, o->attr[i].name,
			    n, o->attr[i].len);
	}
	n = listxattr(proc_of(fd), list, sizeof(list));
	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		have += !strncmp(p, "user.", 5) || !strncmp(p, "trusted.", 8);
	if (have != want)
		die("object %d: %d attributes, %d wanted", obj, have, want);
}

static void compare_data(int obj)
{
	static uint8_t buf[MAX_DATA + 1];
	struct mobj *o = &objects[obj];
	int fd = obj_open(obj, O_RDONLY | O_NOATIME);
	ssize_t n = pread(fd, buf, sizeof(buf), 0);
	int flags = 0;

	if (n != (ssize_t)o->size)
		die("object %d: %zd bytes, %u wanted", obj, n, o->size);
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != o->data[i])
			die("object %d: byte %zd is %d, not %d", obj, i, buf[i], o->data[i]);
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 &&
	    ((uint32_t)flags & (FS_NODUMP_FL | FS_APPEND_FL)) != o->flags)
		die("object %d: flags %x, %x wanted", obj, flags, o->flags);
	close(fd);
}

/* nlink: what the model says. */
static void compare_object(int obj, int nlink)
{
	struct mobj *o = &objects[obj];
	int fd = obj_open(obj, O_PATH);
	char text[128];
	struct stat st;

	if (fstat(fd, &st) < 0)
		die("fstat: %s", strerror(errno));
	if (st.st_mode != o->mode && obj)
		die("object %d: mode %o, %o wanted", obj, st.st_mode, o->mode);
	if (obj && (st.st_uid != o->uid || st.st_gid != o->gid))
		die("object %d: owner %u:%u, %u:%u wanted", obj, st.st_uid, st.st_gid, o->uid,
		    o->gid);
	if (!S_ISDIR(o->mode) && (int)st.st_nlink != nlink)
		die("object %d: %d links, %d wanted", obj, (int)st.st_nlink, nlink);
	if (inode_shown(&inodes, st.st_dev, st.st_ino) != o->ino)
		die("object %d: its number is %llu, shown as %llu, was %llu", obj,
		    (unsigned long long)st.st_ino,
		    (unsigned long long)inode_shown(&inodes, st.st_dev, st.st_ino),
		    (unsigned long long)o->ino);
	if (S_ISCHR(o->mode) && st.st_rdev != o->rdev)
		die("object %d: device", obj);
	if (S_ISLNK(o->mode)) {
		ssize_t n = readlinkat(fd, "", text, sizeof(text));

		if (n != (ssize_t)strlen(o->link) || memcmp(text, o->link, (size_t)n) != 0)
			die("object %d: link's text", obj);
	}
	compare_times(obj, &st);
	compare_attrs(obj, fd);
	close(fd);
	if (S_ISREG(o->mode))
		compare_data(obj);
}

static void compare_dir(int obj)
{
	int fd = obj_open(obj, O_RDONLY | O_DIRECTORY), have = 0, want = 0;
	DIR *d = fdopendir(fd);
	struct dirent *e;

	while ((e = readdir(d))) {
		struct sc_fid fid;
		int i;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    (!obj && (!strcmp(e->d_name, SC_OWN_DIR) || !strcmp(e->d_name, "lost+found"))))
			continue;
		have++;
		i = name_at(obj, e->d_name);
		if (i < 0)
			die("directory %d: \"%s\" should not be there", obj, e->d_name);
		fid_of(fd, e->d_name, &fid);
		if (memcmp(&fid, &objects[names[i].obj].fid, sizeof(fid)) != 0)
			die("directory %d: \"%s\" is another file than object %d", obj, e->d_name,
			    names[i].obj);
	}
	closedir(d);
	for (int i = 0; i < nnames; i++)
		want += names[i].dir == obj;
	if (have != want)
		die("directory %d: %d entries, %d wanted", obj, have, want);
}

static int count_entries(const char *path)
{
	int fd = openat(mnt, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = -2;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void compare_all(void)
{
	char name[REPLAY_ORPHAN_NAME];
	int dir = orphans();

	for (int i = 0; i < MAX_OBJECTS; i++) {
		int nlink = links_of(i);

		if (!objects[i].used)
			continue;
		if (S_ISDIR(objects[i].mode))
			compare_dir(i);
		replay_orphan_name(&objects[i].fid, name);
		if (faccessat(dir, name, F_OK, 0) == 0) {
			nlink++;
			stat_.orphans++;
		} else if (!nlink && i) {
			die("object %d, open without name, is not among the orphans", i);
		}
		compare_object(i, nlink);
	}
	close(dir);
	if (count_entries(SC_OWN_DIR "/" SC_OWN_STAGE))
		die("the stage is not empty");
}

/* Orphans that nobody has open: as the agent does it at its start. */
static void clean_orphans(void)
{
	int fd = orphans();
	DIR *d = fdopendir(fd);
	struct dirent *e;

	while ((e = readdir(d))) {
		bool used = false;

		for (int i = 1; i < MAX_OBJECTS && !used; i++) {
			char name[REPLAY_ORPHAN_NAME];

			replay_orphan_name(&objects[i].fid, name);
			used = objects[i].used && objects[i].open && !strcmp(name, e->d_name);
		}
		if (!used && e->d_name[0] != '.')
			unlinkat(fd, e->d_name, 0);
	}
	closedir(d);
}

/* ---- the whole ---- */

static void one_cycle(int ops)
{
	struct replay r;

	random_ops((int)rnd((uint64_t)ops));
	drop();
	remount();
	while (chance(40))
		crash_replay();
	replay(&r);
	clean_orphans();
	settle_pending(true);
	compare_all();
	settle_pending(false);
	stat_.cycles++;
}

/* An empty file system, mounted, and the model of it. */
static void make_image(bool large)
{
	struct stat st;

	run("truncate -s %s %s && mkfs.%s %s %s >/dev/null 2>&1",
	    large		  ? "900M"
	    : !strcmp(fs, "ext4") ? "64M"
	    : !strcmp(fs, "xfs")  ? "320M"
				  : "256M",
	    image, fs, !strcmp(fs, "ext4") ? "-q -I 256 -i 8192 -O ^resize_inode -J size=8" : "-q",
	    image);
	by_copy = !strcmp(fs, "btrfs");
	attach();
	mount_it();
	make_own();
	memset(objects, 0, sizeof(objects));
	objects[0] = (struct mobj){.used = true, .mode = S_IFDIR | 0755};
	fid_of(mnt, "", &objects[0].fid);
	fstat(mnt, &st);
	objects[0].ino = st.st_ino;
	objects[0].mode = st.st_mode;
	syncfs(mnt);
}

static void set_up(const char *dir, bool large)
{
	if (geteuid() != 0)
		skip("needs root");
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", "", MS_REC | MS_PRIVATE, "") < 0)
		skip("no mount namespace of its own: %s", strerror(errno));
	umask(0);
	snprintf(image, sizeof(image), "%s/replay-lab.%d", dir, (int)getpid());
	snprintf(where, sizeof(where), "%s.mnt", image);
	if (mkdir(where, 0700) < 0)
		die("%s: %s", where, strerror(errno));
	make_image(large);
	kept = mmap(NULL, KEPT_INODES * sizeof(*kept), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kept == MAP_FAILED)
		die("no memory");
}

static void tear_down(void)
{
	if (mnt >= 0)
		close(mnt);
	umount2(where, MNT_DETACH);
	rmdir(where);
	unlink(image);
	if (loop_fd >= 0)
		close(loop_fd);
}

/* ---- a log that a mad agent wrote ---- */

static struct sc_log_rec *any_record(void)
{
	static struct sc_log_rec *all[4096];
	const char *wrong;
	int n = 0;

	for (uint64_t at = slog->synced; at < slog->tail && n < 4096;) {
		struct sc_log_rec *r = logrec_at(slog, at, slog->tail, &wrong);

		if (!r)
			break;
		if (r->kind != SC_LOG_PAD && r->state != SC_LOG_EMPTY)
			all[n++] = r;
		at += r->len;
	}
	return n ? all[rnd((uint64_t)n)] : NULL;
}

/* Changes something, and makes the checksums right again, mostly. */
static void spoil(struct sc_log_rec *r)
{
	static const char bad[][4] = {".", "..", "/", "a/b", ""};
	struct sc_fid *fids[] = {&r->obj, &r->dir, &r->obj2, &r->dir2};
	struct sc_log_rec *other = any_record();
	const struct sc_fid *theirs[] = {&other->obj, &other->dir, &other->obj2, &other->dir2};
	uint32_t n;

	switch (rnd(9)) {
	case 0: /* a directory under itself, two names of a directory, other types ... */
	case 1:
	case 2:
		*fids[rnd(4)] = *theirs[rnd(4)];
		break;
	case 3:
		n = (uint32_t)rnd(5);
		if (r->name_len >= 4)
			memcpy(r->body, bad[n], strlen(bad[n]) + 1);
		break;
	case 4:
		r->kind = (uint16_t)rnd(SC_LOG_KINDS + 1);
		break;
	case 5:
		r->state = (uint16_t)rnd(5);
		break;
	case 6:
		r->flags ^= 1u << rnd(7);
		break;
	case 7:
		r->off = rnd(2) ? UINT64_MAX - rnd(4) : rnd(1ull << 50);
		r->size = rnd(2) ? UINT64_MAX - rnd(4) : r->size;
		break;
	default:
		((uint8_t *)r)[rnd(r->len < 400 ? r->len : 400)] ^= (uint8_t)(1u << rnd(8));
	}
	if (chance(95)) {
		r->check = logrec_check(r);
		r->done_check = r->state == SC_LOG_DONE ? logrec_done_check(r) : 0;
	}
}

/* What such a log says is done or refused, but nothing else happens. */
static void hostile_cycle(int ops)
{
	struct stat st;
	int status;

	random_ops(ops);
	for (int i = (int)rnd(12); i >= 0 && slog->tail > slog->synced; i--) {
		struct sc_log_rec *r = any_record();

		if (r)
			spoil(r);
	}
	drop();
	remount();
	if (fork() == 0) {
		struct replay r;

		start_replay(&r);
		if (!replay_run(&r) && !r.error[0])
			_exit(1);
		_exit(0);
	}
	if (wait(&status) < 0 || status != 0)
		die("a spoiled log: the replay has ended with status %x", (unsigned int)status);
	if (fstatat(mnt, SC_OWN_DIR, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
		die("a spoiled log: " SC_OWN_DIR " is gone");
	stat_.cycles++;
}

/* Begins with an empty file system and model. */
static void hostile(int cycles, int ops)
{
	for (cycle = 0; cycle < cycles; cycle++) {
		hostile_cycle(ops);
		unmount();
		for (int i = 0; i < MAX_OBJECTS; i++)
			free_object(i);
		for (int i = 0; i < npending; i++)
			free(pending[i].data);
		nnames = npending = 0;
		make_image(false);
		slog->head = slog->synced = slog->tail;
	}
}

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* How long a full log takes: a tool for people. */
static void bench(const char *what)
{
	bool creates = !strcmp(what, "creates");
	int n = creates ? 100000 : 14000;
	struct op op = {.kind = SC_LOG_CREATE,
			.dir = 0,
			.dir2 = -1,
			.obj2 = -1,
			.obj = 1,
			.mode = S_IFREG | 0644};
	struct replay r;
	double at, cpu;

	make_log(64u << 20);
	strcpy(op.name, "file");
	if (!creates && !run_op(&op, HOW_DONE))
		die("no file");
	for (int i = 0; i < n; i++) {
		if (creates) {
			struct sc_log_rec *rec;

			sprintf(op.name, "file%d", i);
			rec = record(&op);
			if (!rec || do_op(&op) < 0)
				die("create %d", i);
			learn_created(&op, rec);
			note_done(rec, 0);
		} else {
			op = (struct op){.kind = SC_LOG_WRITE,
					 .dir = -1,
					 .dir2 = -1,
					 .obj2 = -1,
					 .obj = 1,
					 .len = 4096,
					 .size = 4096};
			op.off = 4096 * rnd(6000);
			op.data = bytes(op.len);
			op.rec = record(&op);
			if (!op.rec || do_op(&op) < 0)
				die("write %d", i);
			note_done(op.rec, op.len);
			free(op.data);
		}
	}
	drop();
	remount();
	start_replay(&r);
	at = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	if (!replay_run(&r))
		die("%s", r.error);
	printf(
	    "%s: %s: %d records, %.1f MiB of log, replayed in %.2f s (%.2f s of CPU; %zu made once "
	    "more)\n",
	    fs, what, n, (double)(slog->tail - slog->synced) / 1048576.0,
	    seconds(CLOCK_MONOTONIC) - at, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, r.nmoved);
	replay_free(&r);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"fs", 1, 0, 'f'},	  {"seed", 1, 0, 's'},	  {"cycles", 1, 0, 'c'},
	    {"ops", 1, 0, 'o'},	  {"image", 1, 0, 'i'},	  {"verbose", 0, 0, 'v'},
	    {"bench", 1, 0, 'b'}, {"hostile", 0, 0, 'h'}, {0}};
	const char *dir = "/dev/shm", *what = NULL;
	bool mad = false;
	int cycles = 100, ops = 400, c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			fs = optarg;
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			cycles = atoi(optarg);
			break;
		case 'o':
			ops = atoi(optarg);
			break;
		case 'i':
			dir = optarg;
			break;
		case 'v':
			verbose = true;
			break;
		case 'h':
			mad = true;
			break;
		case 'b':
			what = optarg;
			break;
		default:
			return 2;
		}
	}
	if (!seed)
		while (getrandom(&seed, 4, 0) < 0)
			;
	rng = seed * 0x9e3779b97f4a7c15ull | 1;
	log_init(LOG_INFO, -1);
	atexit(tear_down);
	set_up(dir, what);
	if (what) {
		bench(what);
		return 0;
	}
	make_log(64u << rnd(15) << 8);
	printf("%s: seed %llu, ring %llu KiB\n", fs, (unsigned long long)seed,
	       (unsigned long long)slog->ring >> 10);
	fflush(stdout);
	if (mad) {
		hostile(cycles, ops);
		return 0;
	}
	for (cycle = 0; cycle < cycles; cycle++)
		one_cycle(ops);
	printf(
	    "%s: %llu cycles, %llu operations, %llu crashes, %llu replays; %llu files made once "
	    "more (%llu with another "
	    "number), %llu pending executed again, %llu counted as done, %llu open without name\n",
	    fs, (unsigned long long)stat_.cycles, (unsigned long long)stat_.ops,
	    (unsigned long long)stat_.crashes, (unsigned long long)stat_.replays,
	    (unsigned long long)stat_.moved, (unsigned long long)stat_.exchanged,
	    (unsigned long long)stat_.undone, (unsigned long long)stat_.counted,
	    (unsigned long long)stat_.orphans);
	return 0;
}
