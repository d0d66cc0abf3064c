/* SPDX-License-Identifier: BSD-3-Clause */
/* walk.c - see walk.h. */
#include "walk.h"

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define RESOLVE_FAST (RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
#define RACE_TRIES \
	16 /* a rename somewhere makes the kernel give up on a ".."; so often is no accident */
#define CROSS_MAX (SC_PATH_BUF - sizeof(struct sc_cross) - 1)

/* A slow walk under way. */
struct walker {
	const struct walk_from *from;
	struct walk_cross *cross;
	int fd;		/* the directory reached */
	bool own;	/* fd is to be closed */
	bool went_up;	/* took a "..": check at the end where that led */
	uint32_t links; /* followed so far */
	char *rest;	/* what is still to be walked, in text */
	char text[WALK_TEXT];
};

/* One component of what is to be walked. */
struct step_name {
	char *name; /* NUL-terminated */
	char *rest; /* what follows it, without leading slashes */
	bool last;
	bool slash; /* a slash stood behind it */
};

static int sys_openat2(int dir, const char *path, struct open_how *how)
{
	return (int)syscall(SYS_openat2, dir, path, how, sizeof(*how));
}

/* Notes how the path leaves: head, and what remains behind it. */
static int cross(struct walk_cross *to, uint32_t kind, const char *head, const char *tail)
{
	int n = snprintf(to->rest, sizeof(to->rest), "%s%s", head, tail);

	if (n < 0 || (size_t)n > CROSS_MAX)
		return -ENAMETOOLONG;
	to->kind = kind;
	to->len = (uint32_t)n;
	return -EXDEV;
}

static void move_to(struct walker *w, int fd)
{
	if (w->own)
		close(w->fd);
	w->fd = fd;
	w->own = true;
}

/* File systems whose files are the kernel's or the agent's own insides. */
static bool is_inside_fs(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return true;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/* Cuts the next component off. False: nothing is left. */
static bool next_name(struct walker *w, struct step_name *n)
{
	char *p = w->rest;

	while (*p == '/')
		p++;
	if (!*p)
		return false;
	n->name = p;
	while (*p && *p != '/')
		p++;
	n->slash = *p == '/';
	if (n->slash)
		*p++ = '\0';
	while (*p == '/')
		p++;
	n->rest = p;
	n->last = !*p;
	w->rest = p;
	return true;
}

/* The walk stands at the export's root, or at the domain's. */
static int at_top(const struct walker *w, bool *export_root)
{
	const struct agent *agent = w->from->agent;
	struct stat st;

	if (fstat(w->fd, &st) < 0)
		return -errno;
	*export_root = st.st_dev == w->from->root->dev && st.st_ino == w->from->root->ino;
	return *export_root || (st.st_dev == agent->root_dev && st.st_ino == agent->root_ino);
}

static int step_up(struct walker *w, const struct step_name *n)
{
	bool export_root = false;
	int top = at_top(w, &export_root), fd;

	if (top < 0)
		return top;
	if (top && !export_root)
		return -ENOENT; /* the base was moved out of its export */
	if (top)
		return cross(w->cross, SC_CROSS_UP, n->rest, "");
	fd = openat(w->fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	move_to(w, fd);
	w->went_up = true;
	return 0;
}

/*
 * The kernel's own rule (fs.protected_symlinks), which a walk by hand would get around: a link at the end of a path, in a
 * sticky directory that anyone may write to, is followed only for its owner or if it is the directory's owner's.
 */
static bool may_follow(const struct walker *w, const struct step_name *n, const struct stat *link)
{
	struct stat dir;

	if (!w->from->agent->protected_links || !n->last || link->st_uid == geteuid())
		return true;
	if (fstat(w->fd, &dir) < 0)
		return false;
	return (dir.st_mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH) ||
	       dir.st_uid == link->st_uid;
}

/* Replaces the link `fd`, just met, by its text in what is still to be walked. */
static int follow(struct walker *w, int fd, const struct step_name *n)
{
	char link[SC_PATH_BUF];
	char behind[WALK_TEXT];
	ssize_t len;

	if (++w->links > WALK_MAX_LINKS)
		return -ELOOP;
	len = readlinkat(fd, "", link, sizeof(link) - 1);
	if (len < 0)
		return -errno;
	if (len == 0)
		return -ENOENT;
	link[len] = '\0';
	snprintf(behind, sizeof(behind), "%s%s", n->slash ? "/" : "", n->rest);
	if (link[0] == '/')
		return cross(w->cross, SC_CROSS_ABS, link, behind);
	if ((size_t)len + strlen(behind) >= sizeof(w->text))
		return -ENAMETOOLONG;
	memcpy(w->text, link, (size_t)len);
	strcpy(w->text + len, behind);
	w->rest = w->text;
	return 0;
}

/* What a step did. */
enum walked {
	WALKED_ON,   /* go on with w->rest */
	WALKED_HERE, /* the component is the last one: the place is found */
};

/* Takes a step to an ordinary name. enum walked or -errno. */
static int step_down(struct walker *w, const struct step_name *n, bool follow_last)
{
	int fd = openat(w->fd, n->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int err;

	if (fd < 0)
		return errno == ENOENT && n->last ? WALKED_HERE : -errno;
	if (fstat(fd, &st) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	if (S_ISLNK(st.st_mode) && (!n->last || follow_last)) {
		err = may_follow(w, n, &st) ? follow(w, fd, n) : -EACCES;
		close(fd);
		return err ? err : WALKED_ON;
	}
	if (st.st_dev != w->from->root->dev && is_inside_fs(fd)) {
		close(fd);
		return -EACCES;
	}
	if (n->last) {
		close(fd);
		return WALKED_HERE;
	}
	move_to(w, fd);
	return WALKED_ON;
}

/* Reads where a descriptor's file is, as the kernel has it. */
static int path_of(int fd, char *to, size_t size)
{
	char proc[32];
	ssize_t n;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	n = readlink(proc, to, size - 1);
	if (n < 0)
		return -errno;
	to[n] = '\0';
	return (int)n;
}

int walk_getpath(const struct root *root, int fd, char *to, size_t size)
{
	char top[SC_PATH_BUF], all[SC_PATH_BUF];
	int ntop = path_of(root->fd, top, sizeof(top));
	int n = path_of(fd, all, sizeof(all));

	if (ntop < 0 || n < 0)
		return ntop < 0 ? ntop : n;
	if (ntop == 1)
		ntop = 0; /* the root is "/" */
	if (strncmp(all, top, (size_t)ntop) || (all[ntop] != '/' && all[ntop] != '\0'))
		return -ENOENT;
	n -= ntop;
	if (n == 0) {
		all[ntop] = '/';
		n = 1;
	}
	if ((size_t)n > size)
		return -ERANGE;
	memcpy(to, all + ntop, (size_t)n);
	return n;
}

/* After a "..": somebody may have moved the directory out of the export while it was climbed from. */
static int check_place(struct walker *w)
{
	char path[SC_PATH_BUF];
	int n;

	if (!w->went_up)
		return 0;
	n = walk_getpath(w->from->root, w->fd, path, sizeof(path));
	return n < 0 ? n : 0;
}

/* Hands the place over to the caller. */
static int arrive(struct walker *w, struct place *place, const char *name, bool slash)
{
	int err = check_place(w);

	if (err)
		return err;
	snprintf(place->text, sizeof(place->text), "%s%s", name, slash ? "/" : "");
	place->name = place->text;
	place->dir = w->fd;
	place->own = w->own;
	w->own = false;
	return 0;
}

/*
 * Walks to the directory of the last component. `look_up`: the last component will be looked up, so "." and ".." are
 * taken, and with `follow_last` links followed, until a name is left that is neither; otherwise it is left alone.
 */
static int slow_steps(struct walker *w, struct place *place, bool look_up, bool follow_last)
{
	struct step_name n;
	int err;

	while (next_name(w, &n)) {
		if (n.last && !look_up)
			return arrive(w, place, n.name, n.slash);
		if (!strcmp(n.name, ".")) {
			if (n.last)
				return arrive(w, place, ".", false);
			err = openat(w->fd, ".",
				     O_PATH | O_DIRECTORY |
					 O_CLOEXEC); /* asks for search permission */
			if (err < 0)
				return -errno;
			move_to(w, err);
			continue;
		}
		if (!strcmp(n.name, "..")) {
			err = step_up(w, &n);
			if (err)
				return err;
			continue;
		}
		err = step_down(w, &n, follow_last || n.slash);
		if (err < 0)
			return err;
		if (err == WALKED_HERE)
			return arrive(w, place, n.name, n.slash);
	}
	return arrive(w, place, "",
		      false); /* ended with "..": the directory itself, which needs no look-up */
}

static int slow_place(const struct walk_from *from, struct place *place, struct walk_cross *to,
		      bool look_up, bool follow_last)
{
	struct walker *w = malloc(sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->from = from;
	w->cross = to;
	w->fd = from->base;
	w->own = false;
	w->went_up = false;
	w->links = 0;
	w->rest = w->text;
	strcpy(w->text, from->path); /* shorter than SC_PATH_BUF */
	err = slow_steps(w, place, look_up, follow_last);
	if (w->own)
		close(w->fd);
	free(w);
	return err;
}

int walk_reopen(int fd, const struct open_how *how)
{
	char name[32];
	int own;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	own = open(name, (int)(how->flags & ~(uint64_t)O_NOFOLLOW), (mode_t)how->mode);
	return own < 0 ? -errno : own;
}

static int open_place(const struct place *place, struct open_how *how)
{
	int fd;

	/* walk_place() has filled it; the analyzer cannot see it from here. */
	/* NOLINTNEXTLINE(clang-analyzer-core.*) */
	if (!place->name[0])
		return walk_reopen(place->dir, how);
	how->resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
	fd = sys_openat2(place->dir, place->name, how);
	return fd < 0 ? -errno : fd;
}

static int slow_open(const struct walk_from *from, struct open_how *how, struct walk_cross *to)
{
	bool creates = how->flags & O_CREAT;
	bool follow_last = !(how->flags & O_NOFOLLOW) && !(creates && (how->flags & O_EXCL));
	struct place place;
	int fd = -ELOOP;

	for (int i = 0; i < RACE_TRIES; i++) {
		int err = slow_place(from, &place, to, true, follow_last);

		if (err)
			return err;
		fd = open_place(&place, how);
		place_close(&place);
		/* Otherwise the name became a link meanwhile: walk again. */
		if (fd != -EXDEV)
			return fd;
	}
	return -ELOOP;
}

int walk_open(const struct walk_from *from, struct open_how *how, struct walk_cross *to)
{
	to->kind = 0;
	if (from->path[0] == '/')
		return cross(to, SC_CROSS_ABS, from->path, "");
	how->resolve = RESOLVE_FAST | (from->cached ? RESOLVE_CACHED : 0);
	for (int i = 0; i < RACE_TRIES; i++) {
		int fd = sys_openat2(from->base, from->path, how);

		if (fd >= 0)
			return fd;
		if (from->cached && (errno == EXDEV || errno == EAGAIN))
			return -EAGAIN;
		if (errno == EXDEV)
			break;
		if (errno != EAGAIN)
			return -errno;
	}
	return slow_open(from, how, to);
}

int walk_in_root(int top, const char *path, struct open_how *how)
{
	for (int i = 0; i < RACE_TRIES; i++) {
		int fd = sys_openat2(top, path, how);

		if (fd >= 0)
			return fd;
		if (errno != EAGAIN)
			return -errno;
	}
	return -EAGAIN;
}

/* Where the last component begins: behind the last slash that has something behind it. */
static size_t last_component(const char *path)
{
	size_t i = strlen(path);

	while (i > 0 && path[i - 1] == '/')
		i--;
	while (i > 0 && path[i - 1] != '/')
		i--;
	return i;
}

int walk_place(const struct walk_from *from, struct place *place, struct walk_cross *to)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_FAST};
	size_t at = last_component(from->path);

	to->kind = 0;
	if (from->path[0] == '/')
		return cross(to, SC_CROSS_ABS, from->path, "");
	place->name = from->path + at;
	place->dir = from->base;
	place->own = false;
	if (!at)
		return 0;
	memcpy(place->text, from->path, at);
	place->text[at] = '\0';
	for (int i = 0; i < RACE_TRIES; i++) {
		place->dir = sys_openat2(from->base, place->text, &how);
		if (place->dir >= 0) {
			place->own = true;
			return 0;
		}
		if (errno == EXDEV)
			break;
		if (errno != EAGAIN)
			return -errno;
	}
	return slow_place(from, place, to, false, false);
}

int walk_place_followed(const struct walk_from *from, struct place *place, struct walk_cross *to)
{
	to->kind = 0;
	if (from->path[0] == '/')
		return cross(to, SC_CROSS_ABS, from->path, "");
	return slow_place(from, place, to, true, true);
}

void place_close(struct place *place)
{
	if (place->own)
		close(place->dir);
	place->own = false;
}
