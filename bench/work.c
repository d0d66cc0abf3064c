/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scbench-work - an ordinary program that makes system calls, for scbench: run natively it is the
 * base case, run under scrun the candidate. See measure.h for how it is spoken to.
 *
 * Commands (each with its COUNT):
 *	floor                     two processes on --cpu and --peer-cpu hand a cache line to and fro
 *	eventfd MICROSECONDS      two processes wake each other by eventfd; the pauses before each are
 *	                          not in the time
 *	getppid                   the cheapest system call
 *	lseek FILE                the position of an open file: a system call with next to no work
 *	stat PATH; open PATH      stat; open and close
 *	create, unlink, rename DIR   each on files of its own, made or removed outside of the time
 *	fork; exec; sh            fork a child that ends at once; that executes /bin/true; that
 *	                          executes sh -c :
 *	thread; pipe              start and join a thread; a byte to another process and back
 *	spawn PROGRAM ARGUMENT…   run a program to its end, demand status 0
 *	share                     makes a page for two machines to share, or clears it, and says its
 *	                          physical page number (extra "pfn")
 *	pong                      after share: answers COUNT pings in that page
 *	ping FILE PFN             COUNT round trips with a `pong` in page PFN of FILE, a machine's memory
 * and those of work_io.c (data), work_many.c (many threads or processes at once), work_pollute.c
 * (what a call does to the caches), work_probe.c (calls through a failure), work_net.c
 * (sockets): see there.
 */
#include "measure.h"
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE	  64		/* bytes of a cache line */
#define PATIENCE  10000000000ll /* ns that a spinning peer waits before it gives up */
#define LOOK_MASK 0xfffff	/* spins between looks at the clock */

extern char **environ;

/* ---- two processes ---- */

/* Shared by two processes. Each index has a line of its own, as in a channel's lane. */
struct pingpong {
	_Alignas(LINE) uint64_t ping;
	_Alignas(LINE) uint64_t pong;
	_Alignas(LINE) uint64_t ready;
};

/* Spins until *word reaches `value`. False if it does not within PATIENCE. */
static bool spin_for(const uint64_t *word, uint64_t value)
{
	int64_t end = 0;

	/* acquire: pairs with the release store of the other process */
	for (uint64_t i = 1; __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; i++) {
		if (i & LOOK_MASK)
			continue;
		if (!end)
			end = measure_now() + PATIENCE;
		else if (measure_now() > end)
			return false;
	}
	return true;
}

/* Forks a child that dies with us, on the peer's CPU. As fork(). */
static pid_t fork_peer(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (measure_pin(measure_peer_cpu))
			_exit(1);
	}
	return pid < 0 ? -errno : pid;
}

static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fprintf(stderr, "scbench-work: a child ended with wait status %#x\n", (unsigned int)status);
	return -EIO;
}

static void floor_peer(struct pingpong *p, uint64_t count)
{
	__atomic_store_n(&p->ready, 1, __ATOMIC_RELEASE);
	for (uint64_t i = 1; i <= count; i++) {
		if (!spin_for(&p->ping, i))
			_exit(1);
		__atomic_store_n(&p->pong, i, __ATOMIC_RELEASE);
	}
	_exit(0);
}

static int run_floor(uint64_t count, int argc, char **argv)
{
	struct pingpong *p =
	    mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool ok = true;
	pid_t pid;
	int err;

	if (p == MAP_FAILED)
		return -errno;
	pid = fork_peer();
	if (pid == 0)
		floor_peer(p, count);
	if (pid > 0 && !spin_for(&p->ready, 1))
		ok = false;
	measure_begin();
	for (uint64_t i = 1; i <= count && ok && pid > 0; i++) {
		__atomic_store_n(&p->ping, i, __ATOMIC_RELEASE);
		ok = spin_for(&p->pong, i);
	}
	measure_end();
	if (pid > 0 && !ok)
		kill(pid, SIGKILL);
	err = pid < 0 ? (int)pid : reap(pid);
	munmap(p, sizeof(*p));
	return err;
}

/* ---- two machines ---- */

/* The page in which pong() answers. */
static struct pingpong *shared;

static int run_share(uint64_t count, int argc, char **argv)
{
	long page = sysconf(_SC_PAGESIZE);
	uint64_t entry = 0;
	int fd;

	if (!shared) {
		shared = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
		if (shared == MAP_FAILED) {
			shared = NULL;
			return -errno;
		}
	}
	memset(shared, 0, sizeof(*shared));
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &entry, sizeof(entry),
		  (off_t)((uintptr_t)shared / (uintptr_t)page * sizeof(entry))) != sizeof(entry))
		entry = 0;
	close(fd);
	/* Bit 63: present. Bits 0 to 54: the page number, 0 for those who may not know it. */
	if (!(entry >> 63) || !(entry & ((1ull << 55) - 1)))
		return -EPERM;
	measure_begin();
	measure_end();
	measure_extra("pfn", (double)(entry & ((1ull << 55) - 1)));
	return 0;
}

static int run_pong(uint64_t count, int argc, char **argv)
{
	bool ok = true;

	if (!shared)
		return -EINVAL;
	__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
	measure_begin();
	for (uint64_t i = 1; i <= count && ok; i++) {
		ok = spin_for(&shared->ping, i);
		/* release: whoever sees the index knows that its ping was seen */
		__atomic_store_n(&shared->pong, i, __ATOMIC_RELEASE);
	}
	measure_end();
	return ok ? 0 : -ETIME;
}

static int run_ping(uint64_t count, int argc, char **argv)
{
	long page = sysconf(_SC_PAGESIZE);
	int fd = open(argv[0], O_RDWR | O_CLOEXEC);
	struct pingpong *p;
	bool ok;

	if (fd < 0)
		return -errno;
	p = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 (off_t)(strtoull(argv[1], NULL, 10) * (uint64_t)page));
	close(fd);
	if (p == MAP_FAILED)
		return -errno;
	ok = spin_for(&p->ready, 1);
	measure_begin();
	for (uint64_t i = 1; i <= count && ok; i++) {
		__atomic_store_n(&p->ping, i, __ATOMIC_RELEASE);
		ok = spin_for(&p->pong, i);
	}
	measure_end();
	munmap(p, (size_t)page);
	return ok ? 0 : -ETIME;
}

static void pause_us(long us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

/* Answers each word that comes from `in` with one to `out`; ends at the first error. */
static void echo_words(int in, int out, uint64_t count)
{
	uint64_t word;

	for (uint64_t i = 0; i < count; i++)
		if (read(in, &word, sizeof(word)) != sizeof(word) ||
		    write(out, &word, sizeof(word)) != sizeof(word))
			_exit(1);
	_exit(0);
}

static int run_eventfd(uint64_t count, int argc, char **argv)
{
	int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC), err = 0;
	long us = strtol(argv[0], NULL, 10);
	int64_t spent = 0;
	uint64_t word;
	pid_t pid;

	if (there < 0 || back < 0)
		return -errno;
	pid = fork_peer();
	if (pid == 0)
		echo_words(there, back, count);
	measure_begin();
	for (uint64_t i = 0; i < count && pid > 0 && !err; i++) {
		int64_t start;

		pause_us(us);
		start = measure_now();
		word = 1;
		if (write(there, &word, sizeof(word)) < 0 || read(back, &word, sizeof(word)) < 0)
			err = -errno;
		spent += measure_now() - start;
	}
	measure_end();
	measure_set_ns(spent);
	close(there);
	close(back);
	if (pid < 0)
		return (int)pid;
	if (err)
		kill(pid, SIGKILL);
	return reap(pid);
}

static int run_pipe(uint64_t count, int argc, char **argv)
{
	int there[2], back[2], err = 0;
	uint64_t word = 1;
	pid_t pid;

	if (pipe2(there, O_CLOEXEC))
		return -errno;
	if (pipe2(back, O_CLOEXEC)) {
		err = -errno;
		goto out;
	}
	pid = fork_peer();
	if (pid == 0)
		echo_words(there[0], back[1], count);
	measure_begin();
	for (uint64_t i = 0; i < count && pid > 0 && !err; i++)
		if (write(there[1], &word, sizeof(word)) < 0 ||
		    read(back[0], &word, sizeof(word)) < 0)
			err = -errno;
	measure_end();
	if (pid > 0 && err)
		kill(pid, SIGKILL);
	err = pid < 0 ? (int)pid : reap(pid);
	close(back[0]);
	close(back[1]);
out:
	close(there[0]);
	close(there[1]);
	return err;
}

/* ---- calls ---- */

static int run_getppid(uint64_t count, int argc, char **argv)
{
	measure_begin();
	for (uint64_t i = 0; i < count; i++)
		syscall(SYS_getppid);
	measure_end();
	return 0;
}

static int run_lseek(uint64_t count, int argc, char **argv)
{
	int fd = open(argv[0], O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++)
		if (lseek(fd, 0, SEEK_CUR) < 0)
			err = -errno;
	measure_end();
	close(fd);
	return err;
}

/* ---- names ---- */

static int run_stat(uint64_t count, int argc, char **argv)
{
	struct stat st;
	int err = 0;

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++)
		if (stat(argv[0], &st))
			err = -errno;
	measure_end();
	return err;
}

static int run_open(uint64_t count, int argc, char **argv)
{
	int err = 0;

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int fd = open(argv[0], O_RDONLY | O_CLOEXEC);

		if (fd < 0 || close(fd))
			err = -errno;
	}
	measure_end();
	return err;
}

static void name_of(char *to, const char *dir, const char *kind, uint64_t i)
{
	snprintf(to, PATH_MAX, "%s/%s-%llu", dir, kind, (unsigned long long)i);
}

/* Makes count files in dir. */
static int make_files(const char *dir, uint64_t count)
{
	char path[PATH_MAX];

	for (uint64_t i = 0; i < count; i++) {
		int fd;

		name_of(path, dir, "file", i);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0)
			return -errno;
		close(fd);
	}
	return 0;
}

static int remove_files(const char *dir, const char *kind, uint64_t count)
{
	char path[PATH_MAX];

	for (uint64_t i = 0; i < count; i++) {
		name_of(path, dir, kind, i);
		if (unlink(path))
			return -errno;
	}
	return 0;
}

static int rename_files(const char *dir, uint64_t count)
{
	char from[PATH_MAX], to[PATH_MAX];

	for (uint64_t i = 0; i < count; i++) {
		name_of(from, dir, "file", i);
		name_of(to, dir, "other", i);
		if (rename(from, to))
			return -errno;
	}
	return 0;
}

static int run_create(uint64_t count, int argc, char **argv)
{
	int err;

	measure_begin();
	err = make_files(argv[0], count);
	measure_end();
	return err ? err : remove_files(argv[0], "file", count);
}

static int run_unlink(uint64_t count, int argc, char **argv)
{
	int err = make_files(argv[0], count);

	measure_begin();
	if (!err)
		err = remove_files(argv[0], "file", count);
	measure_end();
	return err;
}

static int run_rename(uint64_t count, int argc, char **argv)
{
	int err = make_files(argv[0], count);

	measure_begin();
	if (!err)
		err = rename_files(argv[0], count);
	measure_end();
	return err ? err : remove_files(argv[0], "other", count);
}

/* ---- processes ---- */

/* Forks a child that executes argv, or ends at once if it is NULL. */
static int fork_once(char *const *argv)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		if (argv)
			execv(argv[0], argv);
		_exit(argv ? 127 : 0);
	}
	return reap(pid);
}

static int fork_loop(uint64_t count, char *const *argv)
{
	int err = 0;

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++)
		err = fork_once(argv);
	measure_end();
	return err;
}

static int run_fork(uint64_t count, int argc, char **argv)
{
	return fork_loop(count, NULL);
}

static int run_exec(uint64_t count, int argc, char **argv)
{
	return fork_loop(count, (char *[]){"/bin/true", NULL});
}

static int run_sh(uint64_t count, int argc, char **argv)
{
	return fork_loop(count, (char *[]){"/bin/sh", "-c", ":", NULL});
}

static int run_spawn(uint64_t count, int argc, char **argv)
{
	posix_spawn_file_actions_t quiet;
	int err = 0;

	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		pid_t pid;

		err = -posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ);
		if (!err)
			err = reap(pid);
	}
	measure_end();
	posix_spawn_file_actions_destroy(&quiet);
	return err;
}

static void *nothing(void *arg)
{
	return arg;
}

static int run_thread(uint64_t count, int argc, char **argv)
{
	int err = 0;

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		pthread_t t;

		err = -pthread_create(&t, NULL, nothing, NULL);
		if (!err)
			err = -pthread_join(t, NULL);
	}
	measure_end();
	return err;
}

static const struct measure_command commands[] = {
    {"floor", run_floor, 0},
    {"eventfd", run_eventfd, 1},
    {"getppid", run_getppid, 0},
    {"lseek", run_lseek, 1},
    {"read", run_read, 2},
    {"write", run_write, 2},
    {"fsync", run_fsync, 2},
    {"fill", run_fill, 2},
    {"io", run_io, 3},
    {"threads", run_threads, 2},
    {"procs", run_procs, 2},
    {"pollute", run_pollute, 3},
    {"probe", run_probe, 2},
    {"share", run_share, 0},
    {"netserve", run_netserve, 1},
    {"netrr", run_netrr, 4},
    {"netudp", run_netudp, 3},
    {"nettx", run_nettx, 3},
    {"netrx", run_netrx, 3},
    {"netconn", run_netconn, 2},
    {"nethttp", run_nethttp, 4},
    {"pong", run_pong, 0},
    {"ping", run_ping, 2},
    {"stat", run_stat, 1},
    {"open", run_open, 1},
    {"create", run_create, 1},
    {"unlink", run_unlink, 1},
    {"rename", run_rename, 1},
    {"fork", run_fork, 0},
    {"exec", run_exec, 0},
    {"sh", run_sh, 0},
    {"thread", run_thread, 0},
    {"pipe", run_pipe, 0},
    {"spawn", run_spawn, 1},
    {NULL, NULL, 0},
};

int main(int argc, char **argv)
{
	int status = measure_main(argc, argv, commands, NULL);

	io_end();
	return status;
}
