/* SPDX-License-Identifier: BSD-3-Clause */
/* log.c - see log.h. */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_TEXT  512
#define LOG_QUEUE 32

static struct {
	pthread_mutex_t lock;
	int level;
	int wake_fd;
	uint32_t head, count;
	struct {
		uint32_t level;
		char text[LOG_TEXT];
	} queue[LOG_QUEUE];
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO, .wake_fd = -1};

void log_init(int level, int wake_fd)
{
	pthread_mutex_lock(&logger.lock);
	logger.level = level;
	logger.wake_fd = wake_fd;
	pthread_mutex_unlock(&logger.lock);
}

/* Puts a line into the broker's queue. Called with the lock held. */
static void enqueue(int level, const char *text)
{
	uint32_t at;
	uint64_t one = 1;

	if (logger.wake_fd < 0 || logger.count == LOG_QUEUE)
		return;
	at = (logger.head + logger.count++) % LOG_QUEUE;
	logger.queue[at].level = (uint32_t)level;
	memcpy(logger.queue[at].text, text, LOG_TEXT);
	if (write(logger.wake_fd, &one, sizeof(one)) < 0)
		return; /* main looks at the queue with each heartbeat anyway */
}

void log_msg(int level, const char *fmt, ...)
{
	static const char *const names[] = {"", "", "", "error", "warning", "", "info", "debug"};
	char text[LOG_TEXT] = "";
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&logger.lock);
	if (level <= logger.level)
		fprintf(stderr, "sc-agent: %s: %s\n", names[level & 7], text);
	if (level <= LOG_WARNING)
		enqueue(level, text);
	pthread_mutex_unlock(&logger.lock);
	errno = saved;
}

bool log_take(uint32_t *level, char *text, size_t size)
{
	bool any;

	pthread_mutex_lock(&logger.lock);
	any = logger.count > 0;
	if (any) {
		*level = logger.queue[logger.head].level;
		snprintf(text, size, "%s", logger.queue[logger.head].text);
		logger.head = (logger.head + 1) % LOG_QUEUE;
		logger.count--;
	}
	pthread_mutex_unlock(&logger.lock);
	return any;
}
