/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exec_remote.c - executing programs and scripts that lie on a remote path.
 *
 * Theory of operation: the host's kernel can execute only what it can map. A remote program is copied into a memfd, which
 * is executed in its stead; readlink("/proc/self/exe") then answers with the program's remote path, and its name is set as
 * execve would have (exec.c hands both on). A remote script is not copied: its "#!" line is read here, and its interpreter
 * is executed with the script's path as argument, which the interpreter then opens through us. The same goes for a local
 * script whose interpreter is remote. Rights are checked as execve does: search and execute permission for the caller. One
 * difference: a remote program must be readable, too.
 *
 * Libraries that the dynamic loader maps before the program starts are served if the loader finds us first: see LD_AUDIT in
 * exec.h.
 */
#include <asm/unistd.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/stat.h>

#include "calls.h"
#include "exec.h"
#include "kstat.h"

#define HEAD	    256u /* bytes that the kernel looks at (BINPRM_BUF_SIZE) */
#define SCRIPTS_MAX 5u	 /* interpreters of interpreters */
#define COPY_CHUNK  (256u * 1024u)
#define ARGS_MAX    (1u << 20)
#define PHDRS_MAX   32u
#define DYNS_MAX    128u

/* What an exec of a remote file needs until it has happened. */
struct sc_exec_remote {
	uint64_t bytes;		/* of this mapping */
	int memfd;		/* or -1 */
	uint32_t used;		/* of text */
	char path[SC_PATH_BUF]; /* of the program, for /proc/self/exe; "" if it is local */
	char
	    libs[2 * SC_PATH_BUF]; /* directories that its $ORIGIN leads to; "" if there are none */
	char text[8 * SC_PATH_BUF];
	char *argv[];
};

/* A call of ours by way of a handler, with what is local run natively. */
static long run(struct sc_thread *t, sc_handler *h, long nr, long a0, long a1, long a2, long a3)
{
	struct sc_call c = {.nr = nr, .a = {a0, a1, a2, a3}};
	struct sc_serve_thread *s = t->serve;
	bool walked = s->force_walk;
	long res;

	/* symbolic links into remote trees are followed at once, and nothing is left to be done afterwards */
	s->force_walk = true;
	res = h(t, &c);
	s->force_walk = walked;
	if (res == SC_NATIVE_CHANGED)
		memcpy(c.a, t->native.a, sizeof(c.a));
	t->native.after = NULL;
	if (res == SC_NATIVE || res == SC_NATIVE_CHANGED)
		res = sc_sys4(nr, c.a[0], c.a[1], c.a[2], c.a[3]);
	return res;
}

static long close_fd(struct sc_thread *t, long fd)
{
	return run(t, call_close, __NR_close, fd, 0, 0, 0);
}

/* Reads up to len bytes at off, of a remote or a local file. */
static long read_at(struct sc_thread *t, long fd, void *buf, uint32_t len, uint64_t off)
{
	struct sc_call c = {.nr = __NR_pread64, .a = {fd, (long)buf, len, (long)off}};

	c.file = sc_fd_file(t, (int)fd);
	return c.file ? call_pread64(t, &c) : sc_sys4(__NR_pread64, fd, buf, len, off);
}

/* Keeps a text; NULL: no room. */
static char *keep(struct sc_exec_remote *r, const char *s, uint32_t len)
{
	char *at = r->text + r->used;

	if (r->used + len + 1 > sizeof(r->text))
		return NULL;
	memcpy(at, s, len);
	at[len] = '\0';
	r->used += len + 1;
	return at;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * Splits a "#!" line: the interpreter's name and one optional argument, as the kernel does. 0, or -ENOEXEC if there is no
 * name or it is cut off.
 */
static long split_line(struct sc_exec_remote *r, char *head, uint32_t n, char **interp, char **arg)
{
	uint32_t i = 2, end = 2, from;

	while (end < n && head[end] != '\n' && head[end])
		end++;
	if (end == HEAD)
		return -ENOEXEC;
	while (end > 2 && blank(head[end - 1]))
		end--;
	while (i < end && blank(head[i]))
		i++;
	from = i;
	while (i < end && !blank(head[i]))
		i++;
	if (i == from)
		return -ENOEXEC;
	*interp = keep(r, head + from, i - from);
	while (i < end && blank(head[i]))
		i++;
	*arg = i < end ? keep(r, head + i, end - i) : NULL;
	return *interp && (i == end || *arg) ? 0 : -E2BIG;
}

/* The name by which an interpreter finds the script. */
static long script_name(struct sc_thread *t, struct sc_exec_remote *r, const struct sc_exec *x,
			long fd, char **out)
{
	struct sc_file *f = sc_fd_file(t, (int)fd);
	char path[SC_PATH_BUF];
	long n = sc_strnlen_user(x->path, SC_PATH_BUF);

	if (n < 0 || n == SC_PATH_BUF || sc_copy_from_user(path, x->path, (size_t)n))
		return -EFAULT;
	path[n] = '\0';
	if (path[0] != '/' && x->dirfd != AT_FDCWD && f) {
		n = sc_file_path(t, f, path, sizeof(path));
		if (n < 0)
			return n;
	}
	*out = keep(r, path, (uint32_t)n);
	return *out ? 0 : -E2BIG;
}

/* Copies the program's argument vector, unless that was done in an earlier turn. Its length, or -EFAULT. */
static long argv_get(struct sc_exec_remote *r, struct sc_exec *x, uint32_t room)
{
	uint32_t n = 0;

	if (x->argv == r->argv) {
		while (r->argv[n])
			n++;
		return n;
	}
	for (; x->argv && n + 1 < room; n++) {
		if (sc_copy_from_user(&r->argv[n], x->argv + n, sizeof(char *)))
			return -EFAULT;
		if (!r->argv[n])
			break;
	}
	r->argv[n] = NULL;
	x->argv = r->argv;
	return n;
}

/* argv of the interpreter: its name, its argument, the script, and the program's arguments but the first. */
static long script_argv(struct sc_exec_remote *r, struct sc_exec *x, char *interp, char *arg,
			char *script, uint32_t room)
{
	uint32_t head = arg ? 3 : 2;
	long n = argv_get(r, x, room);

	if (n < 0)
		return n;
	if (head + (uint32_t)n + 1 > room)
		return -E2BIG;
	if (n == 0)
		r->argv[head] = NULL;
	else
		memmove(r->argv + head, r->argv + 1,
			(size_t)n * sizeof(char *)); /* the NULL, too */
	r->argv[0] = interp;
	if (arg)
		r->argv[1] = arg;
	r->argv[head - 1] = script;
	return 0;
}

/* ---- $ORIGIN ---- */

/* The part of the copy that is at a virtual address of the program; 0 bytes: nothing. */
static long read_virtual(int fd, const Elf64_Phdr *ph, uint32_t n, uint64_t at, void *buf,
			 uint64_t len)
{
	for (uint32_t i = 0; i < n; i++)
		if (ph[i].p_type == PT_LOAD && at >= ph[i].p_vaddr &&
		    at - ph[i].p_vaddr < ph[i].p_filesz)
			return sc_sys4(__NR_pread64, fd, buf, len,
				       ph[i].p_offset + (at - ph[i].p_vaddr));
	return 0;
}

/* The text of DT_RUNPATH or DT_RPATH of the program in memfd. Its length; 0: it has none. */
static long read_runpath(int fd, char *out, uint32_t size)
{
	Elf64_Ehdr e;
	Elf64_Phdr ph[PHDRS_MAX];
	Elf64_Dyn dyn[DYNS_MAX];
	uint64_t strings = 0, at = 0;
	long n = 0;
	bool found = false;

	if (sc_sys4(__NR_pread64, fd, &e, sizeof(e), 0) != sizeof(e) || e.e_phnum > PHDRS_MAX ||
	    e.e_phentsize != sizeof(ph[0]) ||
	    sc_sys4(__NR_pread64, fd, ph, e.e_phnum * sizeof(ph[0]), e.e_phoff) !=
		(long)(e.e_phnum * sizeof(ph[0])))
		return 0;
	for (uint32_t i = 0; i < e.e_phnum; i++)
		if (ph[i].p_type == PT_DYNAMIC)
			n = sc_sys4(__NR_pread64, fd, dyn, sizeof(dyn), ph[i].p_offset);
	for (long i = 0; i < n / (long)sizeof(dyn[0]) && dyn[i].d_tag != DT_NULL; i++) {
		if (dyn[i].d_tag == DT_STRTAB)
			strings = dyn[i].d_un.d_ptr;
		if (dyn[i].d_tag == DT_RUNPATH || (dyn[i].d_tag == DT_RPATH && !found)) {
			at = dyn[i].d_un.d_val;
			found = true;
		}
	}
	if (!found)
		return 0;
	n = read_virtual(fd, ph, e.e_phnum, strings + at, out, size - 1);
	out[n > 0 ? n : 0] = '\0';
	return (long)strlen(out);
}

/*
 * Appends the part of a DT_RUNPATH that begins at s, up to its colon, to r->libs if it begins with $ORIGIN: the program's
 * directory.
 */
static void add_origin(struct sc_exec_remote *r, const char *s, size_t len)
{
	static const char *const names[] = {"$ORIGIN", "${ORIGIN}"};
	size_t dir = strlen(r->path), used = strlen(r->libs), name = 0;

	for (size_t i = 0; i < 2; i++)
		if (len >= strlen(names[i]) && memcmp(s, names[i], strlen(names[i])) == 0)
			name = strlen(names[i]);
	while (dir && r->path[dir - 1] != '/')
		dir--;
	if (!name || dir < 2 || used + dir + len + 2 > sizeof(r->libs))
		return;
	if (used)
		r->libs[used++] = ':';
	memcpy(r->libs + used, r->path, dir - 1);
	memcpy(r->libs + used + dir - 1, s + name, len - name);
	r->libs[used + dir - 1 + len - name] = '\0';
}

/*
 * The loader works out $ORIGIN of the program before any code of ours runs, and finds a memfd. So what it should have found
 * is added to LD_LIBRARY_PATH (exec.c), which is searched at about the same place.
 */
static void find_origin(struct sc_exec_remote *r)
{
	char text[SC_PATH_BUF];
	size_t from = 0;
	long n = read_runpath(r->memfd, text, sizeof(text));

	for (size_t i = 0; n > 0 && i <= (size_t)n; i++) {
		if (i < (size_t)n && text[i] != ':')
			continue;
		add_origin(r, text + from, i - from);
		from = i + 1;
	}
}

/* Copies the file into a memfd that is then executed. */
static long copy_program(struct sc_thread *t, struct sc_exec_remote *r, struct sc_exec *x, long fd)
{
	const char *name = r->path;
	uint64_t off = 0;
	uint8_t *buf;
	long n = sc_file_path(t, sc_fd_file(t, (int)fd), r->path, sizeof(r->path));

	if (n < 0)
		return n;
	for (const char *s = r->path; *s; s++)
		if (*s == '/')
			name = s + 1;
	r->memfd = (int)sc_sys2(__NR_memfd_create, name, MFD_CLOEXEC);
	if (r->memfd < 0)
		return r->memfd == -EINVAL ? -ENAMETOOLONG : r->memfd;
	buf = sc_map(COPY_CHUNK);
	if (!buf)
		return -ENOMEM;
	while ((n = read_at(t, fd, buf, COPY_CHUNK, off)) > 0) {
		long done = sc_sys4(__NR_pwrite64, r->memfd, buf, n, off);

		if (done != n) {
			n = done < 0 ? done : -ENOSPC;
			break;
		}
		off += (uint64_t)n;
	}
	sc_unmap(buf, COPY_CHUNK);
	if (n < 0)
		return n;
	find_origin(r);
	x->dirfd = r->memfd;
	x->path = "";
	x->flags = AT_EMPTY_PATH;
	return 0;
}

/* May it be executed? 0 or -errno, as execve says. */
static long may_exec(struct sc_thread *t, struct sc_file *f)
{
	struct sc_opx x = {
	    .op = SC_OP_ACCESS, .arg0 = AT_EMPTY_PATH | AT_EACCESS, .arg1 = 1 /* X_OK */};

	if (f->type != S_IFREG)
		return -EACCES;
	return sc_file_call(t, f, &x);
}

/* A "#!" line: *x becomes its interpreter. 1, or -errno. */
static long to_interpreter(struct sc_thread *t, struct sc_exec_remote *r, struct sc_exec *x,
			   long fd, char *head, uint32_t n, uint32_t room)
{
	char *interp, *arg, *script;
	long err = split_line(r, head, n, &interp, &arg);

	if (err)
		return err;
	if (!sc_fd_file(t, (int)fd) && !sc_path_is_remote(t, AT_FDCWD, interp))
		return 0; /* all local */
	err = script_name(t, r, x, fd, &script);
	if (!err)
		err = script_argv(r, x, interp, arg, script, room);
	if (err)
		return err;
	x->dirfd = AT_FDCWD;
	x->path = interp;
	x->flags = 0;
	return 1;
}

/* A remote path has led to a local file: *x becomes its path. 1, or -errno. */
static long to_local(struct sc_exec_remote *r, struct sc_exec *x, long fd)
{
	char link[32] = "/proc/self/fd/", path[SC_PATH_BUF];
	uint32_t n = 14;
	long len;

	for (long div = 1000000; div; div /= 10)
		if (fd >= div || div == 1)
			link[n++] = (char)('0' + fd / div % 10);
	link[n] = '\0';
	len = sc_sys4(__NR_readlinkat, AT_FDCWD, link, path, sizeof(path) - 1);
	if (len < 0)
		return len;
	x->dirfd = AT_FDCWD;
	x->path = keep(r, path, (uint32_t)len);
	x->flags = 0;
	return x->path ? 1 : -E2BIG;
}

/*
 * One turn: looks at what is to be executed now. 1: *x was changed, look again. 0: *x can be executed. -errno.
 */
static long turn(struct sc_thread *t, struct sc_exec_remote *r, struct sc_exec *x, uint32_t room)
{
	char head[HEAD + 1] = {0};
	bool named_remote = sc_path_is_remote(t, x->dirfd, x->path);
	struct sc_file *f;
	long fd, n, err;

	fd = run(t, call_openat, __NR_openat, x->dirfd, (long)x->path,
		 O_RDONLY | O_CLOEXEC | O_NONBLOCK |
		     (x->flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0),
		 0);
	if (fd < 0)
		return named_remote ? fd : 0; /* a local one: let execve say what is wrong */
	f = sc_fd_file(t, (int)fd);
	err = f ? may_exec(t, f) : 0;
	n = err ? err : read_at(t, fd, head, HEAD, 0);
	if (n >= 2 && head[0] == '#' && head[1] == '!')
		err = to_interpreter(t, r, x, fd, head, (uint32_t)n, room);
	else if (f && n >= 0)
		err = n < 4 || memcmp(head, "\177ELF", 4) ? -ENOEXEC : copy_program(t, r, x, fd);
	else if (f)
		err = n;
	if (!f && named_remote && err == 0)
		err = to_local(r, x, fd);
	close_fd(t, fd);
	return err;
}

/* fexecve(): an empty path and AT_EMPTY_PATH. */
static bool is_by_descriptor(const struct sc_exec *x)
{
	char first;

	return (x->flags & AT_EMPTY_PATH) && !sc_copy_from_user(&first, x->path, 1) && !first;
}

/* That of a remote descriptor: by the name that the kernel, too, gives to a script there. 1 or -errno. */
static long name_descriptor(struct sc_exec_remote *r, struct sc_exec *x)
{
	char name[32] = "/dev/fd/";
	uint32_t n = 8;

	for (int div = 1000000; div; div /= 10)
		if (x->dirfd >= div || div == 1)
			name[n++] = (char)('0' + x->dirfd / div % 10);
	x->dirfd = AT_FDCWD;
	x->path = keep(r, name, n);
	x->flags = 0;
	return x->path ? 1 : -E2BIG;
}

static uint32_t count_args(char *const *argv)
{
	uint32_t n = 0;
	char *v;

	while (argv && n < ARGS_MAX && !sc_copy_from_user(&v, argv + n, sizeof(v)) && v)
		n++;
	return n;
}

long sc_exec_remote(struct sc_thread *t, struct sc_exec *x)
{
	struct sc_serve_thread *s = t->serve;
	uint32_t room = count_args(x->argv) + 2 * SCRIPTS_MAX + 2;
	uint64_t bytes = sizeof(struct sc_exec_remote) + room * sizeof(char *);
	bool by_fd = is_by_descriptor(x);
	struct sc_exec_remote *r;
	long err = 1;

	if (by_fd && !sc_fd_file(t, x->dirfd))
		return 0;
	r = sc_map(bytes);
	if (!r)
		return -ENOMEM;
	r->bytes = bytes;
	r->memfd = -1;
	s->exec_remote = r;
	if (by_fd)
		err = name_descriptor(r, x);
	for (uint32_t i = 0; i < SCRIPTS_MAX && err == 1; i++)
		err = turn(t, r, x, room);
	if (err == 1)
		err = -ELOOP;
	if (err < 0)
		sc_exec_remote_forget(s, true);
	return err;
}

void sc_exec_remote_forget(struct sc_serve_thread *s, bool close)
{
	struct sc_exec_remote *r = s->exec_remote;

	s->exec_remote = NULL;
	if (!r)
		return;
	if (close && r->memfd >= 0)
		sc_sys1(__NR_close, r->memfd);
	sc_unmap(r, r->bytes);
}

const char *sc_exec_remote_libs(const struct sc_serve_thread *s)
{
	const struct sc_exec_remote *r = s->exec_remote;

	return r && r->libs[0] ? r->libs : NULL;
}

const char *sc_exec_remote_path(const struct sc_serve_thread *s)
{
	const struct sc_exec_remote *r = s->exec_remote;

	return r && r->path[0] ? r->path : NULL;
}
