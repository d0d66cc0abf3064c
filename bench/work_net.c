/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work_net.c - sockets of scbench-work: a client, whose system calls are what is measured, and the
 * server that it talks to, which is always an ordinary process on the host's own stack.
 *
 * Commands (each with its COUNT):
 *	netserve ADDRESS             starts the server on a free port of ADDRESS, for TCP and UDP; extra
 *	                             "port". It lives as long as this process
 *	netrr ADDRESS PORT SIZE CONNECTIONS    requests and answers of SIZE bytes over TCP, one at a time,
 *	                             over each connection in turn; extras p50_ns, p99_ns, p999_ns
 *	netudp ADDRESS PORT SIZE     the same by datagrams; one that is lost is asked again after a while
 *	nettx, netrx ADDRESS PORT SIZE   send, receive by calls of SIZE bytes; over when the last byte has
 *	                             reached the other program
 *	netconn ADDRESS PORT         connect, a request and an answer of one byte, close
 *	nethttp ADDRESS PORT PATH BYTES   GET PATH from a web server over one connection that is kept; the
 *	                             answer's body must be of BYTES; extras as with netrr
 *
 * IPv4. What is done once (connecting, the first exchange) is not in the time, but for netconn. All
 * waits end after PATIENCE_S seconds without progress.
 */
#include "work.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SIZE_MAX_NET (16 * 1024 * 1024)
#define CONNS_MAX    16384
#define PATIENCE_S   20
#define UDP_AGAIN_MS 200

/* What a connection is for: the client's first bytes. */
struct wish {
	uint32_t kind; /* WISH_* */
	uint32_t size;
	uint64_t count; /* calls of `size` bytes, for SINK and SOURCE */
};

enum { WISH_ECHO = 1, WISH_SINK, WISH_SOURCE };

/* Receives all of it. 0, -EPIPE at an early end, or -errno. */
static int receive_all(int fd, char *to, size_t n)
{
	while (n) {
		ssize_t got = recv(fd, to, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EPIPE;
		to += got;
		n -= (size_t)got;
	}
	return 0;
}

static int send_all(int fd, const char *from, size_t n)
{
	while (n) {
		ssize_t put = send(fd, from, n, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		from += put;
		n -= (size_t)put;
	}
	return 0;
}

/* ---- the server ---- */

static void serve_echo(int fd, char *data, size_t size)
{
	while (!receive_all(fd, data, size) && !send_all(fd, data, size))
		;
}

static void serve_sink(int fd, char *data, const struct wish *w)
{
	uint64_t left = w->count * w->size;

	while (left) {
		ssize_t got = recv(fd, data, left < SIZE_MAX_NET ? left : SIZE_MAX_NET, 0);

		if (got <= 0)
			return;
		left -= (uint64_t)got;
	}
	send_all(fd, "", 1); /* all of it is here */
}

static void serve_source(int fd, const char *data, const struct wish *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		if (send_all(fd, data, w->size))
			return;
	/* until the client closes, so that it takes the last bytes undisturbed */
	recv(fd, (char[1]){0}, 1, 0);
}

static void *serve_connection(void *arg)
{
	int fd = (int)(intptr_t)arg, one = 1;
	struct wish w;
	char *data = NULL;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!receive_all(fd, (char *)&w, sizeof(w)) && w.size && w.size <= SIZE_MAX_NET)
		data = calloc(1, w.kind == WISH_SINK ? SIZE_MAX_NET : w.size);
	if (data && w.kind == WISH_ECHO)
		serve_echo(fd, data, w.size);
	else if (data && w.kind == WISH_SINK)
		serve_sink(fd, data, &w);
	else if (data && w.kind == WISH_SOURCE)
		serve_source(fd, data, &w);
	free(data);
	close(fd);
	return NULL;
}

static void *serve_datagrams(void *arg)
{
	static char data[65536];
	int fd = (int)(intptr_t)arg;

	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &len);

		if (n >= 0)
			sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, len);
		else if (errno != EINTR && errno != ECONNREFUSED)
			return NULL;
	}
}

static void serve(int tcp, int udp)
{
	pthread_attr_t small;
	pthread_t t;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	pthread_create(&t, &small, serve_datagrams, (void *)(intptr_t)udp);
	for (;;) {
		int fd = accept4(tcp, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0 && pthread_create(&t, &small, serve_connection, (void *)(intptr_t)fd))
			close(fd);
	}
}

static int fill_address(struct sockaddr_in *a, const char *host, const char *port)
{
	*a = (struct sockaddr_in){.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
	return inet_pton(AF_INET, host, &a->sin_addr) == 1 ? 0 : -EINVAL;
}

/* A TCP socket that listens at `a`, and a UDP socket of the same port. 0 or -errno. */
static int open_server(struct sockaddr_in *a, int *tcp, int *udp)
{
	socklen_t len = sizeof(*a);

	*udp = -1;
	*tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*tcp >= 0 && !bind(*tcp, (struct sockaddr *)a, sizeof(*a)) && !listen(*tcp, 4096) &&
	    !getsockname(*tcp, (struct sockaddr *)a, &len))
		*udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (*udp >= 0 && !bind(*udp, (struct sockaddr *)a, sizeof(*a)))
		return 0;
	return -errno;
}

int run_netserve(uint64_t count, int argc, char **argv)
{
	struct sockaddr_in a;
	int tcp, udp, err = fill_address(&a, argv[0], "0");
	pid_t pid;

	if (err)
		return err;
	err = open_server(&a, &tcp, &udp);
	pid = err ? -1 : fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		serve(tcp, udp);
		_exit(1);
	}
	close(tcp);
	close(udp);
	if (pid < 0)
		return err ? err : -errno;
	measure_begin();
	measure_end();
	measure_extra("port", ntohs(a.sin_port));
	return 0;
}

/* ---- the client ---- */

/* A connection on which the server has been told what for (w, unless NULL), or -errno. */
static int connect_to(const struct sockaddr_in *a, const struct wish *w)
{
	struct timeval patience = {.tv_sec = PATIENCE_S};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, err = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)))
		err = -errno;
	if (!err && w)
		err = send_all(fd, (const char *)w, sizeof(*w));
	if (!err)
		return fd;
	close(fd);
	return err;
}

static int exchange(int fd, char *data, size_t size)
{
	int err = send_all(fd, data, size);

	return err ? err : receive_all(fd, data, size);
}

/* Connects n times and exchanges once on each. Returns how many are open; *err says why fewer. */
static unsigned int connect_many(int *fds, unsigned int n, const struct sockaddr_in *a,
				 const struct wish *w, char *data, int *err)
{
	unsigned int i;

	*err = 0;
	for (i = 0; i < n && !*err; i++) {
		fds[i] = connect_to(a, w);
		if (fds[i] < 0) {
			*err = fds[i];
			break;
		}
		*err = exchange(fds[i], data, w->size);
	}
	return i;
}

int run_netrr(uint64_t count, int argc, char **argv)
{
	unsigned int n = (unsigned int)strtoul(argv[3], NULL, 10), open;
	struct wish w = {.kind = WISH_ECHO, .size = (uint32_t)strtoul(argv[2], NULL, 10)};
	struct latencies late = {0};
	struct sockaddr_in a;
	char *data;
	int *fds, err = fill_address(&a, argv[0], argv[1]);

	if (err || n < 1 || n > CONNS_MAX || !w.size || w.size > SIZE_MAX_NET)
		return -EINVAL;
	data = calloc(1, w.size);
	fds = calloc(n, sizeof(*fds));
	if (!data || !fds) {
		free(data);
		free(fds);
		return -ENOMEM;
	}
	open = connect_many(fds, n, &a, &w, data, &err);
	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int64_t start = measure_now();

		err = exchange(fds[i % n], data, w.size);
		latency_add(&late, measure_now() - start);
	}
	measure_end();
	latency_report(&late, 1);
	while (open--)
		close(fds[open]);
	free(fds);
	free(data);
	return err;
}

int run_netudp(uint64_t count, int argc, char **argv)
{
	static char data[65536];
	struct timeval again = {.tv_usec = UDP_AGAIN_MS * 1000};
	size_t size = strtoul(argv[2], NULL, 10);
	struct latencies late = {0};
	struct sockaddr_in a;
	unsigned int lost = 0;
	int fd, err = fill_address(&a, argv[0], argv[1]);

	if (err || !size || size > 65000)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &again, sizeof(again));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		err = -errno;
	measure_begin();
	for (uint64_t i = 0; i < count && !err;) {
		int64_t start = measure_now();

		if (send(fd, data, size, 0) < 0)
			err = -errno;
		else if (recv(fd, data, sizeof(data), 0) == (ssize_t)size)
			i++;
		else if (++lost > 100)
			err = -ETIME;
		latency_add(&late, measure_now() - start);
	}
	measure_end();
	latency_report(&late, 1);
	measure_extra("lost", lost);
	close(fd);
	return err;
}

static int send_stream(int fd, char *data, const struct wish *w)
{
	int err = 0;

	for (uint64_t i = 0; i < w->count && !err; i++)
		err = send_all(fd, data, w->size);
	return err ? err : receive_all(fd, data, 1);
}

static int receive_stream(int fd, char *data, const struct wish *w)
{
	int err = 0;

	for (uint64_t i = 0; i < w->count && !err; i++)
		err = receive_all(fd, data, w->size);
	return err;
}

static int stream(uint64_t count, char **argv, bool out)
{
	struct wish w = {.kind = out ? WISH_SINK : WISH_SOURCE,
			 .size = (uint32_t)strtoul(argv[2], NULL, 10),
			 .count = count};
	struct sockaddr_in a;
	char *data;
	int fd, err = fill_address(&a, argv[0], argv[1]);

	if (err || !w.size || w.size > SIZE_MAX_NET)
		return -EINVAL;
	data = calloc(1, w.size);
	if (!data)
		return -ENOMEM;
	measure_begin();
	fd = connect_to(&a, &w);
	if (fd < 0)
		err = fd;
	else
		err = out ? send_stream(fd, data, &w) : receive_stream(fd, data, &w);
	measure_end();
	if (fd >= 0)
		close(fd);
	free(data);
	return err;
}

int run_nettx(uint64_t count, int argc, char **argv)
{
	return stream(count, argv, true);
}

int run_netrx(uint64_t count, int argc, char **argv)
{
	return stream(count, argv, false);
}

/* Receives up to the end of an answer's head; what came after it stays in `data`. How much that is, or -errno. */
static ssize_t receive_head(int fd, char *data, size_t room)
{
	size_t have = 0;
	char *end;

	for (;;) {
		ssize_t got = recv(fd, data + have, room - 1 - have, 0);

		if (got <= 0)
			return got ? -errno : -EPIPE;
		have += (size_t)got;
		data[have] = '\0';
		end = strstr(data, "\r\n\r\n");
		if (end)
			break;
		if (have == room - 1)
			return -EMSGSIZE;
	}
	if (strncmp(data, "HTTP/1.1 200", 12))
		return -EPROTO;
	have -= (size_t)(end + 4 - data);
	return (ssize_t)have;
}

static int get_once(int fd, const char *request, uint64_t bytes)
{
	static char data[65536];
	int err = send_all(fd, request, strlen(request));
	ssize_t got;

	if (err)
		return err;
	got = receive_head(fd, data, sizeof(data));
	while (got >= 0 && (uint64_t)got < bytes) {
		bytes -= (uint64_t)got;
		got = recv(fd, data, bytes < sizeof(data) ? bytes : sizeof(data), 0);
		if (got <= 0)
			got = got ? -errno : -EPIPE;
	}
	return got < 0 ? (int)got : 0;
}

int run_nethttp(uint64_t count, int argc, char **argv)
{
	uint64_t bytes = strtoull(argv[3], NULL, 10);
	struct latencies late = {0};
	struct sockaddr_in a;
	char request[512];
	int fd, err = fill_address(&a, argv[0], argv[1]);

	if (err || !bytes ||
	    (size_t)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: b\r\n\r\n",
			     argv[2]) >= sizeof(request))
		return -EINVAL;
	fd = connect_to(&a, NULL);
	if (fd < 0)
		return fd;
	err = get_once(fd, request, bytes);
	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int64_t start = measure_now();

		err = get_once(fd, request, bytes);
		latency_add(&late, measure_now() - start);
	}
	measure_end();
	latency_report(&late, 1);
	close(fd);
	return err;
}

int run_netconn(uint64_t count, int argc, char **argv)
{
	struct wish w = {.kind = WISH_ECHO, .size = 1};
	struct latencies late = {0};
	struct sockaddr_in a;
	char byte = 0;
	int err = fill_address(&a, argv[0], argv[1]);

	measure_begin();
	for (uint64_t i = 0; i < count && !err; i++) {
		int64_t start = measure_now();
		int fd = connect_to(&a, &w);

		err = fd < 0 ? fd : exchange(fd, &byte, 1);
		if (fd >= 0)
			close(fd);
		latency_add(&late, measure_now() - start);
	}
	measure_end();
	latency_report(&late, 1);
	return err;
}
