/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scfsx - random file operations checked against a model.
 *
 * Each process keeps one file and, in memory, the bytes it must hold. It picks operations at random
 * from a seed (write, append, read by every call there is, truncate, punch, seek, reopen, rename,
 * link and unlink, stat, sync, private mapping, stores into and looks at a shared mapping that stays
 * through all that), applies them to both, and compares. The first
 * difference is printed with the operations that led to it, and the exit status is 1. With
 * --processes N, N processes work side by side in one directory, each on a file of its own.
 *
 * The same seed makes the same operations, natively or under scrun.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_LINES 24

/* One process's world. */
struct fsx {
	uint64_t rng;	  /* xorshift state, never 0 */
	size_t max;	  /* largest file, bytes */
	uint8_t *model;	  /* max bytes; beyond size all zero */
	uint8_t *scratch; /* max bytes */
	size_t size;	  /* model's length */
	size_t pos;	  /* descriptor's own position */
	int fd;
	char path[2][4096]; /* the two names the file moves between */
	int name;	    /* which one it has now */
	uint8_t *shared;    /* a mapping of max bytes, or NULL */
	unsigned long op;   /* operations done */
	char log[LOG_LINES][96];
};

static uint64_t rnd(struct fsx *f)
{
	f->rng ^= f->rng << 13;
	f->rng ^= f->rng >> 7;
	f->rng ^= f->rng << 17;
	return f->rng;
}

static size_t below(struct fsx *f, size_t n)
{
	return n ? rnd(f) % n : 0;
}

__attribute__((format(printf, 2, 3))) static void note(struct fsx *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->log[f->op % LOG_LINES], sizeof(f->log[0]), fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(struct fsx *f, const char *fmt,
								 ...)
{
	unsigned long i = f->op >= LOG_LINES ? f->op - LOG_LINES + 1 : 0;
	va_list ap;

	printf("scfsx: operation %lu: ", f->op);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\nlast operations:\n");
	for (; i <= f->op; i++)
		printf("  %lu %s\n", i, f->log[i % LOG_LINES]);
	fflush(stdout);
	_exit(1);
}

static void must(struct fsx *f, bool ok, const char *what)
{
	if (!ok)
		fail(f, "%s: %s", what, strerror(errno));
}

static void compare(struct fsx *f, const uint8_t *got, size_t off, size_t len, const char *what)
{
	for (size_t i = 0; i < len; i++)
		if (got[i] != f->model[off + i])
			fail(f, "%s: byte %zu is 0x%02x, must be 0x%02x (range %zu+%zu, size %zu)",
			     what, off + i, got[i], f->model[off + i], off, len, f->size);
}

/* Sizes people use: mostly small, sometimes page-like, sometimes large. */
static size_t some_len(struct fsx *f, size_t limit)
{
	size_t n;

	switch (below(f, 4)) {
	case 0:
		n = below(f, 64);
		break;
	case 1:
		n = 4096 * (1 + below(f, 4));
		break;
	default:
		n = below(f, f->max / (1 + below(f, 16)) + 1);
	}
	return n < limit ? n : limit;
}

static void fill(struct fsx *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f->scratch[i] = (uint8_t)(rnd(f) >> 24);
}

static void model_write(struct fsx *f, size_t off, size_t len)
{
	memcpy(f->model + off, f->scratch, len);
	if (len && off + len > f->size)
		f->size = off + len;
}

static void op_pwrite(struct fsx *f)
{
	size_t off = below(f, f->size + f->size / 4 + 10);
	size_t len;

	if (off > f->max)
		off = f->max;
	len = some_len(f, f->max - off);
	fill(f, len);
	note(f, "pwrite %zu+%zu", off, len);
	must(f, pwrite(f->fd, f->scratch, len, (off_t)off) == (ssize_t)len, "pwrite");
	model_write(f, off, len);
}

static void op_write(struct fsx *f)
{
	size_t len = f->pos <= f->max ? some_len(f, f->max - f->pos) : 0;

	fill(f, len);
	note(f, "write %zu+%zu", f->pos, len);
	must(f, write(f->fd, f->scratch, len) == (ssize_t)len, "write");
	model_write(f, f->pos, len);
	f->pos += len;
}

static void op_writev(struct fsx *f)
{
	size_t off = below(f, f->size + 1);
	size_t len = some_len(f, f->max - off);
	size_t a = below(f, len + 1);
	struct iovec v[3] = {{f->scratch, a}, {f->scratch, 0}, {f->scratch + a, len - a}};

	fill(f, len);
	note(f, "pwritev %zu+%zu", off, len);
	must(f, pwritev(f->fd, v, 3, (off_t)off) == (ssize_t)len, "pwritev");
	model_write(f, off, len);
}

static size_t expect_len(const struct fsx *f, size_t off, size_t len)
{
	if (off >= f->size)
		return 0;
	return len < f->size - off ? len : f->size - off;
}

static void op_pread(struct fsx *f)
{
	size_t off = below(f, f->size + 100);
	size_t len = some_len(f, f->max);
	ssize_t n;

	note(f, "pread %zu+%zu", off, len);
	memset(f->scratch, 0xa5, len);
	n = pread(f->fd, f->scratch, len, (off_t)off);
	if (n != (ssize_t)expect_len(f, off, len))
		fail(f, "pread returned %zd, must be %zu (size %zu)", n, expect_len(f, off, len),
		     f->size);
	compare(f, f->scratch, off, (size_t)n, "pread");
	for (size_t i = (size_t)n; i < len; i++)
		if (f->scratch[i] != 0xa5)
			fail(f, "pread wrote beyond its result at %zu", i);
}

static void op_read(struct fsx *f)
{
	size_t len = some_len(f, f->max);
	ssize_t n;

	note(f, "read at %zu, %zu", f->pos, len);
	n = read(f->fd, f->scratch, len);
	if (n != (ssize_t)expect_len(f, f->pos, len))
		fail(f, "read returned %zd, must be %zu", n, expect_len(f, f->pos, len));
	compare(f, f->scratch, f->pos, (size_t)n, "read");
	f->pos += (size_t)n;
}

static void op_readv(struct fsx *f)
{
	size_t off = below(f, f->size + 1);
	size_t len = some_len(f, f->max);
	size_t a = below(f, len + 1);
	struct iovec v[2] = {{f->scratch, a}, {f->scratch + a, len - a}};
	ssize_t n;

	note(f, "preadv %zu+%zu", off, len);
	n = preadv(f->fd, v, 2, (off_t)off);
	if (n != (ssize_t)expect_len(f, off, len))
		fail(f, "preadv returned %zd, must be %zu", n, expect_len(f, off, len));
	compare(f, f->scratch, off, (size_t)n, "preadv");
}

static void op_truncate(struct fsx *f)
{
	size_t to = below(f, f->max + 1);

	note(f, "truncate %zu to %zu", f->size, to);
	if (rnd(f) & 1)
		must(f, ftruncate(f->fd, (off_t)to) == 0, "ftruncate");
	else
		must(f, truncate(f->path[f->name], (off_t)to) == 0, "truncate");
	if (to < f->size)
		memset(f->model + to, 0, f->size - to);
	f->size = to;
}

static void op_punch(struct fsx *f)
{
	size_t off = below(f, f->size + 1);
	size_t len = 1 + below(f, f->max / 4);
	size_t end;

	note(f, "punch %zu+%zu", off, len);
	if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) !=
	    0) {
		must(f, errno == EOPNOTSUPP, "fallocate");
		return;
	}
	end = off + len < f->size ? off + len : f->size;
	if (off < end)
		memset(f->model + off, 0, end - off);
}

static void op_seek(struct fsx *f)
{
	size_t to = below(f, f->max);
	off_t r;

	note(f, "seek to %zu (size %zu)", to, f->size);
	switch (below(f, 3)) {
	case 0:
		r = lseek(f->fd, (off_t)to, SEEK_SET);
		break;
	case 1:
		r = lseek(f->fd, (off_t)to - (off_t)f->pos, SEEK_CUR);
		break;
	default:
		r = lseek(f->fd, (off_t)to - (off_t)f->size, SEEK_END);
	}
	if (r != (off_t)to)
		fail(f, "lseek returned %jd, must be %zu", (intmax_t)r, to);
	f->pos = to;
}

static void op_reopen(struct fsx *f)
{
	bool direct = below(f, 8) == 0;

	note(f, "reopen%s", direct ? " O_SYNC" : "");
	must(f, close(f->fd) == 0, "close");
	f->fd = open(f->path[f->name], O_RDWR | (direct ? O_SYNC : 0));
	must(f, f->fd >= 0, "open");
	f->pos = 0;
}

static void op_append(struct fsx *f)
{
	size_t len = some_len(f, f->max - f->size);
	int fd = open(f->path[f->name], O_WRONLY | O_APPEND);

	fill(f, len);
	note(f, "append %zu at %zu", len, f->size);
	must(f, fd >= 0, "open O_APPEND");
	must(f, write(fd, f->scratch, len) == (ssize_t)len, "append");
	must(f, close(fd) == 0, "close");
	model_write(f, f->size, len);
}

static void op_rename(struct fsx *f)
{
	note(f, "rename");
	must(f, rename(f->path[f->name], f->path[!f->name]) == 0, "rename");
	must(f, access(f->path[f->name], F_OK) == -1 && errno == ENOENT, "old name after rename");
	f->name = !f->name;
}

static void op_link(struct fsx *f)
{
	struct stat st;

	note(f, "link and unlink");
	must(f, link(f->path[f->name], f->path[!f->name]) == 0, "link");
	must(f, fstat(f->fd, &st) == 0 && st.st_nlink == 2, "fstat of linked file");
	must(f, link(f->path[f->name], f->path[!f->name]) == -1 && errno == EEXIST, "second link");
	must(f, unlink(f->path[f->name]) == 0, "unlink");
	f->name = !f->name;
}

static void op_stat(struct fsx *f)
{
	struct stat a, b;

	note(f, "stat");
	must(f, fstat(f->fd, &a) == 0, "fstat");
	must(f, stat(f->path[f->name], &b) == 0, "stat");
	if (a.st_size != (off_t)f->size || b.st_size != a.st_size || a.st_ino != b.st_ino ||
	    a.st_dev != b.st_dev)
		fail(f, "stat: sizes %jd and %jd, must be %zu", (intmax_t)a.st_size,
		     (intmax_t)b.st_size, f->size);
}

static void op_sync(struct fsx *f)
{
	note(f, "fsync");
	must(f, (rnd(f) & 1 ? fsync(f->fd) : fdatasync(f->fd)) == 0, "fsync");
}

static void op_map(struct fsx *f)
{
	uint8_t *m;

	note(f, "mmap %zu", f->size);
	if (!f->size)
		return;
	m = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, f->fd, 0);
	must(f, m != MAP_FAILED, "mmap");
	compare(f, m, 0, f->size, "mmap");
	m[below(f, f->size)] ^= 0xff; /* private: must not show in the file */
	must(f, munmap(m, f->size) == 0, "munmap");
}

/* Makes the shared mapping, or ends it. Its descriptor does not stay. */
static void op_share(struct fsx *f)
{
	int fd;

	note(f, f->shared ? "end of the shared mapping" : "shared mapping");
	if (f->shared) {
		must(f, munmap(f->shared, f->max) == 0, "munmap");
		f->shared = NULL;
		return;
	}
	fd = open(f->path[f->name], O_RDWR);
	must(f, fd >= 0, "open");
	f->shared = mmap(NULL, f->max, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(f, f->shared != MAP_FAILED, "mmap");
	must(f, close(fd) == 0, "close");
}

static void op_store(struct fsx *f)
{
	size_t off = below(f, f->size), len = some_len(f, f->size - off);

	if (!f->shared)
		return;
	fill(f, len);
	note(f, "store %zu+%zu", off, len);
	memcpy(f->shared + off, f->scratch, len);
	model_write(f, off, len);
}

static void op_look(struct fsx *f)
{
	if (!f->shared)
		return;
	note(f, "look at the shared mapping, %zu", f->size);
	compare(f, f->shared, 0, f->size, "shared mapping");
}

static void op_msync(struct fsx *f)
{
	size_t off = below(f, f->size) & ~(size_t)4095;

	if (!f->shared)
		return;
	note(f, "msync from %zu", off);
	must(f, msync(f->shared + off, f->max - off, rnd(f) & 1 ? MS_SYNC : MS_ASYNC) == 0,
	     "msync");
}

static const struct {
	void (*run)(struct fsx *);
	unsigned weight;
} ops[] = {
    {op_pwrite, 8}, {op_write, 6},    {op_writev, 4}, {op_pread, 10}, {op_read, 8},
    {op_readv, 4},  {op_truncate, 2}, {op_punch, 2},  {op_seek, 6},   {op_reopen, 2},
    {op_append, 2}, {op_rename, 1},   {op_link, 1},   {op_stat, 3},   {op_sync, 1},
    {op_map, 1},    {op_share, 1},    {op_store, 8},  {op_look, 4},   {op_msync, 1},
};

static void step(struct fsx *f)
{
	unsigned total = 0, pick;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		total += ops[i].weight;
	pick = (unsigned)below(f, total);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (pick < ops[i].weight) {
			ops[i].run(f);
			return;
		}
		pick -= ops[i].weight;
	}
}

static void whole_file(struct fsx *f)
{
	ssize_t n = pread(f->fd, f->scratch, f->max, 0);

	if (n != (ssize_t)f->size)
		fail(f, "whole file: %zd bytes, must be %zu", n, f->size);
	compare(f, f->scratch, 0, f->size, "whole file");
}

static int work(const char *dir, uint64_t seed, int who, unsigned long count, size_t max)
{
	struct fsx f = {.rng = (seed + 1) * 0x9e3779b97f4a7c15u + (uint64_t)who * 2 + 1,
			.max = max};

	f.model = calloc(1, max + 1);
	f.scratch = malloc(max + 1);
	if (!f.model || !f.scratch) {
		fprintf(stderr, "scfsx: out of memory\n");
		free(f.model);
		free(f.scratch);
		return 2;
	}
	snprintf(f.path[0], sizeof(f.path[0]), "%s/fsx.%d.a", dir, who);
	snprintf(f.path[1], sizeof(f.path[1]), "%s/fsx.%d.b", dir, who);
	f.fd = open(f.path[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
	must(&f, f.fd >= 0, "create");
	for (f.op = 0; f.op < count; f.op++) {
		step(&f);
		if (f.op % 200 == 199)
			whole_file(&f);
	}
	whole_file(&f);
	must(&f, close(f.fd) == 0, "close");
	must(&f, unlink(f.path[f.name]) == 0, "unlink");
	free(f.model);
	free(f.scratch);
	return 0;
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: scfsx --dir DIR [--seed N] [--ops N] [--processes N] [--max-size BYTES]\n"
		"Random file operations checked against a model; exit status 1 at the first "
		"difference.\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
						{"seed", required_argument, NULL, 's'},
						{"ops", required_argument, NULL, 'o'},
						{"processes", required_argument, NULL, 'p'},
						{"max-size", required_argument, NULL, 'm'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	unsigned long count = 10000;
	uint64_t seed = 1;
	size_t max = 1 << 20;
	const char *dir = NULL;
	int processes = 1, bad = 0, c, status;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			dir = optarg;
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			count = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			processes = atoi(optarg);
			break;
		case 'm':
			max = strtoul(optarg, NULL, 0);
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (!dir || processes < 1 || max < 16) {
		usage(stderr);
		return 2;
	}
	printf("scfsx: %lu operations, %d process(es)\n", count, processes);
	fflush(stdout);
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("scfsx: fork");
			return 2;
		}
		if (pid == 0)
			_exit(work(dir, seed, i, count, max));
	}
	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	printf("scfsx: %s\n", bad ? "FAILED" : "all as the model says");
	return bad;
}
