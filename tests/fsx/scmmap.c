/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scmmap - what a program can rely on when it maps files: coherence between processes and with read and write, truncation
 * under a mapping, protections, private copies, and what becomes of stores whose process is gone.
 *
 * Works in the current directory and prints one line per check. It links nothing of ours: the same program natively and
 * under scrun must print the same. Exit status 1 if a check did not hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE   4096
#define PAGES  8
#define SIZE   (PAGE * PAGES)
#define ROUNDS 20000

static int failures;
static sigjmp_buf on_bus;

static void check(bool ok, const char *what)
{
	printf("%s: %s\n", what, ok ? "ok" : "WRONG");
	fflush(stdout);
	failures += !ok;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	printf("%s: %s\n", what, strerror(errno));
	exit(2);
}

static void handler(int sig)
{
	siglongjmp(on_bus, sig);
}

/* 0, or the signal that looking there raises. */
static int touch(volatile uint8_t *p, bool store)
{
	int sig = sigsetjmp(on_bus, 1);

	if (sig)
		return sig;
	if (store)
		*p = 1;
	else
		(void)*p;
	return 0;
}

/* A file of SIZE bytes, each page filled with its number's letter. */
static int make(const char *name, int flags)
{
	uint8_t page[PAGE];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	must(fd >= 0, name);
	for (int i = 0; i < PAGES; i++) {
		memset(page, 'a' + i, sizeof(page));
		must(write(fd, page, sizeof(page)) == PAGE, "write");
	}
	if (flags == O_RDWR)
		return fd;
	close(fd);
	fd = open(name, flags);
	must(fd >= 0, name);
	return fd;
}

static uint8_t *map(int fd, size_t len, int prot, int flags)
{
	uint8_t *p = mmap(NULL, len, prot, flags, fd, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

static uint8_t *share(int fd)
{
	return map(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static int byte_at(int fd, off_t off)
{
	uint8_t c;

	return pread(fd, &c, 1, off) == 1 ? c : -1;
}

static void put(int fd, off_t off, char c)
{
	must(pwrite(fd, &c, 1, off) == 1, "pwrite");
}

/* Two processes that take turns over a pair of pipes. */
struct turns {
	int to[2], back[2];
};

static void pass(int fd)
{
	must(write(fd, "x", 1) == 1, "pipe");
}

static void await(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1)
		_exit(3);
}

static void two_processes(void)
{
	int fd = make("two", O_RDWR);
	uint8_t *p = share(fd);
	struct turns t;
	pid_t pid;

	must(pipe(t.to) == 0 && pipe(t.back) == 0, "pipe");
	pid = fork();
	if (pid == 0) {
		int own = open("two", O_RDWR);
		uint8_t *q = share(own);
		bool ok = q[0] == 'a';

		await(t.to[0]);
		ok &= q[10] == '1' && byte_at(own, 10) == '1';
		q[20] = '2';
		put(own, PAGE + 5, '3');
		pass(t.back[1]);
		await(t.to[0]);
		ok &= q[2 * PAGE] == '4';
		_exit(!ok);
	}
	p[10] = '1';
	pass(t.to[1]);
	await(t.back[0]);
	check(p[20] == '2' && byte_at(fd, 20) == '2',
	      "a store is seen by the other's mapping and by read");
	check(p[PAGE + 5] == '3' && byte_at(fd, PAGE + 5) == '3',
	      "a write is seen by the other's mapping and by read");
	put(fd, 2 * PAGE, '4');
	pass(t.to[1]);
	must(waitpid(pid, &t.to[0], 0) == pid, "wait");
	check(t.to[0] == 0, "the other process saw ours");
	munmap(p, SIZE);
	close(fd);
}

static void counters(void)
{
	int fd = make("count", O_RDWR), status = 0;
	_Atomic uint64_t *n = (_Atomic uint64_t *)share(fd);

	*n = 0;
	for (int i = 0; i < 3; i++) {
		if (fork() == 0) {
			int own = open("count", O_RDWR);
			_Atomic uint64_t *m = (_Atomic uint64_t *)share(own);

			for (int k = 0; k < ROUNDS; k++)
				++*m;
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		;
	check(*n == 3 * ROUNDS, "atomic counters in a shared mapping");
	munmap((void *)n, SIZE);
	close(fd);
}

static void truncation(void)
{
	int fd = make("trunc", O_RDWR);
	uint8_t *p = share(fd);

	p[PAGE + 100] = 'X';
	must(ftruncate(fd, PAGE + 50) == 0, "ftruncate");
	check(touch(p + PAGE + 100, false) == 0 && p[PAGE + 100] == 0,
	      "beyond the end, in the last page: zero");
	check(touch(p + 2 * PAGE, false) == SIGBUS, "beyond the last page: SIGBUS");
	check(touch(p + 5 * PAGE, true) == SIGBUS, "a store beyond the last page: SIGBUS");
	p[PAGE + 60] = 'Y';
	must(ftruncate(fd, SIZE) == 0, "ftruncate");
	check(touch(p + 2 * PAGE, false) == 0 && p[2 * PAGE] == 0, "longer again: zeros");
	p[7 * PAGE] = 'Z';
	check(byte_at(fd, 7 * PAGE) == 'Z', "and it can be stored to");
	close(open("trunc", O_WRONLY | O_TRUNC));
	check(touch(p, false) == SIGBUS, "O_TRUNC by another descriptor: SIGBUS");
	must(truncate("trunc", 3 * PAGE) == 0, "truncate");
	check(touch(p + 2 * PAGE, false) == 0 && p[0] == 0, "truncate by name: zeros");
	check(touch(p + 3 * PAGE, false) == SIGBUS, "and SIGBUS behind");
	put(fd, 4 * PAGE + 1, 'w');
	check(p[4 * PAGE + 1] == 'w' && p[4 * PAGE] == 0,
	      "a write beyond the end makes it accessible");
	munmap(p, SIZE);
	close(fd);
}

static void beyond_the_end(void)
{
	int fd = make("beyond", O_RDWR);
	uint8_t *p = map(fd, 4 * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	char c = 'e';

	check(touch(p + SIZE, false) == SIGBUS, "a mapping larger than its file: SIGBUS");
	must(lseek(fd, 0, SEEK_END) == SIZE && write(fd, &c, 1) == 1, "append");
	check(touch(p + SIZE, false) == 0 && p[SIZE] == 'e', "until the file grows");
	must(ftruncate(fd, 3 * SIZE) == 0, "ftruncate");
	p[3 * SIZE - 1] = 'l';
	check(byte_at(fd, 3 * SIZE - 1) == 'l', "ftruncate and store, as databases do");
	munmap(p, 4 * SIZE);
	close(fd);
}

static void changes_of_address(void)
{
	int fd = make("remap", O_RDWR);
	uint8_t *p = map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), *q, *r;

	q = mremap(p, 2 * PAGE, SIZE, MREMAP_MAYMOVE);
	must(q != MAP_FAILED, "mremap");
	check(q[0] == 'a' && q[SIZE - 1] == 'h', "mremap to more of the file");
	q[SIZE - 1] = 'M';
	check(byte_at(fd, SIZE - 1) == 'M', "a store there");
	must(munmap(q + PAGE, PAGE) == 0, "munmap");
	q[0] = 'N';
	q[2 * PAGE] = 'O';
	check(byte_at(fd, 0) == 'N' && byte_at(fd, 2 * PAGE) == 'O', "on both sides of a hole");
	r = mmap(q + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(r != MAP_FAILED, "MAP_FIXED");
	r[0] = 'P';
	check(byte_at(fd, 2 * PAGE) == 'O', "anonymous memory over it is no file");
	r = mmap(r, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 6 * PAGE);
	check(r == q + 2 * PAGE && r[0] == 'g', "another part of the file over that");
	munmap(q, SIZE);
	close(fd);
}

static void private_pages(void)
{
	int fd = make("private", O_RDWR);
	uint8_t *p = map(fd, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *s = share(fd);

	p[0] = 'X';
	check(byte_at(fd, 0) == 'a' && s[0] == 'a', "a private store does not show");
	s[0] = 'Y';
	check(p[0] == 'X', "nor do others' where it was stored to");
	must(madvise(p, PAGE, MADV_DONTNEED) == 0, "madvise");
	check(p[0] == 'Y', "MADV_DONTNEED: the file's again");
	must(madvise(s, PAGE, MADV_DONTNEED) == 0, "madvise");
	check(s[0] == 'Y', "MADV_DONTNEED loses nothing of a shared mapping");
	munmap(p, SIZE);
	munmap(s, SIZE);
	close(fd);
}

static void protections(void)
{
	int fd = make("prot", O_RDONLY), rw = open("prot", O_RDWR), wr = open("prot", O_WRONLY);
	uint8_t *p = map(fd, SIZE, PROT_READ, MAP_SHARED), *q;
	struct sigaction segv = {.sa_handler = handler};

	sigaction(SIGSEGV, &segv, NULL);
	check(mprotect(p, SIZE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
	      "mprotect: not of what was opened for reading");
	q = map(rw, SIZE, PROT_READ, MAP_SHARED);
	put(rw, 3, '1');
	check(p[3] == '1' && q[3] == '1', "mappings for reading see writes");
	check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED &&
		  errno == EACCES,
	      "nor mmap");
	check(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, wr, 0) == MAP_FAILED && errno == EACCES,
	      "nor of what was opened for writing alone");
	check(touch(q, true) == SIGSEGV, "a store into a mapping for reading: SIGSEGV");
	close(rw);
	check(mprotect(q + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE) == 0,
	      "mprotect: of what was opened for both, and closed since");
	q[PAGE] = 'Q';
	check(p[PAGE] == 'Q' && byte_at(fd, PAGE) == 'Q', "a store there");
	check(touch(q, true) == SIGSEGV && touch(q + 3 * PAGE, true) == SIGSEGV,
	      "its neighbours are as they were");
	check(mprotect(q, SIZE, PROT_NONE) == 0 && touch(q, false) == SIGSEGV, "PROT_NONE");
	signal(SIGSEGV, SIG_DFL);
	munmap(p, SIZE);
	munmap(q, SIZE);
	close(fd);
	close(wr);
}

static void synced(void)
{
	int fd = make("sync", O_RDWR);
	uint8_t *p = share(fd);

	p[0] = 'S';
	check(msync(p, SIZE, MS_SYNC) == 0, "msync");
	check(msync(p, PAGE, MS_ASYNC) == 0, "msync MS_ASYNC");
	check(msync(p + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL, "msync of an odd address");
	check(msync(p, PAGE, MS_SYNC | MS_ASYNC) == -1 && errno == EINVAL, "msync of both kinds");
	must(munmap(p + PAGE, PAGE) == 0, "munmap");
	p[2 * PAGE] = 'T';
	check(msync(p, SIZE, MS_SYNC) == -1 && errno == ENOMEM, "msync over a hole");
	close(fd);
	p[3 * PAGE] = 'U';
	check(msync(p + 3 * PAGE, PAGE, MS_SYNC) == 0, "msync of a closed file");
	munmap(p, SIZE);
}

/* What `how` does to a process that has stored into the file's mapping. */
static void gone(const char *name, void (*how)(uint8_t *p), const char *what)
{
	int fd, status;
	pid_t pid;

	close(make(name, O_RDWR));
	pid = fork();
	if (pid == 0) {
		int own = open(name, O_RDWR);
		uint8_t *p = share(own);

		close(own);
		memset(p + PAGE, 'K', PAGE);
		how(p);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid, "wait");
	fd = open(name, O_RDONLY);
	check(byte_at(fd, 0) == 'a' && byte_at(fd, PAGE) == 'K' && byte_at(fd, 2 * PAGE - 1) == 'K',
	      what);
	close(fd);
}

static void by_kill(uint8_t *p)
{
	raise(SIGKILL);
}

static void by_munmap(uint8_t *p)
{
	munmap(p, SIZE);
}

static void by_exec(uint8_t *p)
{
	execl("/bin/true", "true", NULL);
}

static void by_nothing(uint8_t *p)
{
}

static void other_calls(void)
{
	int fd = make("calls", O_RDWR), from = make("from", O_RDWR);
	uint8_t *p = share(fd);
	off_t off = 2 * PAGE;
	struct stat st;

	p[PAGE] = 'X';
	must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE) == 0, "punch");
	check(p[PAGE] == 0 && p[0] == 'a' && p[2 * PAGE] == 'c', "a hole punched under a mapping");
	must(lseek(from, 0, SEEK_SET) == 0, "lseek");
	must(copy_file_range(from, NULL, fd, &off, PAGE, 0) == PAGE, "copy_file_range");
	check(p[2 * PAGE] == 'a' && p[3 * PAGE] == 'd', "copy_file_range into a mapped file");
	p[4 * PAGE] = 'V';
	off = 4 * PAGE;
	must(lseek(from, 0, SEEK_SET) == 0 &&
		 copy_file_range(fd, &off, from, NULL, PAGE, 0) == PAGE,
	     "copy_file_range");
	check(byte_at(from, 0) == 'V', "and out of one");
	must(fallocate(fd, 0, 0, SIZE + PAGE) == 0 && fstat(fd, &st) == 0, "fallocate");
	check(st.st_size == SIZE + PAGE, "fallocate to more");
	must(unlink("calls") == 0, "unlink");
	p[0] = 'U';
	check(byte_at(fd, 0) == 'U', "a file without a name");
	close(fd);
	p[1] = 'U';
	check(p[1] == 'U', "nor a descriptor");
	munmap(p, SIZE);
	close(from);
}

static void io_through_mappings(void)
{
	int fd = make("io", O_RDWR), ap = open("io", O_WRONLY | O_APPEND), pos = open("io", O_RDWR);
	uint8_t *p = map(fd, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	char buf[3 * PAGE];

	must(write(ap, "tail", 4) == 4, "append");
	check(memcmp(p + SIZE, "tail", 4) == 0, "O_APPEND");
	p[PAGE - 1] = '<';
	p[PAGE] = '>';
	must(lseek(pos, PAGE - 2, SEEK_SET) == PAGE - 2 && read(pos, buf, 4) == 4, "read");
	check(memcmp(buf, "a<>b", 4) == 0 && lseek(pos, 0, SEEK_CUR) == PAGE + 2,
	      "read at the position");
	check(pread(fd, buf, sizeof(buf), SIZE - PAGE) == PAGE + 4, "a read to the end");
	must(pread(fd, p + 3 * PAGE, PAGE, 0) == PAGE, "read into the mapping");
	check(byte_at(fd, 3 * PAGE) == 'a', "what was read into the mapping");
	must(pwrite(fd, p + PAGE, PAGE, 5 * PAGE) == PAGE, "write from the mapping");
	check(p[5 * PAGE] == '>' && p[5 * PAGE + 1] == 'b', "what was written from the mapping");
	check(pread(fd, p + 2 * SIZE - PAGE, PAGE, 0) == -1 && errno == EFAULT,
	      "a read into what is beyond the end: EFAULT");
	munmap(p, 2 * SIZE);
	close(fd);
	close(ap);
	close(pos);
}

int main(void)
{
	struct sigaction bus = {.sa_handler = handler};

	sigaction(SIGBUS, &bus, NULL);
	two_processes();
	counters();
	truncation();
	beyond_the_end();
	changes_of_address();
	private_pages();
	protections();
	synced();
	gone("killed", by_kill, "stores of a process that was killed");
	gone("unmapped", by_munmap, "stores of one that has unmapped");
	gone("execed", by_exec, "stores of one that runs another program");
	gone("exited", by_nothing, "stores of one that has ended");
	other_calls();
	io_through_mappings();
	printf("%s\n", failures ? "FAILED" : "all as it must be");
	return failures != 0;
}
