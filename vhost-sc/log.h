/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.h - the broker's log: one line per event, to standard error or to a file.
 *
 * The log is the one piece of process-wide state (a file and a level): it is needed where no
 * context can be had. Text that comes from a peer is made printable, and lines that a peer can
 * cause at will go through log_peer(), which lets a bounded number per second pass and counts the
 * rest.
 */
#ifndef VHOST_SC_LOG_H
#define VHOST_SC_LOG_H

#include <stddef.h>

/* Severities, numbered as syslog and control.h number them. */
enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARN = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Sends the log to `path` (appended to, made if absent), or to standard error if NULL. The pointer
 * is kept. Returns 0 or -errno; the log is unchanged on failure. */
int log_open(const char *path);

/* Opens the log's path again, after a rotation (SIGHUP). Keeps the old file if that fails. */
void log_reopen(void);

/* Messages less severe than `level` are dropped. */
void log_set_level(enum log_level level);

/* The level in force. */
enum log_level log_get_level(void);

/* "error", "warn", "info", "debug" to a level; -1 if it is none of them. */
int log_level_parse(const char *text);

/* The name of a level, as log_level_parse() takes it. */
const char *log_level_name(enum log_level level);

/* Writes one line. */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As log_msg(), for lines that a client or a guest can cause: at most LOG_PEER_BURST in a second.
 */
void log_peer(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define LOG_PEER_BURST 20

/* Replaces what does not print in `text` (NUL-terminated) by '?'. */
void log_clean(char *text);

#define log_error(...) log_msg(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
