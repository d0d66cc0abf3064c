/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work_io.c - reads and writes of scbench-work.
 *
 * Commands (each with its COUNT):
 *	read, write SIZE FILE        pread, pwrite in file order, over again at its end
 *	fsync SIZE FILE              pwrite, then fsync
 *	io SIZE FILE WORD…           the general form: "read" or "write", then any of "direct"
 *	                             (O_DIRECT), "random" (offsets that are multiples of SIZE, the same
 *	                             sequence each time), "sync" (fsync after each), "append" (at the
 *	                             end of a file that is cut to nothing first)
 *	fill SEED FILE               make a file of COUNT bytes, the same for the same SEED
 */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER (16 * 1024 * 1024) /* largest single read or write */

/* How a file is read or written. */
struct how {
	bool out, sync, direct, random, append;
};

/* BUFFER bytes, made by the first command that needs them: fork() copies what a process has */
static char *buffer;

static int need_buffer(void)
{
	if (buffer)
		return 0;
	buffer = aligned_alloc(4096, BUFFER);
	if (!buffer)
		return -ENOMEM;
	memset(buffer, 1, BUFFER);
	return 0;
}

void io_end(void)
{
	free(buffer);
	buffer = NULL;
}

/* One pread or pwrite of all of `size`. 0 or -errno. */
static int transfer(int fd, size_t size, off_t at, bool out)
{
	ssize_t n = out ? pwrite(fd, buffer, size, at) : pread(fd, buffer, size, at);

	return n == (ssize_t)size ? 0 : n < 0 ? -errno : -EIO;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The calls themselves. `end`: size of the file, at least `size`. */
static int stream_loop(int fd, uint64_t count, size_t size, off_t end, const struct how *how)
{
	uint64_t state = 88172645463325252ull, places = (uint64_t)end / size;
	off_t at = 0;
	int err = 0;

	for (uint64_t i = 0; i < count && !err; i++) {
		if (how->random)
			at = (off_t)(next_random(&state) % places * size);
		err = transfer(fd, size, at, how->out);
		if (how->sync && !err && fsync(fd))
			err = -errno;
		at += (off_t)size;
		if (!how->append && at + (off_t)size > end)
			at = 0;
	}
	return err;
}

static int stream(uint64_t count, char **argv, const struct how *how)
{
	size_t size = strtoul(argv[0], NULL, 10);
	int fd = open(argv[1], O_RDWR | O_CLOEXEC | (how->direct ? O_DIRECT : 0)), err;
	struct stat st;

	if (fd < 0)
		return -errno;
	err = need_buffer();
	if (!err && how->append && ftruncate(fd, 0))
		err = -errno;
	if (!err && (fstat(fd, &st) || !size || size > BUFFER))
		err = -EINVAL;
	if (!err && !how->append && (off_t)size > st.st_size)
		err = -EINVAL;
	measure_begin();
	if (!err)
		err = stream_loop(fd, count, size, st.st_size, how);
	measure_end();
	close(fd);
	return err;
}

int run_read(uint64_t count, int argc, char **argv)
{
	return stream(count, argv, &(struct how){0});
}

int run_write(uint64_t count, int argc, char **argv)
{
	return stream(count, argv, &(struct how){.out = true});
}

int run_fsync(uint64_t count, int argc, char **argv)
{
	return stream(count, argv, &(struct how){.out = true, .sync = true});
}

int run_io(uint64_t count, int argc, char **argv)
{
	struct how how = {0};

	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "write"))
			how.out = true;
		else if (!strcmp(argv[i], "direct"))
			how.direct = true;
		else if (!strcmp(argv[i], "random"))
			how.random = true;
		else if (!strcmp(argv[i], "sync"))
			how.sync = true;
		else if (!strcmp(argv[i], "append"))
			how.append = true;
		else if (strcmp(argv[i], "read"))
			return -EINVAL;
	}
	if (how.append && (how.random || !how.out))
		return -EINVAL;
	return stream(count, argv, &how);
}

/* Bytes that do not compress and depend on nothing but the seed. */
static void scramble(uint64_t *words, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++)
		words[i] = next_random(state);
}

int run_fill(uint64_t count, int argc, char **argv)
{
	uint64_t state = strtoull(argv[0], NULL, 10) * 2 + 1, at = 0;
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), err = 0;

	if (fd < 0)
		return -errno;
	err = need_buffer();
	measure_begin();
	while (at < count && !err) {
		uint64_t n = count - at < BUFFER ? count - at : BUFFER;

		scramble((uint64_t *)buffer, BUFFER / sizeof(uint64_t), &state);
		err = transfer(fd, n, (off_t)at, true);
		at += n;
	}
	/* on the disk now, so that write-back does not run in what follows */
	if (!err && fsync(fd))
		err = -errno;
	measure_end();
	close(fd);
	return err;
}
