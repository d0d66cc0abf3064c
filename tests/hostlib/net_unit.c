/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_unit - the serving layer's sockets in a test program, against a fake broker and an agent that is right or malicious (fake.c):
 * routes, rings, locks, and what hostile words in a socket's object do. Meant to be run under ASan and UBSan as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <asm/unistd.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"
#include "net.h"
#include "process.h"

#define RING_LOG2 12u
#define RING	  (1u << RING_LOG2)

static struct sc_thread *T;

/* Where the fake agent places the next socket, and what it says of it. */
static uint32_t next_off;
static uint32_t next_index;
static struct sc_sock_loc spoil; /* added to the truth */
static struct sc_sock *object;	 /* the last one made, as the agent sees it */
static uint16_t made_type;

static long call(long nr, long a0, long a1, long a2, long a3, long a4, long a5)
{
	return sc_dispatch(T, nr, a0, a1, a2, a3, a4, a5);
}

static struct sc_sockaddr addr4(const char *text, uint16_t port)
{
	struct sc_sockaddr a = {.family = AF_INET, .port = htons(port)};

	inet_pton(AF_INET, text, &a.flow);
	return a;
}

static struct sc_sockaddr addr6(const char *text)
{
	struct sc_sockaddr a = {.family = AF_INET6};

	inet_pton(AF_INET6, text, a.addr6);
	return a;
}

/* ---- the agent ---- */

static void make_socket(const struct sc_slot *s, struct sc_cqe *c)
{
	struct sc_sock_loc loc = {
	    .off = next_off, .tx_log2 = RING_LOG2, .rx_log2 = RING_LOG2, .family = AF_INET};

	made_type = (uint16_t)(s->arg0 >> 16);
	object = (struct sc_sock *)(fake.base + next_off);
	memset(object, 0, sizeof(*object));
	object->state = made_type == SOCK_STREAM ? SC_SOCK_NEW : SC_SOCK_BOUND;
	next_off += sc_sock_size(RING_LOG2, RING_LOG2);
	loc.off += spoil.off;
	loc.tx_log2 = (uint8_t)(loc.tx_log2 + spoil.tx_log2);
	loc.segment += spoil.segment;
	memcpy(fake.base + s->buf2, &loc, sizeof(loc));
	c->res = (int64_t)(1ull << 32 | next_index++);
}

static int net_agent(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane,
		     uint32_t index)
{
	(void)lane;
	(void)index;
	switch (s->op) {
	case SC_OP_NET_SEGMENT:
		if (s->arg0)
			c->res = -ENOENT;
		else
			next_off = s->buf;
		break;
	case SC_OP_SOCKET:
		if (next_off)
			make_socket(s, c);
		else
			c->res = -ENOBUFS;
		break;
	case SC_OP_CONNECT:
		object->state = SC_SOCK_CONNECTED;
		object->peer.family = AF_INET;
		break;
	default:
		c->res = 0;
	}
	return 1;
}

static int start(void **state)
{
	static char net[] =
	    "VHOST_SC_NET=fake=10.0.0.0/8\nother=192.168.4.0/22\nsix=fd00:1::/32\nlast";
	static char lib[] = "VHOST_SC_LIB=/x/libhostsc.so.0";
	static char *env[] = {net, lib, NULL};

	(void)state;
	T = sc_thread_ensure();
	if (!sc_serve_init(env))
		return -1;
	fake_start();
	T->proc = &sc_main_proc;
	assert_null(env[0]);
	return 0;
}

static int fresh(void **state)
{
	(void)state;
	fake_agent = net_agent;
	memset(&spoil, 0, sizeof(spoil));
	next_off = 0;
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		sc_lane_drop(T, &sc_doms[i]);
		sc_dom_drop(&sc_doms[i]);
	}
	return 0;
}

/* A socket connected to 10.1.2.3; -errno. */
static long connected(int type)
{
	struct sc_sockaddr a = addr4("10.1.2.3", 80);
	int fd = socket(AF_INET, type, 0);
	long res;

	assert_true(fd >= 0);
	res = call(__NR_connect, fd, (long)&a, 16, 0, 0, 0);
	if (res == 0)
		return fd;
	close(fd);
	return res;
}

/* ---- routes ---- */

static const char *route4(const char *text, bool local)
{
	struct sc_sockaddr a = addr4(text, 1);
	struct sc_dom *d = sc_netroute_to(&a, local);

	return d ? d->name : "host";
}

static const char *route6(const char *text)
{
	struct sc_sockaddr a = addr6(text);
	struct sc_dom *d = sc_netroute_to(&a, false);

	return d ? d->name : "host";
}

static void test_routes(void **state)
{
	static const char *const wrong[] = {"x=10.0.0.0/33",
					    "x=10.0.0",
					    "x=10.0.0.256",
					    "x=fd00::1::2",
					    "x=",
					    "x=1.2.3.4/",
					    "x=:1",
					    "x=fd00::/129",
					    "=10.0.0.0/8",
					    ".x",
					    "x=10.0.0.0/8 ",
					    "x=1:2:3:4:5:6:7:8:9"};

	(void)state;
	assert_string_equal(route4("10.255.0.1", false), "fake");
	assert_string_equal(route4("192.168.7.255", false), "other");
	assert_string_equal(route4("192.168.8.0", false), "last");
	assert_string_equal(route4("127.8.8.8", false), "host");
	assert_string_equal(route4("0.0.0.0", true), "last");
	assert_string_equal(route4("0.0.0.0", false), "host");
	assert_string_equal(route6("fd00:1:2::3"), "six");
	assert_string_equal(route6("fd00:2::3"), "last");
	assert_string_equal(route6("::1"), "host");
	assert_string_equal(route6("::ffff:10.0.0.1"), "fake");
	assert_string_equal(route6("::ffff:127.0.0.1"), "host");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(sc_netroute_add(wrong[i], (uint32_t)strlen(wrong[i])), -EINVAL);
}

/* ---- rings ---- */

static void test_ring_wraps(void **state)
{
	uint8_t ring[64], in[64], out[64];

	(void)state;
	for (uint32_t i = 0; i < 64; i++)
		in[i] = (uint8_t)(i + 1);
	for (uint32_t at = 0xffffffc0u; at != 64; at++) {
		for (uint32_t len = 0; len <= 64; len += 7) {
			memset(out, 0, sizeof(out));
			assert_int_equal(sc_ring_put(ring, 64, at, in, len), 0);
			assert_int_equal(sc_ring_get(ring, 64, at, out, len), 0);
			assert_memory_equal(in, out, len);
		}
	}
	assert_int_equal(sc_ring_put(ring, 64, 60, (void *)1, 8), -EFAULT);
	assert_int_equal(sc_ring_get(ring, 64, 60, (void *)1, 8), -EFAULT);
	assert_int_equal(sc_ring_used(5, 0xfffffffbu, 64), 10);
	assert_int_equal(sc_ring_used(65, 0, 64), -ECONNRESET);
	assert_int_equal(sc_ring_used(0, 1, 64), -ECONNRESET);
}

/* ---- locks ---- */

static uint32_t lock_word, lock_count;

static void *locker(void *arg)
{
	struct sc_thread *t = sc_thread_ensure();

	(void)arg;
	for (int i = 0; i < 20000; i++) {
		uint32_t seen;

		sc_ring_lock(t, &lock_word);
		seen = lock_count;
		lock_count = seen + 1;
		sc_ring_unlock(t, &lock_word);
	}
	return NULL;
}

static void test_lock(void **state)
{
	pthread_t t[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, locker, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(lock_count, 80000);
	assert_int_equal(lock_word, 0);
}

static void test_lock_of_the_dead(void **state)
{
	uint32_t word;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	word = (uint32_t)pid;
	sc_ring_lock(T, &word);
	assert_true(sc_ring_mine(T, &word));
	sc_ring_unlock(T, &word);
	assert_int_equal(word, 0);
}

/* A word that names a living thread for ever, as a stopped holder or a hostile agent would leave it. */
static void test_lock_is_taken_over(void **state)
{
	uint32_t word = (uint32_t)getppid();

	(void)state;
	sc_ring_lock(T, &word);
	assert_true(sc_ring_mine(T, &word));
	word = (uint32_t)getppid();
	assert_false(sc_ring_mine(T, &word));
	sc_ring_unlock(T, &word); /* not ours: left alone */
	assert_int_equal(word, (uint32_t)getppid());
}

/* ---- sockets ---- */

static void test_send_and_receive(void **state)
{
	uint8_t *tx, *rx, buf[RING];
	long fd;

	(void)state;
	fd = connected(SOCK_STREAM);
	assert_true(fd >= 0);
	tx = (uint8_t *)(object + 1);
	rx = tx + RING;
	object->tx_head = object->tx_tail = RING - 2; /* the next bytes go around the end */
	assert_int_equal(call(__NR_write, fd, (long)"abcd", 4, 0, 0, 0), 4);
	assert_int_equal(object->tx_tail, RING + 2);
	assert_memory_equal(tx + RING - 2, "ab", 2);
	assert_memory_equal(tx, "cd", 2);
	for (uint8_t i = 0; i < 10; i++)
		rx[i] = (uint8_t)('0' + i);
	object->rx_tail = 10;
	assert_int_equal(call(__NR_recvfrom, fd, (long)buf, 4, MSG_PEEK, 0, 0), 4);
	assert_int_equal(object->rx_head, 0);
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0, 0, 0), 4);
	assert_memory_equal(buf, "0123", 4);
	assert_int_equal(object->rx_head, 4);
	assert_int_equal(call(__NR_read, fd, 1, 4, 0, 0, 0), -EFAULT);
	assert_int_equal(object->rx_head, 4);
	assert_int_equal(call(__NR_read, fd, (long)buf, 100, 0, 0, 0), 6);
	assert_int_equal(call(__NR_recvfrom, fd, (long)buf, 1, MSG_DONTWAIT, 0, 0), -EAGAIN);
	object->flags = SC_SOCK_F_RX_EOF;
	assert_int_equal(call(__NR_read, fd, (long)buf, 1, 0, 0, 0), 0);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0, 0, 0), 0);
}

static void test_hostile_stream(void **state)
{
	uint8_t buf[RING];
	struct pollfd p;
	long fd;

	(void)state;
	fd = connected(SOCK_STREAM);
	assert_true(fd >= 0);
	object->rx_tail = RING + 1;
	assert_int_equal(call(__NR_read, fd, (long)buf, sizeof(buf), 0, 0, 0), -ECONNRESET);
	object->rx_tail = 0xffffffffu;
	assert_int_equal(call(__NR_read, fd, (long)buf, sizeof(buf), 0, 0, 0), -ECONNRESET);
	object->rx_tail = 0;
	object->tx_head = 1;
	assert_int_equal(call(__NR_write, fd, (long)"x", 1, 0, 0, 0), -ECONNRESET);
	object->tx_head = 0;
	object->error = 0x12345678;
	object->err_seq = 7;
	assert_int_equal(call(__NR_read, fd, (long)buf, 1, 0, 0, 0), -EIO);
	object->state = 99;
	object->flags = 0xffffffffu;
	p = (struct pollfd){.fd = (int)fd, .events = POLLIN | POLLOUT};
	assert_int_equal(call(__NR_poll, (long)&p, 1, 0, 0, 0, 0), 1);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0, 0, 0), 0);
}

static void test_hostile_datagrams(void **state)
{
	struct sc_dgram *d;
	uint8_t buf[128];
	long fd;

	(void)state;
	fd = connected(SOCK_DGRAM);
	assert_true(fd >= 0);
	d = (struct sc_dgram *)((uint8_t *)(object + 1) + RING);
	d->len = 4;
	memcpy(d + 1, "data", 4);
	object->rx_tail = 128;
	assert_int_equal(call(__NR_read, fd, (long)buf, sizeof(buf), 0, 0, 0), 4);
	assert_memory_equal(buf, "data", 4);
	assert_int_equal(object->rx_head, 128);
	for (uint32_t len = 0; len < 40;
	     len++) { /* a datagram that is longer than what was published */
		object->rx_head = 0;
		object->rx_tail = 64;
		d->len = len == 0   ? 0xffffffffu
			 : len == 1 ? RING
			 : len == 2 ? 0xffffffc0u
				    : 64 + len;
		assert_int_equal(call(__NR_read, fd, (long)buf, sizeof(buf), 0, 0, 0), -EIO);
	}
	object->rx_head = 3;
	object->rx_tail = 67;
	assert_int_equal(call(__NR_read, fd, (long)buf, sizeof(buf), 0, 0, 0), -EIO);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0, 0, 0), 0);
}

/* A place outside of the arena, askew, too large, or in a segment that nobody knows. */
static void test_hostile_place(void **state)
{
	(void)state;
	spoil.off = 1;
	assert_true(connected(SOCK_STREAM) < 0);
	spoil.off = 0x80000000u;
	assert_true(connected(SOCK_STREAM) < 0);
	spoil.off = 0u - 0x10000000u;
	assert_true(connected(SOCK_STREAM) < 0);
	spoil.off = 0;
	spoil.tx_log2 = 10;
	assert_true(connected(SOCK_STREAM) < 0);
	spoil.tx_log2 = 0;
	spoil.segment = 77;
	assert_true(connected(SOCK_STREAM) < 0);
}

/* Marks of sockets that are not there, and all of them at once. */
static void test_hostile_marks(void **state)
{
	struct sc_chan *c;
	long fd = connected(SOCK_STREAM);
	struct pollfd p = {.fd = (int)fd, .events = POLLIN};

	(void)state;
	assert_true(fd >= 0);
	c = sc_doms[0].chan;
	memset(c->net->area->event, 0xff, sizeof(c->net->area->event));
	memset(c->net->area->event_sum, 0xff, sizeof(c->net->area->event_sum));
	assert_int_equal(call(__NR_poll, (long)&p, 1, 10, 0, 0, 0), 0);
	assert_int_equal(c->net->area->event_sum[0], 0);
	assert_int_equal(c->net->area->event[SC_NET_WORDS - 1], 0);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0, 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_routes, fresh),
	    cmocka_unit_test_setup(test_ring_wraps, fresh),
	    cmocka_unit_test_setup(test_lock, fresh),
	    cmocka_unit_test_setup(test_lock_of_the_dead, fresh),
	    cmocka_unit_test_setup(test_lock_is_taken_over, fresh),
	    cmocka_unit_test_setup(test_send_and_receive, fresh),
	    cmocka_unit_test_setup(test_hostile_stream, fresh),
	    cmocka_unit_test_setup(test_hostile_datagrams, fresh),
	    cmocka_unit_test_setup(test_hostile_place, fresh),
	    cmocka_unit_test_setup(test_hostile_marks, fresh),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
