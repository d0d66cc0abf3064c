/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * unit.c - tests of the broker's parts that need no peer: hash table, blob, JSON, message queue,
 * guest memory, virtqueue, tickets.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "blob.h"
#include "broker.h"
#include "closer.h"
#include "guestmem.h"
#include "idmap.h"
#include "json.h"
#include "log.h"
#include "msgq.h"
#include "opnames.h"
#include "sock.h"
#include "virtqueue.h"

#include <vhost-sc/ops.h>

/* ---- idmap ---- */

static void test_idmap(void **state)
{
	enum { KEYS = 3000 };
	static bool in[KEYS];
	struct idmap m = {0};
	uint32_t used = 0;
	uint32_t v;

	srand(1);
	assert_false(idmap_get(&m, 1, &v));
	idmap_del(&m, 1);
	for (int i = 0; i < 200000; i++) {
		uint32_t k = (uint32_t)rand() % KEYS;
		uint64_t key = ((uint64_t)k << 32) + 1; /* as tickets' numbers are */

		if (!in[k]) {
			assert_int_equal(idmap_put(&m, key, k), 0);
			used++;
		} else {
			idmap_del(&m, key);
			used--;
		}
		in[k] = !in[k];
		assert_int_equal(m.used, used);
		k = (uint32_t)rand() % KEYS;
		assert_int_equal(idmap_get(&m, ((uint64_t)k << 32) + 1, &v), in[k]);
		if (in[k])
			assert_int_equal(v, k);
	}
	idmap_free(&m);
	assert_false(idmap_get(&m, 1, &v));
}

/* ---- blob ---- */

static void test_blob(void **state)
{
	struct blob_out out = {0};
	struct blob_in in;
	char text[8];
	char bytes[3];
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int got;

	blob_put_u32(&out, 7);
	blob_put_u64(&out, 1ull << 40);
	blob_put_string(&out, "hello");
	blob_put_bytes(&out, "abc", 3);
	blob_put_fd(&out, fd);
	blob_put_fd(&out, -1);
	for (uint32_t i = 0; i < 10000; i++)
		blob_put_u32(&out, i);
	assert_int_equal(out.err, 0);
	assert_int_equal(blob_inherit_fds(&out, 1), 0);
	assert_int_equal(fcntl(fd, F_GETFD), 0);

	in = (struct blob_in){.data = out.data, .len = out.len};
	assert_int_equal(blob_get_u32(&in), 7);
	assert_int_equal(blob_get_u64(&in), 1ull << 40);
	blob_get_string(&in, text, sizeof(text));
	assert_string_equal(text, "hello");
	blob_get_bytes(&in, bytes, 3);
	assert_memory_equal(bytes, "abc", 3);
	got = blob_get_fd(&in);
	assert_int_equal(got, fd);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(blob_get_fd(&in), -1);
	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(blob_get_u32(&in), i);
	assert_int_equal(in.err, 0);
	assert_int_equal(blob_get_u32(&in), 0);
	assert_int_equal(in.err, -EBADMSG);

	/* A string that does not fit, a descriptor that is not open. */
	in = (struct blob_in){.data = out.data + 12, .len = out.len - 12};
	blob_get_string(&in, text, 5);
	assert_int_equal(in.err, -EBADMSG);
	blob_out_free(&out);
	blob_put_fd(&out, 9999);
	in = (struct blob_in){.data = out.data, .len = out.len};
	assert_int_equal(blob_get_fd(&in), -1);
	assert_int_equal(in.err, -EBADMSG);
	blob_out_free(&out);
	close(fd);
}

/* ---- JSON ---- */

static void test_json_write(void **state)
{
	struct json j = {0};

	json_object(&j, NULL);
	json_string(&j, "a", "x\"\\\n\xff");
	json_string(&j, "none", NULL);
	json_array(&j, "l");
	json_u64(&j, NULL, UINT64_MAX);
	json_i64(&j, NULL, -1);
	json_bool(&j, NULL, true);
	json_object(&j, NULL);
	json_end_object(&j);
	json_end_array(&j);
	json_raw(&j, "r", "{}", 2);
	json_end_object(&j);
	assert_string_equal(j.text, "{\"a\":\"x\\u0022\\u005c\\u000a\\u00ff\",\"none\":null,"
				    "\"l\":[18446744073709551615,-1,true,{}],\"r\":{}}");
	assert_true(json_valid(j.text, j.len));
	json_free(&j);
}

static void test_json_read(void **state)
{
	static const char *const good[] = {"{}",
					   "[]",
					   " 1 ",
					   "-1.5e+3",
					   "\"\\u00ff\"",
					   "null",
					   "[1,[2,{\"a\":[]}]]",
					   "{\"a\" : 1 , \"b\":2}"};
	static const char *const bad[] = {"",
					  "{",
					  "}",
					  "[1,]",
					  "{\"a\"}",
					  "{\"a\":}",
					  "nul",
					  "01x",
					  "\"",
					  "\"\\",
					  "\"\\u12\"",
					  "{\"a\":1,}",
					  "1 2",
					  "[1 2]",
					  "\"\n\"",
					  "-",
					  "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"};
	const char *text = "{\"x\": [1, {\"cmd\": 2}], \"cmd\" : \"status\" ,\"n\":12}";
	struct json_slice v;
	char buf[8];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(json_valid(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(json_valid(bad[i], strlen(bad[i])));
	/* Every prefix of a good text: not read past its end (the sanitizers see to it), and not
	 * valid. */
	for (size_t n = 0; n < strlen(text); n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		assert_false(json_valid(copy, n));
		free(copy);
	}
	assert_true(json_member(text, strlen(text), "cmd", &v));
	assert_true(json_text(&v, buf, sizeof(buf)));
	assert_string_equal(buf, "status");
	assert_false(json_text(&v, buf, 6));
	assert_true(json_member(text, strlen(text), "n", &v));
	assert_false(json_text(&v, buf, sizeof(buf)));
	assert_int_equal(v.len, 2);
	assert_false(json_member(text, strlen(text), "none", &v));
	assert_false(json_member("{}", 2, "a", &v));
	assert_false(json_member("[]", 2, "a", &v));
}

/* ---- message queue ---- */

static void test_msgq(void **state)
{
	struct sc_msg_hdr m = {.type = SC_MSG_SYNCED, .len = sizeof(m)};
	struct blob_out out = {0};
	struct blob_in in;
	struct msgq q = {0};
	struct msgq r = {0};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	for (m.seq = 0; m.seq < TRANSPORT_QUEUE_MAX; m.seq++)
		assert_int_equal(msgq_put(&q, &m, &fd, m.seq == 5), 0);
	assert_int_equal(msgq_put(&q, &m, NULL, 0), -ENOBUFS);
	for (uint32_t i = 0; i < TRANSPORT_QUEUE_MAX - 2; i++) {
		if (i == 5) {
			assert_int_equal(q.head->nfds, 1);
			assert_true(q.head->fds[0] > 2 && q.head->fds[0] != fd);
		}
		assert_int_equal(((struct sc_msg_hdr *)q.head->data)->seq, i);
		msgq_pop(&q);
	}
	msgq_save(&q, &out);
	in = (struct blob_in){.data = out.data, .len = out.len};
	assert_int_equal(msgq_load(&r, &in), 0);
	assert_int_equal(r.count, 2);
	assert_memory_equal(r.head->data, q.head->data, sizeof(m));
	in = (struct blob_in){.data = out.data, .len = out.len - 1};
	msgq_clear(&r);
	assert_int_not_equal(msgq_load(&r, &in), 0);
	msgq_clear(&q);
	msgq_clear(&r);
	msgq_pop(&q);
	blob_out_free(&out);
	close(fd);
}

/* ---- guest memory ---- */

static int memory(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void test_guestmem(void **state)
{
	static struct guestmem m;
	unsigned char buf[64];
	unsigned char *at;
	int fd = memory(4 << 20);

	/* Two regions that touch in the guest, from one file, and a hole after them. */
	assert_int_equal(guestmem_add(&m, 0x100000, 0x1000, 0x7000000, 0, dup(fd)), 0);
	assert_int_equal(guestmem_add(&m, 0x101000, 0x1000, 0x9000000, 0x300000, dup(fd)), 0);
	assert_int_equal(guestmem_add(&m, 0x101fff, 0x1000, 0xa000000, 0, dup(fd)), -EINVAL);
	assert_int_equal(guestmem_add(&m, 0x200000, 0x1000, 0x7000fff, 0, dup(fd)), -EINVAL);
	assert_int_equal(guestmem_add(&m, UINT64_MAX - 4095, 0x1000, 0xb000000, 0, dup(fd)),
			 -EINVAL);
	assert_int_equal(guestmem_add(&m, 0x300000, 0, 0xb000000, 0, dup(fd)), -EINVAL);
	assert_int_equal(guestmem_add(&m, 0x300000, 0x1000, 0xb000000, 0, -1), -EINVAL);
	assert_int_equal(m.n, 2);

	memset(buf, 'x', sizeof(buf));
	assert_true(guestmem_write(&m, 0x100ff0, buf, sizeof(buf)));
	at = guestmem_front_end(&m, 0x9000000, 0x1000);
	assert_non_null(at);
	assert_memory_equal(at, buf, 48);
	assert_int_equal(at[48], 0);
	assert_true(guestmem_read(&m, 0x100fef, buf, 2));
	assert_int_equal(buf[0], 0);
	assert_int_equal(buf[1], 'x');
	assert_false(guestmem_read(&m, 0x101fff, buf, 2));
	assert_false(guestmem_read(&m, 0x0fffff, buf, 1));
	assert_false(guestmem_read(&m, UINT64_MAX, buf, 8));
	assert_true(guestmem_read(&m, UINT64_MAX, buf, 0));
	assert_null(guestmem_front_end(&m, 0x7000fff, 2));
	assert_null(guestmem_front_end(&m, 0x6ffffff, 1));
	assert_null(guestmem_front_end(&m, UINT64_MAX, 2));
	assert_null(guestmem_front_end(&m, 0x7000001, UINT64_MAX));

	assert_int_equal(guestmem_remove(&m, 0x100000, 0x1000, 1), -ENOENT);
	assert_int_equal(guestmem_remove(&m, 0x100000, 0x1000, 0x7000000), 0);
	assert_false(guestmem_read(&m, 0x100000, buf, 1));
	assert_true(guestmem_read(&m, 0x101000, buf, 1));
	guestmem_clear(&m);
	for (int i = 0; i <= GUESTMEM_MAX; i++)
		assert_int_equal(
		    guestmem_add(&m, (uint64_t)i << 12, 0x1000, (uint64_t)i << 12, 0, dup(fd)),
		    i < GUESTMEM_MAX ? 0
		    : i		     ? -ENOSPC
				     : -EINVAL);
	guestmem_clear(&m);
	close(fd);
}

/* ---- virtqueue ---- */

#define NUM 8

struct driver {
	struct guestmem mem;
	struct virtqueue q;
	unsigned char *ram;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

#define GPA  0x10000ull
#define UVA  0x7f0000000000ull
#define BUFS 0x2000ull

static struct driver *driver_new(void)
{
	struct driver *d = calloc(1, sizeof(*d));
	int fd = memory(1 << 16);

	d->ram = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(d->ram, MAP_FAILED);
	assert_int_equal(guestmem_add(&d->mem, GPA, 1 << 16, UVA, 0, fd), 0);
	d->desc = (struct vring_desc *)d->ram;
	d->avail = (struct vring_avail *)(d->ram + 16 * NUM);
	d->used = (struct vring_used *)(d->ram + 0x1000);
	d->q = (struct virtqueue){.num = NUM,
				  .desc = UVA,
				  .avail = UVA + 16 * NUM,
				  .used = UVA + 0x1000,
				  .started = true,
				  .enabled = true,
				  .kick = -1,
				  .call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	return d;
}

static void driver_free(struct driver *d)
{
	virtq_reset(&d->q);
	guestmem_clear(&d->mem);
	munmap(d->ram, 1 << 16);
	free(d);
}

static void offer(struct driver *d, uint16_t head)
{
	d->avail->ring[d->avail->idx % NUM] = head;
	d->avail->idx++;
}

static void test_virtqueue(void **state)
{
	struct driver *d = driver_new();
	struct virtq_buffer buf;
	eventfd_t n;
	char out[32];

	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 0);
	/* Over the end of the index, and through all entries. */
	d->q.index = d->avail->idx = d->used->idx = 65530;
	for (int i = 0; i < 100; i++) {
		d->desc[1] = (struct vring_desc){GPA + BUFS, 5, VRING_DESC_F_NEXT, 3};
		d->desc[3] = (struct vring_desc){GPA + BUFS + 100, 6, VRING_DESC_F_NEXT, 2};
		d->desc[2] = (struct vring_desc){GPA + BUFS + 200, 10, VRING_DESC_F_WRITE, 0};
		memcpy(d->ram + BUFS, "hello", 5);
		memcpy(d->ram + BUFS + 100, " world", 6);
		offer(d, 1);
		assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 1);
		assert_int_equal(virtq_read(&buf, &d->mem, out, sizeof(out)), 11);
		assert_memory_equal(out, "hello world", 11);
		assert_int_equal(virtq_read(&buf, &d->mem, out, 10), -1);
		assert_true(virtq_write(&buf, &d->mem, "0123456789", 10));
		assert_false(virtq_write(&buf, &d->mem, "0123456789x", 11));
		assert_memory_equal(d->ram + BUFS + 200, "0123456789", 10);
		virtq_give(&d->q, &d->mem, &buf, 10);
		assert_int_equal(d->used->idx, d->avail->idx);
		assert_int_equal(d->used->ring[(uint16_t)(d->used->idx - 1) % NUM].id, 1);
		assert_int_equal(d->used->ring[(uint16_t)(d->used->idx - 1) % NUM].len, 10);
	}
	virtq_notify(&d->q, &d->mem);
	assert_int_equal(eventfd_read(d->q.call, &n), 0);
	d->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtq_notify(&d->q, &d->mem);
	assert_int_equal(eventfd_read(d->q.call, &n), -1);
	/* Stopped or disabled: nothing is taken. */
	offer(d, 1);
	d->q.enabled = false;
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 0);
	d->q.enabled = true;
	d->q.started = false;
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 0);
	driver_free(d);
}

static void break_desc(struct driver *d, uint16_t head, struct vring_desc desc, const char *why)
{
	struct virtq_buffer buf;

	if (head < NUM)
		d->desc[head] = desc;
	offer(d, head);
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), -1);
	assert_non_null(strstr(d->q.broken, why));
	/* It stays broken. */
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 0);
	driver_free(d);
}

static void test_virtqueue_broken(void **state)
{
	struct virtq_buffer buf;
	struct driver *d;
	char out[32];

	break_desc(driver_new(), NUM, (struct vring_desc){0}, "out of range");
	break_desc(driver_new(), 0, (struct vring_desc){GPA, 1, VRING_DESC_F_NEXT, NUM},
		   "out of range");
	break_desc(driver_new(), 0, (struct vring_desc){GPA, 1, VRING_DESC_F_NEXT, 0}, "loop");
	break_desc(driver_new(), 0, (struct vring_desc){GPA, 16, VRING_DESC_F_INDIRECT, 0},
		   "indirect");
	d = driver_new();
	d->avail->idx = NUM;
	break_desc(d, 0, (struct vring_desc){GPA, 1, 0, 0}, "more buffers");
	d = driver_new();
	d->q.avail++;
	break_desc(d, 0, (struct vring_desc){GPA, 1, 0, 0}, "rings");
	d = driver_new();
	d->q.used = UVA + (1 << 16) - 8;
	break_desc(d, 0, (struct vring_desc){GPA, 1, 0, 0}, "rings");

	/* Buffers that are not memory are found when they are used. */
	d = driver_new();
	d->desc[0] = (struct vring_desc){GPA + (1 << 16) - 4, 8, 0, 0};
	offer(d, 0);
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 1);
	assert_int_equal(virtq_read(&buf, &d->mem, out, sizeof(out)), -1);
	d->desc[0] = (struct vring_desc){UINT64_MAX - 3, UINT32_MAX, VRING_DESC_F_WRITE, 0};
	assert_int_equal(virtq_take(&d->q, &d->mem, &buf), 1);
	assert_int_equal(virtq_read(&buf, &d->mem, out, sizeof(out)), 0);
	assert_false(virtq_write(&buf, &d->mem, out, sizeof(out)));
	driver_free(d);
}

/* ---- tickets ---- */

/* A broker with nothing but tickets in it. */
static struct broker *broker_new(void)
{
	static struct config cfg = {.channels = 4};
	struct broker *b = calloc(1, sizeof(*b));

	b->cfg = &cfg;
	b->fd_limit = 1024;
	assert_int_equal(loop_init(&b->loop), 0);
	assert_int_equal(hangup_init(b), 0);
	ticket_init(b);
	return b;
}

static void broker_free(struct broker *b)
{
	ticket_close_all(b);
	hangup_close(b);
	loop_close(&b->loop);
	free(b->dom.releases);
	free(b->dom.exits);
	free(b);
}

static void test_tickets(void **state)
{
	struct broker *b = broker_new();
	struct slot s = {.session = 9, .uid = 0};
	struct sc_ticket_name name = {.handle = 5};
	struct sc_ticket_name got;
	uint64_t numbers[SC_TICKETS_BATCH];
	int fds[SC_TICKETS_BATCH];
	char c = 0;

	assert_int_equal(ticket_make(b, &s, 3, numbers, fds), 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(numbers[i], 9ull << 32 | (i + 1));
	/* What the app end can do, and that nothing of it is a hang-up. */
	assert_int_equal(send(fds[0], &c, 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	assert_int_equal(read(fds[0], &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
	hangup_sweep(b);
	assert_int_equal(b->tickets.used, 3);
	/* Names and claims. */
	assert_true(ticket_claim(b, fds[1], &got));
	assert_int_equal(got.ticket, 0);
	name.ticket = numbers[1];
	ticket_set_name(b, 8, &name);
	ticket_claim(b, fds[1], &got);
	assert_int_equal(got.ticket, 0);
	ticket_set_name(b, 9, &name);
	ticket_claim(b, fds[1], &got);
	assert_int_equal(got.handle, 5);
	assert_false(ticket_claim(b, b->loop.epfd, &got));
	assert_int_equal(got.ticket, 0);
	/* A hang-up with the last copy, and its report. */
	close(fds[1]);
	hangup_sweep(b);
	assert_int_equal(b->dom.nreleases, 1);
	assert_int_equal(b->dom.releases[0], numbers[1]);
	assert_int_equal(b->tickets.used, 2);
	ticket_unmake(b, numbers, 3);
	assert_int_equal(b->tickets.used, 0);
	assert_int_equal(b->dom.nreleases, 1);
	close(fds[0]);
	close(fds[2]);
	broker_free(b);
}

/* Numbers go round, and pass over those that are held. */
static void test_ticket_numbers(void **state)
{
	struct broker *b = broker_new();
	struct slot s = {.session = 2, .uid = 0, .last_ticket = SC_MAX_TICKETS - 2};
	uint64_t numbers[4];
	uint64_t more[2];
	int fds[4];
	int more_fds[2];

	assert_int_equal(ticket_make(b, &s, 4, numbers, fds), 4);
	assert_int_equal(numbers[1], 2ull << 32 | SC_MAX_TICKETS);
	assert_int_equal(numbers[2], 2ull << 32 | 1);
	s.last_ticket = 0;
	assert_int_equal(ticket_make(b, &s, 2, more, more_fds), 2);
	assert_int_equal(more[0], 2ull << 32 | 3);
	sock_close_fds(fds, 4);
	sock_close_fds(more_fds, 2);
	hangup_sweep(b);
	assert_int_equal(b->tickets.used, 0);
	broker_free(b);
}

static void test_ticket_limits(void **state)
{
	struct broker *b = broker_new();
	struct slot root = {.session = 1, .uid = 0};
	struct slot user = {.session = 2, .uid = 1000};
	struct slot other = {.session = 3, .uid = 1001};
	uint64_t numbers[SC_TICKETS_BATCH];
	int fds[64][SC_TICKETS_BATCH];
	uint32_t made[64] = {0};
	uint32_t n = 0;

	b->tickets.limit = 100;
	for (; n < 10; n++)
		made[n] = ticket_make(b, &user, 10, numbers, fds[n]);
	/* A quarter of all for one user. */
	assert_int_equal(b->tickets.used, 25);
	made[n] = ticket_make(b, &other, 32, numbers, fds[n]);
	assert_int_equal(made[n], 25);
	n++;
	for (int i = 0; i < 3; i++, n++)
		made[n] = ticket_make(b, &root, 32, numbers, fds[n]);
	assert_int_equal(b->tickets.used, 100);
	assert_int_equal(ticket_make(b, &root, 1, numbers, fds[n]), 0);
	for (uint32_t i = 0; i < n; i++)
		sock_close_fds(fds[i], made[i]);
	hangup_sweep(b);
	assert_int_equal(b->tickets.used, 0);
	assert_int_equal(b->dom.nreleases, 100);
	broker_free(b);
}

static void test_ticket_restart(void **state)
{
	struct broker *b = broker_new();
	struct broker *c = broker_new();
	struct slot s = {.session = 4, .uid = 77};
	struct sc_ticket_name name = {.handle = 6, .secret = 7};
	struct sc_ticket_name got;
	struct blob_out out = {0};
	struct blob_in in;
	uint64_t numbers[2];
	int fds[2];

	assert_int_equal(ticket_make(b, &s, 2, numbers, fds), 2);
	name.ticket = numbers[0];
	ticket_set_name(b, 4, &name);
	ticket_save(b, &out);
	/* In a restart the descriptors are the same ones; here they are shared by two brokers. */
	in = (struct blob_in){.data = out.data, .len = out.len};
	assert_int_equal(ticket_load(c, &in), 0);
	assert_int_equal(c->tickets.used, 2);
	assert_true(ticket_claim(c, fds[0], &got));
	assert_memory_equal(&got, &name, sizeof(got));
	for (size_t cut = 1; cut < out.len; cut++) {
		struct broker *d = broker_new();

		in = (struct blob_in){.data = out.data, .len = out.len - cut};
		assert_int_not_equal(ticket_load(d, &in), 0);
		/* Its descriptors are c's and b's. */
		free(d->tickets.v);
		d->tickets.v = NULL;
		d->tickets.cap = 0;
		broker_free(d);
	}
	close(fds[0]);
	close(fds[1]);
	hangup_sweep(c);
	assert_int_equal(c->tickets.used, 0);
	assert_int_equal(c->dom.nreleases, 2);
	for (uint32_t i = 0; i < b->tickets.cap; i++)
		b->tickets.v[i].number = 0; /* closed by c */
	blob_out_free(&out);
	broker_free(b);
	broker_free(c);
}

/* ---- the rest ---- */

static void test_opnames(void **state)
{
	/* Every operation of ops.h has a name. */
	for (uint32_t op = 0; op < SC_OP_STORAGE_END; op++)
		assert_non_null(op_name(op));
	assert_string_equal(op_name(SC_OP_SYNCALL), "syncall");
	assert_null(op_name(SC_OP_MAX));
	assert_null(op_name(UINT32_MAX));
}

static void test_log(void **state)
{
	char text[] = "a\x1b[31m\xc3\xbc\n";

	log_clean(text);
	assert_string_equal(text, "a?[31m???");
	assert_int_equal(log_level_parse("warn"), LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse("loud"), -1);
	assert_string_equal(log_level_name(LOG_LEVEL_DEBUG), "debug");
}

static void test_closer(void **state)
{
	int pair[2];
	char c;

	closer_init();
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		closer_close(pair[0]);
		assert_int_equal(read(pair[1], &c, 1),
				 0); /* ends when the thread has closed the other */
		close(pair[1]);
	}
	assert_false(closer_tick(loop_now()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_idmap),	  cmocka_unit_test(test_blob),
	    cmocka_unit_test(test_json_write),	  cmocka_unit_test(test_json_read),
	    cmocka_unit_test(test_msgq),	  cmocka_unit_test(test_guestmem),
	    cmocka_unit_test(test_virtqueue),	  cmocka_unit_test(test_virtqueue_broken),
	    cmocka_unit_test(test_tickets),	  cmocka_unit_test(test_ticket_numbers),
	    cmocka_unit_test(test_ticket_limits), cmocka_unit_test(test_ticket_restart),
	    cmocka_unit_test(test_opnames),	  cmocka_unit_test(test_log),
	    cmocka_unit_test(test_closer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
