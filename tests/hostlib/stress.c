/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stress.c - the worker of stress.py: a program that does much at once on a directory and checks what it gets.
 *
 *   stress threads DIR THREADS ROUNDS SEED   so many threads, each making random calls on files of its own and on shared ones;
 *                                            some are cancelled in the middle and replaced
 *   stress forks DIR PROCESSES               a tree of so many processes at once, all holding descriptors of the first one
 *   stress execs DIR COUNT                   a process that executes itself so many times, with a descriptor that survives
 *                                            and one that does not
 *
 * Exit status 0 and "ok" if everything was as it must be; otherwise a line that says what was not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK	  3000
#define MAX_SIZE  (200 * 1024)
#define STACK	  (256 * 1024)
#define CANCEL_OF 8 /* one thread of so many is cancelled now and then */

static const char *dir;
static int shared_fd;
static unsigned rounds;

static void __attribute__((noreturn, format(printf, 1, 2))) bad(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "stress: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, " (errno %d: %s)\n", err, strerror(err));
	va_end(ap);
	_exit(1);
}

static unsigned next(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(*state >> 33);
}

/* ---- threads ---- */

struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	bool cancelled; /* it is to be: does no harm if it ends anywhere */
};

/* Writes a file and reads it back. */
static void file_work(const char *path, uint64_t *state)
{
	size_t len = next(state) % MAX_SIZE + 1;
	char *data = malloc(2 * len);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct stat st;

	if (!data || fd < 0)
		bad("open %s", path);
	memset(data, (int)next(state), len);
	if (write(fd, data, len) != (ssize_t)len)
		bad("write %s", path);
	if (pread(fd, data + len, len, 0) != (ssize_t)len || memcmp(data, data + len, len))
		bad("read %s: other data", path);
	if (fstat(fd, &st) || st.st_size != (off_t)len)
		bad("size of %s", path);
	if (close(fd))
		bad("close %s", path);
	free(data);
}

static void name_work(const char *path)
{
	char other[PATH_MAX + 16];

	snprintf(other, sizeof(other), "%s-renamed", path);
	if (rename(path, other) || access(path, F_OK) == 0 || access(other, R_OK) || unlink(other))
		bad("rename %s", path);
	if (mkdir(path, 0700) || rmdir(path))
		bad("mkdir %s", path);
}

/* Each thread has a part of the shared file that only it writes, through descriptors that it duplicates. */
static void shared_work(unsigned number, uint64_t *state)
{
	char out[CHUNK], in[CHUNK];
	int fd = dup(shared_fd);
	off_t at = (off_t)number * CHUNK;

	memset(out, (int)next(state), sizeof(out));
	if (fd < 0 || pwrite(fd, out, sizeof(out), at) != sizeof(out) ||
	    pread(shared_fd, in, sizeof(in), at) != sizeof(in) || memcmp(in, out, sizeof(in)))
		bad("shared file at %ld", (long)at);
	if (next(state) % 4 == 0 && (flock(fd, LOCK_SH) || flock(fd, LOCK_UN)))
		bad("flock");
	if (dup2(shared_fd, fd) != fd || close(fd))
		bad("dup2");
}

static void local_work(void)
{
	struct pollfd p[2];
	int pipe_fd[2];
	char c = 'x';

	if (pipe(pipe_fd))
		bad("pipe");
	p[0] = (struct pollfd){.fd = pipe_fd[0], .events = POLLIN};
	p[1] = (struct pollfd){.fd = shared_fd, .events = POLLIN};
	if (write(pipe_fd[1], &c, 1) != 1 || poll(p, 2, 5000) != 2 || read(pipe_fd[0], &c, 1) != 1)
		bad("pipe and poll");
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void list_work(void)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	if (!d)
		bad("opendir");
	while (readdir(d))
		n++;
	closedir(d);
	if (n < 3)
		bad("directory is empty");
}

static void fork_work(void)
{
	pid_t pid = fork();
	char c;
	int status;

	if (pid < 0)
		bad("fork");
	if (pid == 0)
		_exit(pread(shared_fd, &c, 1, 0) == 1 ? 0 : 1);
	if (waitpid(pid, &status, 0) != pid || status)
		bad("forked child: %x", status);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t state = w->seed;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/w%u", dir, w->number);
	for (unsigned i = 0; i < rounds; i++) {
		switch (next(&state) % 8) {
		case 0:
		case 1:
			file_work(path, &state);
			break;
		case 2:
			file_work(path, &state);
			name_work(path);
			break;
		case 3:
		case 4:
			shared_work(w->number, &state);
			break;
		case 5:
			local_work();
			break;
		case 6:
			list_work();
			break;
		default:
			if (next(&state) % 16 == 0)
				fork_work();
		}
	}
	return NULL;
}

/* Reads and sleeps in calls until it is cancelled there. */
static void *victim(void *arg)
{
	char path[PATH_MAX], buf[CHUNK];
	const struct worker *w = arg;
	int old, fd;

	snprintf(path, sizeof(path), "%s/shared", dir);
	for (;;) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			bad("victim's open");
		close(fd);
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
		if (pread(shared_fd, buf, sizeof(buf), (off_t)w->number * CHUNK) < 0)
			bad("victim's read");
	}
	return NULL;
}

static void start(struct worker *w, void *(*f)(void *))
{
	pthread_attr_t a;
	int err;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	err = pthread_create(&w->thread, &a, f, w);
	pthread_attr_destroy(&a);
	if (err) {
		errno = err;
		bad("pthread_create");
	}
}

static int threads(unsigned n, uint64_t seed)
{
	struct worker *v = calloc(n, sizeof(*v));
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/shared", dir);
	shared_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (!v || shared_fd < 0 || ftruncate(shared_fd, (off_t)n * CHUNK))
		bad("%s", path);
	for (unsigned i = 0; i < n; i++) {
		v[i].number = i;
		v[i].seed = seed + i;
		v[i].cancelled = i % CANCEL_OF == 0;
		start(&v[i], v[i].cancelled ? victim : work);
	}
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < n; i += CANCEL_OF) {
			void *how;

			usleep(500);
			pthread_cancel(v[i].thread);
			if (pthread_join(v[i].thread, &how) || how != PTHREAD_CANCELED)
				bad("cancelled thread");
			start(&v[i], turn < 2 ? victim : work);
		}
	}
	for (unsigned i = 0; i < n; i++)
		if (pthread_join(v[i].thread, NULL))
			bad("join");
	free(v);
	return 0;
}

/* ---- forks ---- */

/* The process and its descendants, n in all: each appends a record. A tree, so that descriptors are inherited deeply. */
static void tree(int log, int go, unsigned n)
{
	unsigned rest = n - 1, children = rest > 2 ? 3 : rest;
	char c;

	for (unsigned i = 0; i < children; i++) {
		unsigned part = rest / (children - i);
		pid_t pid = fork();

		if (pid < 0)
			bad("fork");
		if (pid == 0) {
			tree(log, go, part);
			_exit(0);
		}
		rest -= part;
	}
	if (write(log, "record\n", 7) != 7)
		bad("record");
	/* all live at once: the pipe ends when the first one says so */
	if (read(go, &c, 1) != 0)
		bad("pipe");
	for (unsigned i = 0; i < children; i++) {
		int status;

		if (wait(&status) < 0 || status)
			bad("child: %x", status);
	}
}

static int forks(unsigned n)
{
	char path[PATH_MAX];
	int log, go[2], status;
	struct stat st = {0};
	pid_t pid;

	snprintf(path, sizeof(path), "%s/log", dir);
	log = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
	if (log < 0 || pipe(go))
		bad("%s", path);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		tree(log, go[0], n);
		_exit(0);
	}
	for (unsigned i = 0; i < 6000 && st.st_size < 7 * (off_t)n; i++) {
		usleep(20000);
		if (fstat(log, &st))
			bad("fstat");
	}
	if (st.st_size != 7 * (off_t)n)
		bad("%ld bytes of records from %u processes", (long)st.st_size, n);
	close(go[1]);
	if (waitpid(pid, &status, 0) != pid || status)
		bad("tree: %x", status);
	return 0;
}

/* ---- execs ---- */

/* argv: execs DIR COUNT [kept descriptor, descriptor that must be closed] */
static int execs(int argc, char **argv)
{
	unsigned left = (unsigned)strtoul(argv[3], NULL, 10);
	char path[PATH_MAX], a[16], b[16], c[16], line[16];
	int kept, gone;

	snprintf(path, sizeof(path), "%s/execs", dir);
	if (argc == 4) {
		kept = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	} else {
		kept = (int)strtol(argv[4], NULL, 10);
		if (fcntl((int)strtol(argv[5], NULL, 10), F_GETFD) >= 0)
			bad("a descriptor has survived");
	}
	/* the position goes along */
	if (kept < 0 || write(kept, "0123456789abcdef", 16) != 16)
		bad("write");
	if (left == 0)
		return 0;
	gone = open(path, O_RDONLY | O_CLOEXEC);
	if (gone < 0 || pread(gone, line, 16, lseek(kept, 0, SEEK_CUR) - 16) != 16 ||
	    memcmp(line, "0123456789abcdef", 16))
		bad("what was written is not there");
	if (left % 100 == 0 && (ftruncate(kept, 0) || lseek(kept, 0, SEEK_SET)))
		bad("truncate");
	snprintf(a, sizeof(a), "%u", left - 1);
	snprintf(b, sizeof(b), "%d", kept);
	snprintf(c, sizeof(c), "%d", gone);
	execl(argv[0], argv[0], "execs", dir, a, b, c, (char *)NULL);
	bad("exec");
}

int main(int argc, char **argv)
{
	int status = 2;

	if (argc < 4)
		return status;
	dir = argv[2];
	if (!strcmp(argv[1], "threads") && argc == 6) {
		rounds = (unsigned)strtoul(argv[4], NULL, 10);
		status = threads((unsigned)strtoul(argv[3], NULL, 10), strtoull(argv[5], NULL, 10));
	} else if (!strcmp(argv[1], "forks")) {
		status = forks((unsigned)strtoul(argv[3], NULL, 10));
	} else if (!strcmp(argv[1], "execs")) {
		status = execs(argc, argv);
	}
	if (status == 0)
		puts("ok");
	return status;
}
