/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.c - the broker's log; see log.h.
 *
 * A line is put together in a buffer on the stack and written with one write(2), so that lines of
 * several brokers that share a file do not mix. Nothing here allocates or blocks on anything but
 * the file itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static struct {
	const char *path; /* NULL: standard error */
	int fd;
	enum log_level level;
	time_t second;	     /* log_peer(): the second that is being counted */
	unsigned in_second;  /* lines in it */
	unsigned suppressed; /* lines dropped since the last note of it */
} logger = {.fd = STDERR_FILENO, .level = LOG_LEVEL_INFO};

static const struct {
	const char *name;
	enum log_level level;
} levels[] = {
    {"error", LOG_LEVEL_ERROR},
    {"warn", LOG_LEVEL_WARN},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
};

int log_open(const char *path)
{
	int fd = STDERR_FILENO;

	if (path) {
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
		if (fd < 0)
			return -errno;
	}
	if (logger.fd != STDERR_FILENO)
		close(logger.fd);
	logger.fd = fd;
	logger.path = path;
	return 0;
}

void log_reopen(void)
{
	int err = log_open(logger.path);

	if (err)
		log_error("cannot reopen the log %s: %s", logger.path, strerror(-err));
	else
		log_info("log reopened");
}

void log_set_level(enum log_level level)
{
	logger.level = level;
}

enum log_level log_get_level(void)
{
	return logger.level;
}

int log_level_parse(const char *text)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcmp(text, levels[i].name) == 0)
			return (int)levels[i].level;
	}
	return -1;
}

const char *log_level_name(enum log_level level)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (level <= levels[i].level)
			return levels[i].name;
	}
	return "debug";
}

void log_clean(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
			*text = '?';
	}
}

static void write_line(enum log_level level, const char *fmt, va_list ap)
{
	struct timespec now;
	struct tm tm;
	char line[1600];
	int off;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	off = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	off += snprintf(line + off, sizeof(line) - (size_t)off,
			".%03ld vhost-scd[%d] %s: ", now.tv_nsec / 1000000, (int)getpid(),
			log_level_name(level));
	n = vsnprintf(line + off, sizeof(line) - (size_t)off, fmt, ap);
	if (n < 0)
		return;
	off += n;
	if (off > (int)sizeof(line) - 2)
		off = (int)sizeof(line) - 2;
	line[off++] = '\n';
	/* There is nobody to tell if the log cannot be written. */
	if (write(logger.fd, line, (size_t)off) < 0)
		return;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > logger.level)
		return;
	va_start(ap, fmt);
	write_line(level, fmt, ap);
	va_end(ap);
}

void log_peer(enum log_level level, const char *fmt, ...)
{
	struct timespec now;
	unsigned missed;
	va_list ap;

	if (level > logger.level)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != logger.second) {
		logger.second = now.tv_sec;
		logger.in_second = 0;
		missed = logger.suppressed;
		logger.suppressed = 0;
		if (missed)
			log_warn("%u lines caused by clients or the guest were left out", missed);
	}
	if (logger.in_second++ >= LOG_PEER_BURST) {
		logger.suppressed++;
		return;
	}
	va_start(ap, fmt);
	write_line(level, fmt, ap);
	va_end(ap);
}
