/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * unit - the serving layer in a test program: paths, descriptors, lanes, against an agent that is right, wrong, silent or
 * malicious (fake.c). Meant to be run under ASan and UBSan as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chan-priv.h"
#include "dispatch.h"
#include "fake.h"
#include "libfd.h"
#include "path.h"
#include "process.h"

static struct sc_thread *T;

static long call(long nr, long a0, long a1, long a2, long a3)
{
	return sc_dispatch(T, nr, a0, a1, a2, a3, 0, 0);
}

#define ROUTES "fake:/sc-test/a\nfake:/sc-test/a/b=sub\nfake:/sc-other=/x/y"

static int start(void **state)
{
	static char routes[] = "VHOST_SC_ROUTES=" ROUTES, lib[] = "VHOST_SC_LIB=/x/libhostsc.so.0";
	static char preload[] = "LD_PRELOAD=/x/libhostsc.so.0:/y/other.so", home[] = "HOME=/h";
	static char *env[] = {routes, lib, preload, home, NULL};

	(void)state;
	T = sc_thread_ensure();
	if (!sc_serve_init(env))
		return -1;
	fake_start();
	T->proc = &sc_main_proc;
	assert_string_equal(env[0], "LD_PRELOAD=/y/other.so");
	assert_string_equal(env[1], "HOME=/h");
	assert_null(env[2]);
	return 0;
}

/* Each test begins with an agent that is right, a new channel, and no descriptor left. */
static int fresh(void **state)
{
	(void)state;
	fake_agent = fake_good;
	fake_status = 0;
	fake_silent = 0;
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		sc_lane_drop(T, &sc_doms[i]);
		sc_dom_drop(&sc_doms[i]);
	}
	return 0;
}

/* ---- paths ---- */

static void test_normalise(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
	    {"/", "/"},		  {"//", "/"},
	    {"/.", "/"},	  {"/..", "/"},
	    {"/a/b", "/a/b"},	  {"/a//b///c", "/a/b/c"},
	    {"/a/./b/.", "/a/b"}, {"/a/../b", "/b"},
	    {"/a/b/../..", "/"},  {"/a/b/../../../c", "/c"},
	    {"/a/b/", "/a/b"},	  {"/.a/..b/...", "/.a/..b/..."},
	};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		strcpy(buf, cases[i].in);
		assert_int_equal(sc_path_normalise(buf), strlen(cases[i].out));
		assert_string_equal(buf, cases[i].out);
	}
}

static void test_match(void **state)
{
	static const struct {
		const char *path, *prefix, *rest;
		bool dotdot;
	} cases[] = {
	    {"/sc-test/a", "/sc-test/a", "", false},
	    {"/sc-test/a/", "/sc-test/a", "", false},
	    {"/sc-test/a/x/y", "/sc-test/a", "x/y", false},
	    {"//sc-test//.//a///x", "/sc-test/a", "x", false},
	    {"/sc-test/a/b", "/sc-test/a/b", "", false},
	    {"/sc-test/a/b/c", "/sc-test/a/b", "c", false},
	    {"/sc-test/a/bb", "/sc-test/a", "bb", false},
	    {"/sc-test/a/x/..", "/sc-test/a", "x/..", false},
	    {"/sc-test/ab", NULL, NULL, false},
	    {"/sc-test", NULL, NULL, false},
	    {"/sc-tes", NULL, NULL, false},
	    {"/", NULL, NULL, false},
	    {"/sc-other/z", "/sc-other", "z", false},
	    {"/sc-test/../sc-other/z", NULL, NULL, true},
	    {"/../sc-other/z", NULL, NULL, true},
	    {"/usr/lib/..", NULL, NULL, true},
	    {"/..x/y", NULL, NULL, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t rest = 0;
		bool dotdot;
		const struct sc_route *r = sc_route_match(cases[i].path, &rest, &dotdot);

		if (!cases[i].prefix) {
			assert_null(r);
			assert_int_equal(dotdot, cases[i].dotdot);
			continue;
		}
		assert_non_null(r);
		assert_string_equal(r->prefix, cases[i].prefix);
		assert_string_equal(cases[i].path + rest, cases[i].rest);
	}
}

static void test_route_add(void **state)
{
	(void)state;
	assert_int_equal(sc_route_add("noroute", 7), -EINVAL);
	assert_int_equal(sc_route_add("x:relative", 10), -EINVAL);
	assert_int_equal(sc_route_add("x:/", 3), -EINVAL);
	assert_int_equal(sc_route_add("x:/a/..", 7), -EINVAL);
	assert_int_equal(sc_route_add("b/d:/a", 6), -EINVAL);
	assert_int_equal(sc_route_add(".d:/a", 5), -EINVAL);
}

/* ---- descriptors ---- */

static void test_open_close(void **state)
{
	char buf[8] = {0};
	long fd, dup, again;
	struct sc_file *f;

	(void)state;
	fd = call(__NR_open, (long)"/sc-test/a/file", O_RDWR, 0, 0);
	assert_true(fd >= 0 && fd < 64);
	f = sc_fd_file(T, (int)fd);
	assert_non_null(f);
	assert_int_equal(f->handle, 5);
	assert_int_equal(f->type, S_IFREG);
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), 4);
	assert_memory_equal(buf, "rrrr", 4);
	dup = call(__NR_dup, fd, 0, 0, 0);
	assert_true(dup > fd);
	assert_ptr_equal(sc_fd_file(T, (int)dup), f);
	assert_int_equal(f->refs, 2);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0), 0);
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), SC_NATIVE);
	assert_int_equal(call(__NR_read, dup, (long)buf, 4, 0), 4);
	/* above what the test program itself uses */
	again = call(__NR_dup2, dup, 500, 0, 0);
	assert_int_equal(again, 500);
	assert_int_equal(call(__NR_close, dup, 0, 0, 0), 0);
	assert_int_equal(call(__NR_close_range, 500, ~0u, 0, 0), 0);
	assert_null(sc_fd_file(T, 500));
	assert_int_equal(fcntl(500, F_GETFD), -1);
	/* what is the library's survived */
	fd = call(__NR_open, (long)"/sc-test/a/file", O_RDWR, 0, 0);
	assert_true(fd >= 0);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0), 0);
}

static void test_own_descriptors(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	int ours = sc_libfd_next(0), moved;
	char buf[4];

	(void)state;
	assert_true(ours > 16);
	assert_int_equal(call(__NR_close, ours, 0, 0, 0), -EBADF);
	assert_int_equal(call(__NR_dup2, ours, 50, 0, 0), -EBADF);
	for (int n = 0; n < 40; n++) { /* each in turn is wanted by the program */
		moved = sc_libfd_next(0);
		assert_int_equal(call(__NR_dup2, 2, moved, 0, 0), SC_NATIVE);
		assert_false(sc_libfd_is(moved));
	}
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), 4);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0), 0);
}

static void test_many_files(void **state)
{
	long fds[200];

	(void)state;
	for (int i = 0; i < 200; i++) {
		fds[i] = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
		assert_true(fds[i] >= 0);
	}
	for (int i = 0; i < 200; i++)
		assert_int_equal(call(__NR_close, fds[i], 0, 0, 0), 0);
}

static void test_attach_refused(void **state)
{
	(void)state;
	fake_status = SC_ATTACH_DENIED;
	assert_int_equal(call(__NR_open, (long)"/sc-test/a/f", O_RDONLY, 0, 0), -EACCES);
	assert_string_equal(sc_doms[0].text, "refused by the test");
	fake_status = SC_ATTACH_DOWN;
	assert_int_equal(call(__NR_open, (long)"/sc-test/a/f", O_RDONLY, 0, 0), -EIO);
	fake_status = SC_ATTACH_LIMIT;
	assert_int_equal(call(__NR_open, (long)"/sc-test/a/f", O_RDONLY, 0, 0), -ENFILE);
	fake_status = 0;
}

static int only_grant(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane,
		      uint32_t index)
{
	fake_good(s, c, lane, index);
	if (s->op == SC_OP_GRANT)
		c->res = -EACCES;
	return 1;
}

static void test_grant(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	struct sc_file *f = sc_fd_file(T, (int)fd);
	uint32_t gen = f->gen, sessions = fake_attached;
	char buf[4];

	(void)state;
	sc_lane_drop(T, f->dom);
	sc_dom_drop(f->dom);
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), 4);
	assert_int_equal(fake_attached, sessions + 1);
	assert_int_not_equal(f->gen, gen);
	fake_agent = only_grant;
	sc_lane_drop(T, f->dom);
	sc_dom_drop(f->dom);
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), -EIO);
	call(__NR_close, fd, 0, 0, 0);
}

/* ---- what a malicious agent can do ---- */

static int64_t evil_res;
static uint32_t evil_flags;

static int evil(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane, uint32_t index)
{
	fake_good(s, c, lane, index);
	if (s->op == SC_OP_ROOT || s->op == SC_OP_OPEN || s->op == SC_OP_CLOSE ||
	    s->op == SC_OP_SEEK)
		return 1;
	c->res = evil_res;
	c->flags = evil_flags;
	return 1;
}

static void test_too_much(void **state)
{
	static char big[300000];
	char buf[64], guard[16];
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDWR, 0, 0);

	(void)state;
	memset(guard, 'g', sizeof(guard));
	fake_agent = evil;
	evil_flags = 0;
	static const int64_t results[] = {17, 1000, INT64_MAX, -4096, INT64_MIN};

	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		evil_res = results[i];
		assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -EIO);
		assert_int_equal(call(__NR_write, fd, (long)buf, 16, 0), -EIO);
		assert_int_equal(call(__NR_readlink, (long)"/sc-test/a/l", (long)buf, 16, 0), -EIO);
		assert_true(call(__NR_getdents64, fd, (long)buf, 64, 0) < 0);
	}
	evil_res = INT64_MAX;
	assert_int_equal(call(__NR_read, fd, (long)big, sizeof(big), 0), -EIO);
	assert_int_equal(call(__NR_write, fd, (long)big, sizeof(big), 0), -EIO);
	evil_res = -12; /* an error that no kernel would give here is the agent's to say */
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -12);
	assert_int_equal(call(__NR_close, fd, 0, 0, 0), 0);
}

static uint32_t cross_kind, cross_len;

static int crosser(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane, uint32_t index)
{
	struct sc_cross *x = (struct sc_cross *)(fake.base + s->buf);

	if (s->op == SC_OP_ROOT)
		return fake_good(s, c, lane, index);
	x->kind = cross_kind;
	x->len = cross_len;
	if (cross_len < SC_PATH_BUF - sizeof(*x))
		memset(x->rest, '/', cross_len);
	if (cross_len == 13)
		memcpy(x->rest, "/sc-test/a/ab", 13);
	c->res = -EXDEV;
	c->flags = SC_CQE_F_CROSS;
	return 1;
}

static void test_cross(void **state)
{
	static const struct {
		uint32_t kind, len;
		long want;
	} cases[] = {
	    {SC_CROSS_ABS, 13, -ELOOP}, /* for ever in a circle */
	    {0, 5, -EIO},
	    {77, 5, -EIO},
	    {SC_CROSS_ABS, SC_PATH_BUF, -EIO},
	    {SC_CROSS_ABS, UINT32_MAX, -EIO},
	    {SC_CROSS_UP, UINT32_MAX - 4, -EIO},
	    {SC_CROSS_ABS, 0, -EIO},
	    {SC_CROSS_UP, 4000, SC_NATIVE_CHANGED},
	    {SC_CROSS_UP, 0, SC_NATIVE_CHANGED},
	};
	struct stat st;

	(void)state;
	fake_agent = crosser;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cross_kind = cases[i].kind;
		cross_len = cases[i].len;
		assert_int_equal(call(__NR_stat, (long)"/sc-test/a/f", (long)&st, 0, 0),
				 cases[i].want);
		assert_int_equal(call(__NR_open, (long)"/sc-test/a/f", 0, 0, 0), cases[i].want);
	}
	cross_kind = SC_CROSS_UP;
	cross_len = 0;
	call(__NR_stat, (long)"/sc-test/a/..", (long)&st, 0, 0);
	assert_string_equal((char *)T->native.a[0], "/sc-test/.");
}

static int nothing(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane, uint32_t index)
{
	return s->op == SC_OP_ROOT || s->op == SC_OP_OPEN ? fake_good(s, c, lane, index) : 0;
}

static long now_ms(void)
{
	return (long)sc_now_ms();
}

static void test_silence(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0), t0;
	struct sc_hlane *lane;
	char buf[16];

	(void)state;
	fake_agent = nothing;
	fake_silent = 1;
	t0 = now_ms();
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -EIO);
	assert_in_range(now_ms() - t0, FAKE_DEADLINE_MS, FAKE_DEADLINE_MS + 1500);
	lane = ((struct sc_serve_thread *)T->serve)->dom[0].lane;
	assert_int_equal(lane->dead, 1);
	fake_silent = 0;
	fake_agent = fake_good;
	/* another lane serves; the dead one stays out of use */
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), 16);
	assert_ptr_not_equal(((struct sc_serve_thread *)T->serve)->dom[0].lane, lane);
	call(__NR_close, fd, 0, 0, 0);
}

static int slow(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane, uint32_t index)
{
	if (s->op == SC_OP_READ)
		usleep(2 * FAKE_DEADLINE_MS * 1000);
	return fake_good(s, c, lane, index);
}

static void *beat(void *arg)
{
	for (int i = 0; i < 30; i++) {
		__atomic_fetch_add(&fake.guest->heartbeat, 1, __ATOMIC_RELAXED);
		usleep(FAKE_DEADLINE_MS * 100);
	}
	return arg;
}

static void test_slow_is_not_dead(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	pthread_t t;
	char buf[16];

	(void)state;
	fake_agent = slow;
	pthread_create(&t, NULL, beat, NULL);
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), 16);
	pthread_join(t, NULL);
	call(__NR_close, fd, 0, 0, 0);
}

static int runs_ahead(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane,
		      uint32_t index)
{
	if (s->op == SC_OP_READ)
		lane->done += 1000;
	return fake_good(s, c, lane, index);
}

static int wrong_tag(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane,
		     uint32_t index)
{
	fake_good(s, c, lane, index);
	if (s->op == SC_OP_READ)
		c->tag ^= 0x55;
	return 1;
}

static void test_index_lies(void **state)
{
	fake_answer *const liars[] = {runs_ahead, wrong_tag};
	char buf[16];
	long t0 = now_ms();

	(void)state;
	for (int i = 0; i < 2; i++) {
		long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);

		fake_agent = liars[i];
		assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -EIO);
		fake_agent = fake_good;
		assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), 16);
		call(__NR_close, fd, 0, 0, 0);
	}
	assert_true(now_ms() - t0 < FAKE_DEADLINE_MS);
}

static void test_all_lanes_die(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	char buf[16];

	(void)state;
	for (int i = 0; i < 40; i++) {
		fake_agent = runs_ahead;
		assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -EIO);
		fake_agent = fake_good;
	}
	/* 16 lanes, all used up: an error, neither a crash nor a hang */
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), -EIO);
	sc_lane_drop(T, &sc_doms[0]);
	sc_dom_drop(&sc_doms[0]);
	assert_int_equal(call(__NR_read, fd, (long)buf, 16, 0), 16);
	call(__NR_close, fd, 0, 0, 0);
}

/* ---- threads, pool ---- */

static void *reader(void *arg)
{
	long fd = (long)arg;
	static const size_t sizes[] = {1, 4096, 65536, 65537, 300000, 700000};
	struct sc_thread *t = sc_thread_ensure();
	char *buf = malloc(700000);

	t->proc = &sc_main_proc;
	for (int i = 0; i < 12; i++) {
		size_t n = sizes[i % 6];

		memset(buf, 0, n);
		if (sc_dispatch(t, __NR_pread64, fd, (long)buf, (long)n, 0, 0, 0) != (long)n ||
		    buf[0] != 'r' || buf[n - 1] != 'r')
			abort();
		if (sc_dispatch(t, __NR_pwrite64, fd, (long)buf, (long)n, 0, 0, 0) != (long)n)
			abort();
	}
	sc_serve_thread_exit(t);
	free(buf);
	return NULL;
}

/* More threads than lanes (14 exclusive, 2 shared) and than blocks of the pool. */
static void test_threads(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDWR, 0, 0);
	pthread_t t[40];
	struct sc_chan *c;

	(void)state;
	for (int i = 0; i < 40; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)fd), 0);
	for (int i = 0; i < 40; i++)
		pthread_join(t[i], NULL);
	c = sc_doms[0].chan;
	for (uint32_t i = 0; i < SC_POOL_BLOCKS / 64; i++)
		assert_int_equal(c->pool_used[i], 0);
	assert_int_equal(c->users, 2); /* the domain and this thread */
	call(__NR_close, fd, 0, 0, 0);
}

static void test_pool(void **state)
{
	struct sc_hlane *l;
	uint32_t off[64] = {0}, got, n = 0, total;

	(void)state;
	assert_int_equal(sc_lane_get(T, &sc_doms[0], &l), 0);
	total = l->chan->pool_blocks;
	assert_true(total >= 4 && total < 64);
	while ((off[n] = sc_pool_get(l->chan, 1, &got, false)) != 0) {
		assert_int_equal(got, 1);
		for (uint32_t i = 0; i < n; i++)
			assert_int_not_equal(off[i], off[n]);
		n++;
	}
	assert_int_equal(n, total);
	sc_pool_put(l->chan, off[1], 1);
	sc_pool_put(l->chan, off[2], 1);
	assert_int_equal(sc_pool_get(l->chan, 16, &got, false), off[1]);
	assert_int_equal(got, 2);
	for (uint32_t i = 0; i < n; i++)
		sc_pool_put(l->chan, off[i], 1);
	sc_lane_put(T, l);
}

static void test_faults(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDWR, 0, 0);

	(void)state;
	assert_int_equal(call(__NR_read, fd, 1, 16, 0), -EFAULT);
	assert_int_equal(call(__NR_write, fd, 1, 16, 0), -EFAULT);
	assert_int_equal(call(__NR_readv, fd, 1, 1, 0), -EFAULT);
	assert_int_equal(call(__NR_readv, fd, 1, 1025, 0), -EINVAL);
	assert_int_equal(call(__NR_fstat, fd, 1, 0, 0), -EFAULT);
	assert_int_equal(call(__NR_open, 1, 0, 0, 0), SC_NATIVE);
	assert_int_equal(call(__NR_pread64, fd, 0, 16, -1), -EINVAL);
	call(__NR_close, fd, 0, 0, 0);
}

/* ---- fork, vfork, exec ---- */

static void test_vfork(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0), fd2;
	struct sc_proc *parent = T->proc, *child = sc_serve_vfork_enter(T);
	struct sc_thread t = {.self = &t, .proc = child, .tid = 1};

	(void)state;
	assert_non_null(child);
	assert_int_equal(sc_fd_file(T, (int)fd)->flags & SC_FILE_SHARED, SC_FILE_SHARED);
	assert_int_equal(sc_fd_file(T, (int)fd)->ticket_fd, -1);
	/* in a real child the kernel's descriptors are copies, too */
	fd2 = sc_dispatch(&t, __NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0, 0, 0);
	assert_true(fd2 > fd);
	assert_null(sc_fd_file(T, (int)fd2));
	assert_non_null(sc_fd_file(&t, (int)fd));
	close((int)fd2);
	sc_serve_vfork_leave(T, child);
	assert_ptr_equal(T->proc, parent);
	call(__NR_close, fd, 0, 0, 0);
}

static void test_exec(void **state)
{
	char user[] = "USER=u", stale[] = "VHOST_SC_FDS=zzz", pre[] = "LD_PRELOAD=mine.so";
	char *env[] = {user, stale, pre, NULL};
	struct sc_exec x = {.path = "/bin/true", .envp = env};
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	long hidden = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY | O_CLOEXEC, 0, 0);
	char **e;
	int seen = 0;

	(void)state;
	assert_int_equal(sc_serve_before_exec(T, &x), 0);
	for (e = (char **)x.envp; *e; e++) {
		char want[32];

		if (strncmp(*e, "LD_PRELOAD=", 11) == 0) {
			assert_string_equal(*e, "LD_PRELOAD=/x/libhostsc.so.0:mine.so");
			seen |= 1;
		} else if (strncmp(*e, "VHOST_SC_ROUTES=", 16) == 0) {
			assert_string_equal(*e + 16, ROUTES);
			seen |= 2;
		} else if (strncmp(*e, "VHOST_SC_FDS=", 13) == 0) {
			snprintf(want, sizeof(want), "%lx:fake:", fd);
			assert_memory_equal(*e + 13, want, strlen(want));
			assert_null(strchr(strchr(*e, '\n') + 1, '\n'));
			seen |= 4;
		} else if (strcmp(*e, "USER=u") == 0) {
			seen |= 8;
		}
	}
	assert_int_equal(seen, 15);
	sc_serve_exec_failed(T, &x);
	call(__NR_close, fd, 0, 0, 0);
	call(__NR_close, hidden, 0, 0, 0);
}

static void test_hang_up(void **state)
{
	long fd = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
	long fds[100];
	char buf[4];

	(void)state;
	fake_hang_up();
	usleep(20000);
	/* the channel works on without its broker; what needs the broker gets a new channel */
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), 4);
	for (int i = 0; i < 100; i++) {
		fds[i] = call(__NR_open, (long)"/sc-test/a/file", O_RDONLY, 0, 0);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(call(__NR_read, fd, (long)buf, 4, 0), 4);
	for (int i = 0; i < 100; i++)
		assert_int_equal(call(__NR_close, fds[i], 0, 0, 0), 0);
	call(__NR_close, fd, 0, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_normalise),
	    cmocka_unit_test(test_match),
	    cmocka_unit_test(test_route_add),
	    cmocka_unit_test_setup(test_open_close, fresh),
	    cmocka_unit_test_setup(test_own_descriptors, fresh),
	    cmocka_unit_test_setup(test_many_files, fresh),
	    cmocka_unit_test_setup(test_attach_refused, fresh),
	    cmocka_unit_test_setup(test_grant, fresh),
	    cmocka_unit_test_setup(test_too_much, fresh),
	    cmocka_unit_test_setup(test_cross, fresh),
	    cmocka_unit_test_setup(test_silence, fresh),
	    cmocka_unit_test_setup(test_slow_is_not_dead, fresh),
	    cmocka_unit_test_setup(test_index_lies, fresh),
	    cmocka_unit_test_setup(test_all_lanes_die, fresh),
	    cmocka_unit_test_setup(test_threads, fresh),
	    cmocka_unit_test_setup(test_pool, fresh),
	    cmocka_unit_test_setup(test_faults, fresh),
	    cmocka_unit_test_setup(test_vfork, fresh),
	    cmocka_unit_test_setup(test_exec, fresh),
	    cmocka_unit_test_setup(test_hang_up, fresh),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, NULL);
}
