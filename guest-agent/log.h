/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.h - messages for people: to stderr, and errors and warnings to the broker as well.
 *
 * Any thread may log. What goes to the broker is queued in a small ring (newest dropped when it is full) that main
 * empties, because the transport is main's alone.
 */
#ifndef SC_AGENT_LOG_H
#define SC_AGENT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_ERROR   3
#define LOG_WARNING 4
#define LOG_INFO    6
#define LOG_DEBUG   7

/* Sets the least urgent level that is shown, and the eventfd that wakes main when something waits for the broker
 * (-1: none yet). */
void log_init(int level, int wake_fd);

/* Writes one line. Thread-safe; does not change errno. */
void log_msg(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Takes the oldest line meant for the broker. False if there is none. Called by main alone. */
bool log_take(uint32_t *level, char *text, size_t size);

#define log_error(...)	 log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_msg(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_msg(LOG_DEBUG, __VA_ARGS__)

#endif
