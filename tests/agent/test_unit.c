/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_unit.c - parts of the agent without a broker: the handle table, sessions and tickets, the path walk, and what a
 * channel's layout lets through. (The lock manager is tested through the real agent: test_locks.py.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "handles.h"
#include "session.h"
#include "walk.h"

struct fixture {
	struct sessions *sessions;
	struct handles *handles;
	struct session *a;
	struct session *b;
	char dir[64];
	struct agent agent;
	struct root *root;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct cred *cred = creds_get(1, 2, NULL, 0);
	struct stat st;

	f->sessions = sessions_new(100);
	f->handles = handles_new(64, 3);
	f->a = session_new(f->sessions, 1, 11, 111, cred);
	f->b = session_new(f->sessions, 2, 22, 222, cred);
	strcpy(f->dir, "/tmp/sc-unit.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->root = root_new(open(f->dir, O_PATH | O_DIRECTORY));
	assert_int_equal(fstat(f->root->fd, &st), 0);
	f->agent.root_dev = st.st_dev;
	f->agent.root_ino = st.st_ino;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char cmd[128];

	session_put(f->a);
	session_put(f->b);
	assert_int_equal(sessions_count(f->sessions), 0);
	assert_int_equal(handles_count(f->handles), 0);
	handles_free(f->handles);
	free(f->sessions);
	root_put(f->root);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", f->dir);
	assert_int_equal(system(cmd), 0);
	free(f);
	return 0;
}

/* A published handle of session s on some descriptor. */
static struct handle *open_one(struct fixture *f, struct session *s, uint64_t secret)
{
	int err = 0;
	struct handle *h = handle_new(f->handles, open("/dev/null", O_RDONLY), s, NULL, &err);

	assert_non_null(h);
	h->secret = secret;
	handle_publish(f->handles, h);
	return h;
}

/* Drops the caller's user, and reaps if it was the last. */
static void drop(struct fixture *f, struct handle *h)
{
	if (handle_put(h))
		handle_reap(f->handles, h);
}

static void close_one(struct fixture *f, struct handle *h)
{
	assert_true(handle_kill(h));
	drop(f, h);
}

/* ---- handles ---- */

static void handle_life(void **state)
{
	struct fixture *f = *state;
	struct handle *h = open_one(f, f->a, 5), *same;
	uint64_t name = handle_id(f->handles, h);
	int err;

	same = handle_get(f->handles, name, 1, &err);
	assert_ptr_equal(same, h);
	assert_true(handle_kill(h));
	assert_false(handle_kill(h));
	assert_null(
	    handle_get(f->handles, name, 1, &err)); /* dead, though somebody uses it still */
	assert_int_equal(err, -EBADF);
	drop(f, same);
	assert_int_equal(handles_count(f->handles), 1);
	drop(f, h);
	assert_int_equal(handles_count(f->handles), 0);
	h = open_one(f, f->a, 5); /* the same index, another name */
	assert_int_equal((uint32_t)handle_id(f->handles, h), (uint32_t)name);
	assert_int_not_equal(handle_id(f->handles, h), name);
	assert_null(handle_get(f->handles, name, 1, &err));
	close_one(f, h);
}

static void handle_of_another(void **state)
{
	struct fixture *f = *state;
	struct handle *h = open_one(f, f->a, 77), *got;
	uint64_t name = handle_id(f->handles, h);
	bool fresh;
	int err;

	assert_null(handle_get(f->handles, name, 2, &err));
	assert_int_equal(err, -EBADF);
	assert_null(handle_grant(f->handles, name, 78, 2, &fresh, &err));
	assert_int_equal(err, -EACCES);
	got = handle_grant(f->handles, name, 77, 2, &fresh, &err);
	assert_ptr_equal(got, h);
	assert_true(fresh);
	assert_null(handle_get(f->handles, name, 2, &err)); /* that comes with the next */
	assert_true(handle_add_grant(h, 2, 5));
	drop(f, got);
	drop(f, handle_grant(f->handles, name, 77, 2, &fresh, &err));
	assert_false(fresh);
	got = handle_get(f->handles, name, 2, &err);
	assert_ptr_equal(got, h);
	drop(f, got);
	for (uint32_t id = 10; id < 200; id++)
		assert_true(handle_add_grant(h, id, 0));
	assert_null(handle_get(f->handles, name, 9, &err));
	assert_int_equal(handle_drop_grant(h, 2), 5);
	assert_null(handle_get(f->handles, name, 2, &err));
	drop(f, handle_get(f->handles, name, 100, &err));
	close_one(f, h);
}

static void handle_without_secret(void **state)
{
	struct fixture *f = *state;
	struct handle *h = open_one(f, f->a, 0);
	bool fresh;
	int err;

	assert_null(handle_grant(f->handles, handle_id(f->handles, h), 0, 2, &fresh, &err));
	close_one(f, h);
}

static void handle_strange_names(void **state)
{
	struct fixture *f = *state;
	struct handle *h = open_one(f, f->a, 1);
	uint64_t name = handle_id(f->handles, h);
	const uint64_t bad[] = {0,
				1,
				63,
				64,
				UINT32_MAX,
				UINT64_MAX,
				name + 1,
				name + (1ull << 32),
				name ^ (1ull << 63)};
	int err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_null(handle_get(f->handles, bad[i], 1, &err));
	assert_null(
	    handle_get(f->handles, name + (1ull << 56), 1, &err)); /* of another incarnation */
	assert_int_equal(err, -EIO);
	close_one(f, h);
}

static void handle_table_full(void **state)
{
	struct fixture *f = *state;
	struct handle *all[64];
	int err = 0;

	for (int i = 0; i < 64; i++)
		all[i] = open_one(f, f->a, 1);
	assert_null(handle_new(f->handles, open("/dev/null", O_RDONLY), f->a, NULL, &err));
	assert_int_equal(err, -ENFILE);
	for (int i = 0; i < 64; i++)
		close_one(f, all[i]);
}

static void handle_position(void **state)
{
	struct fixture *f = *state;
	struct handle *h = open_one(f, f->a, 1);
	struct call c[3];

	memset(c, 0, sizeof(c));
	assert_true(handle_pos_take(h, &c[0]));
	assert_false(handle_pos_take(h, &c[1]));
	assert_false(handle_pos_take(h, &c[2]));
	assert_ptr_equal(handle_pos_drop(h), &c[1]);
	assert_ptr_equal(handle_pos_drop(h), &c[2]);
	assert_null(handle_pos_drop(h));
	assert_true(handle_pos_take(h, &c[0]));
	assert_null(handle_pos_drop(h));
	close_one(f, h);
}

/* ---- sessions and tickets ---- */

static void session_outlives_channel(void **state)
{
	struct fixture *f = *state;
	struct session *s = session_new(f->sessions, 7, 1, 1, f->a->cred);
	struct handle *h = open_one(f, s, 1);

	assert_null(session_new(f->sessions, 7, 1, 1, f->a->cred));
	session_put(s); /* its channel */
	assert_int_equal(sessions_count(f->sessions), 3);
	s = session_find(f->sessions, 7);
	assert_non_null(s);
	close_one(f, h);
	session_put(s);
	assert_null(session_find(f->sessions, 7));
	assert_int_equal(sessions_count(f->sessions), 2);
}

static void session_ended(void **state)
{
	struct fixture *f = *state;
	int err = 0;

	f->a->ended = true;
	assert_null(handle_new(f->handles, open("/dev/null", O_RDONLY), f->a, NULL, &err));
	assert_int_equal(err, -EMFILE);
}

static void tickets(void **state)
{
	struct fixture *f = *state;
	struct session *s = f->a;
	uint64_t t = 1ull << 32 | 5, name = 3ull << 56 | 1ull << 32;

	assert_int_equal(ticket_begin(s, 0), 0);
	assert_int_equal(ticket_begin(s, 2ull << 32 | 5), -EBADF);
	assert_int_equal(ticket_begin(s, 1ull << 32), -EBADF);
	assert_int_equal(ticket_begin(s, 1ull << 32 | (SC_MAX_TICKETS + 1)), -EBADF);
	assert_int_equal(ticket_begin(s, 1ull << 32 | SC_MAX_TICKETS), 0);
	assert_int_equal(ticket_begin(s, t), 0);
	assert_int_equal(ticket_begin(s, t), -EBUSY);
	assert_int_equal(ticket_end(s, t, name), 0);
	assert_int_equal(ticket_begin(s, t), -EBUSY);
	ticket_free(s, t, name + 1); /* holds another */
	assert_int_equal(ticket_begin(s, t), -EBUSY);
	ticket_free(s, t, name);
	assert_int_equal(ticket_begin(s, t), 0);
	assert_int_equal(ticket_kill(s, t), 0); /* while it is being opened */
	assert_int_equal(ticket_end(s, t, name), -EBADF);
	assert_int_equal(ticket_begin(s, t), -EBADF);
	ticket_free(s, t, name);
	assert_int_equal(ticket_begin(s, t), -EBADF);	     /* dead for good */
	assert_int_equal(ticket_kill(s, 1ull << 32 | 6), 0); /* before its OPEN */
	assert_int_equal(ticket_begin(s, 1ull << 32 | 6), -EBADF);
}

/* ---- the path walk ---- */

static void make(struct fixture *f, const char *what, const char *path, const char *target)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", f->dir, path);
	if (what[0] == 'd')
		assert_int_equal(mkdir(full, 0755), 0);
	else if (what[0] == 'l')
		assert_int_equal(symlink(target, full), 0);
	else
		assert_int_equal(close(open(full, O_CREAT | O_WRONLY, 0644)), 0);
}

/* Opens `path` from `base` as O_PATH. A descriptor or -errno. */
static int walk(struct fixture *f, int base, const char *path, struct walk_cross *x)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC};
	struct walk_from from = {.agent = &f->agent, .root = f->root, .base = base, .path = path};

	return walk_open(&from, &how, x);
}

/* The path leads to the same file as `same` (below the root). */
static void leads_to(struct fixture *f, int base, const char *path, const char *same)
{
	struct walk_cross x;
	struct stat a, b;
	int fd = walk(f, base, path, &x);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &a), 0);
	assert_int_equal(fstatat(f->root->fd, same, &b, 0), 0);
	assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	close(fd);
}

static void leaves(struct fixture *f, int base, const char *path, uint32_t kind, const char *rest)
{
	struct walk_cross x;

	assert_int_equal(walk(f, base, path, &x), -EXDEV);
	assert_int_equal(x.kind, kind);
	assert_int_equal(x.len, strlen(rest));
	assert_memory_equal(x.rest, rest, x.len);
}

static void fails(struct fixture *f, int base, const char *path, int err)
{
	struct walk_cross x;

	assert_int_equal(walk(f, base, path, &x), -err);
	assert_int_equal(x.kind, 0);
}

static void walk_paths(void **state)
{
	struct fixture *f = *state;
	int base;

	make(f, "dir", "a", NULL);
	make(f, "dir", "a/b", NULL);
	make(f, "file", "a/f", NULL);
	make(f, "link", "a/b/up", "../f");
	make(f, "link", "a/b/upup", "../../../x/y");
	make(f, "link", "abs", "/usr/lib");
	make(f, "link", "loop", "loop");
	make(f, "link", "dangling", "nothing");
	base = openat(f->root->fd, "a/b", O_PATH);
	leads_to(f, base, "../f", "a/f");
	leads_to(f, base, "..", "a");
	leads_to(f, base, "../..", ".");
	leads_to(f, base, "../../a//b/./up", "a/f");
	leads_to(f, base, "up", "a/f");
	leads_to(f, base, "../b/../b/.", "a/b");
	leaves(f, base, "../../..", SC_CROSS_UP, "");
	leaves(f, base, "../../../p/q/", SC_CROSS_UP, "p/q/");
	leaves(f, base, "upup", SC_CROSS_UP, "x/y");
	leaves(f, base, "upup/z", SC_CROSS_UP, "x/y/z");
	leaves(f, f->root->fd, "abs", SC_CROSS_ABS, "/usr/lib");
	leaves(f, f->root->fd, "abs/../x/", SC_CROSS_ABS, "/usr/lib/../x/");
	leaves(f, f->root->fd, "/etc", SC_CROSS_ABS, "/etc");
	leaves(f, f->root->fd, "..", SC_CROSS_UP, "");
	fails(f, f->root->fd, "loop", ELOOP);
	fails(f, base, "../../loop", ELOOP);
	fails(f, base, "../../dangling", ENOENT);
	fails(f, base, "../f/x", ENOTDIR);
	fails(f, base, "../f/..", ENOTDIR);
	fails(f, base, "../f/", ENOTDIR);
	fails(f, base, "../no/../../..", ENOENT);
	close(base);
}

static void walk_moved_base(void **state)
{
	struct fixture *f = *state;
	struct walk_cross x;
	struct root *export;
	char from[128], to[128];
	int base, fd;

	/* The export is below the domain's root, and the base is moved out of it: ".." does not lead on. */
	make(f, "dir", "export", NULL);
	make(f, "dir", "export/d", NULL);
	make(f, "dir", "export/d/e", NULL);
	make(f, "file", "secret", NULL);
	export = root_new(openat(f->root->fd, "export", O_PATH));
	base = openat(export->fd, "d/e", O_PATH);
	snprintf(from, sizeof(from), "%s/export/d", f->dir);
	snprintf(to, sizeof(to), "%s/d", f->dir);
	assert_int_equal(rename(from, to), 0);
	{
		struct open_how how = {.flags = O_PATH};
		struct walk_from w = {
		    .agent = &f->agent, .root = export, .base = base, .path = "../../secret"};

		fd = walk_open(&w, &how, &x);
		assert_true(fd < 0);
		assert_int_equal(x.kind, 0);
		w.path = "../x";
		fd = walk_open(&w, &how, &x);
		assert_true(fd < 0);
	}
	close(base);
	root_put(export);
}

static void walk_places(void **state)
{
	struct fixture *f = *state;
	struct walk_from from = {.agent = &f->agent, .root = f->root, .base = f->root->fd};
	struct walk_cross x;
	struct place at;
	const struct {
		const char *path, *name;
		int err;
		bool own;
	} cases[] = {
	    {"x", "x", 0, false},	   {"x/", "x/", 0, false},
	    {"a/x", "x", 0, true},	   {"a/b/../x//", "x//", 0, true},
	    {".", ".", 0, false},	   {"a/..", "..", 0, true},
	    {"no/x", NULL, ENOENT, false}, {"f/x", NULL, ENOTDIR, false},
	    {"../x", NULL, EXDEV, false},  {"/x", NULL, EXDEV, false},
	    {"out/x", NULL, EXDEV, false}, {"out", "out", 0, false},
	};

	make(f, "dir", "a", NULL);
	make(f, "dir", "a/b", NULL);
	make(f, "file", "f", NULL);
	make(f, "link", "out", "/tmp");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		from.path = cases[i].path;
		assert_int_equal(walk_place(&from, &at, &x), -cases[i].err);
		if (cases[i].err)
			continue;
		assert_string_equal(at.name, cases[i].name);
		assert_int_equal(at.own, cases[i].own);
		place_close(&at);
	}
}

/* ---- what a slot may name ---- */

static void layout_ranges(void **state)
{
	struct sc_layout l;

	assert_int_equal(sc_layout_init(&l, SC_DEFAULT_CHANNEL, 128, 256), 0);
	assert_true(sc_layout_in_arena(&l, l.arena_off, 1));
	assert_true(sc_layout_in_arena(&l, l.size - 1, 1));
	assert_true(sc_layout_in_arena(&l, l.arena_off, l.size - l.arena_off));
	assert_false(sc_layout_in_arena(&l, l.arena_off, l.size - l.arena_off + 1));
	assert_false(sc_layout_in_arena(&l, l.arena_off - 1, 1));
	assert_false(sc_layout_in_arena(&l, l.size, 1));
	assert_false(sc_layout_in_arena(&l, 0, 1));
	assert_false(sc_layout_in_arena(&l, UINT32_MAX, UINT32_MAX));
	assert_true(sc_layout_in_arena(&l, 0, 0));
	l.cqes_off += 64;
	assert_false(sc_layout_valid(&l));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(handle_life, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(handle_of_another, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(handle_without_secret, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(handle_strange_names, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(handle_table_full, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(handle_position, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(session_outlives_channel, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(session_ended, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(tickets, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(walk_paths, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(walk_moved_base, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(walk_places, set_up, tear_down),
	    cmocka_unit_test(layout_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
