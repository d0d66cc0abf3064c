/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace.c - what scrun --trace and --stats print.
 *
 * Theory of operation: both write to a descriptor that is kept out of the program's way. --trace without a file and
 * --stats write to what standard error was when the program began; --trace=FILE is opened anew by each program image, for
 * appending, and a line is one write, so lines of several processes do not mix. How arguments are printed says a word per
 * call in `forms` (arrays, because pointers would have to be relocated at each start of a program); names of calls come from call-list.h, so that a call that is added there is traced at once.
 *
 * A call is printed if a request to a domain was made for it, or if it was answered without the kernel. While tracing is
 * off, it costs a test of one flag per dispatched call.
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "../vhost-sc/opnames.h"
#include "chan-priv.h"
#include "exec.h"
#include "process.h"
#include "text.h"
#include "trace.h"

#define LINE_MAX   4096u
#define STRING_MAX 200 /* bytes of a path that are shown */
#define DATA_MAX   32u /* bytes of data that are shown */
#define CALLS	   512

bool sc_tracing;
static char trace_target[SC_PATH_BUF]; /* VHOST_SC_TRACE: a path, or "-" for standard error */
bool sc_stats_wanted;
static int trace_fd = -1;
static int stats_fd = -1;

/* ---- where to ---- */

void sc_report_setup(const char *trace, const char *stats)
{
	size_t n = trace ? strlen(trace) : 0;

	sc_stats_wanted = stats && *stats == '1';
	if (n == 0 || n >= sizeof(trace_target))
		return;
	memcpy(trace_target, trace, n + 1);
	sc_tracing = true;
}

const char *sc_trace_target(void)
{
	return sc_tracing ? trace_target : NULL;
}

static int move_away(long fd)
{
	return fd < 0 ? -1 : sc_libfd_move((int)fd);
}

void sc_report_open(void)
{
	if (sc_stats_wanted)
		stats_fd = move_away(sc_sys3(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 0));
	if (!sc_tracing)
		return;
	if (trace_target[0] == '-' && !trace_target[1])
		trace_fd = move_away(sc_sys3(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 0));
	else
		trace_fd =
		    move_away(sc_sys3(__NR_open, trace_target, O_WRONLY | O_APPEND | O_CLOEXEC, 0));
}

SC_HOT_TEXT void sc_report_fds(int fds[2])
{
	fds[0] = stats_fd;
	fds[1] = trace_fd;
}

void sc_report_moved(int from, int to)
{
	if (stats_fd == from)
		stats_fd = to;
	if (trace_fd == from)
		trace_fd = to;
}

/* ---- arguments ---- */

/*
 * One letter per argument: d int, D directory descriptor, u size, l offset, x bits, m mode, o open flags, p path, a address,
 * b data that goes in (its length is the next argument), B data that comes out (as much as the result says), w whence.
 */
#define F(name, form) [__NR_##name] = form
static const char forms[CALLS][8] = {
    F(read, "dBu"),
    F(write, "dbu"),
    F(pread64, "dBul"),
    F(pwrite64, "dbul"),
    F(readv, "dau"),
    F(writev, "dau"),
    F(preadv, "daul"),
    F(pwritev, "daul"),
    F(preadv2, "daulxx"),
    F(pwritev2, "daulxx"),
    F(lseek, "dlw"),
    F(open, "pom"),
    F(creat, "pm"),
    F(openat, "Dpom"),
    F(openat2, "Dpau"),
    F(close, "d"),
    F(close_range, "uux"),
    F(dup, "d"),
    F(dup2, "dd"),
    F(dup3, "ddx"),
    F(stat, "pa"),
    F(lstat, "pa"),
    F(fstat, "da"),
    F(newfstatat, "Dpax"),
    F(statx, "Dpxxa"),
    F(access, "pm"),
    F(faccessat, "Dpm"),
    F(faccessat2, "Dpmx"),
    F(readlink, "pBu"),
    F(readlinkat, "DpBu"),
    F(chdir, "p"),
    F(fchdir, "d"),
    F(getcwd, "Bu"),
    F(umask, "m"),
    F(setuid, "d"),
    F(setgid, "d"),
    F(setreuid, "dd"),
    F(setregid, "dd"),
    F(setresuid, "ddd"),
    F(setresgid, "ddd"),
    F(setfsuid, "d"),
    F(setfsgid, "d"),
    F(setgroups, "ua"),
    F(chroot, "p"),
    F(getdents64, "dau"),
    F(getdents, "dau"),
    F(mkdir, "pm"),
    F(mkdirat, "Dpm"),
    F(rmdir, "p"),
    F(unlink, "p"),
    F(unlinkat, "Dpx"),
    F(rename, "pp"),
    F(renameat, "DpDp"),
    F(renameat2, "DpDpx"),
    F(link, "pp"),
    F(linkat, "DpDpx"),
    F(symlink, "pp"),
    F(symlinkat, "pDp"),
    F(mknod, "pmx"),
    F(mknodat, "Dpmx"),
    F(truncate, "pl"),
    F(ftruncate, "dl"),
    F(chmod, "pm"),
    F(fchmod, "dm"),
    F(fchmodat, "Dpm"),
    F(fchmodat2, "Dpmx"),
    F(chown, "pdd"),
    F(lchown, "pdd"),
    F(fchown, "ddd"),
    F(fchownat, "Dpddx"),
    F(utime, "pa"),
    F(utimes, "pa"),
    F(futimesat, "Dpa"),
    F(utimensat, "Dpax"),
    F(statfs, "pa"),
    F(fstatfs, "da"),
    F(getxattr, "ppau"),
    F(lgetxattr, "ppau"),
    F(fgetxattr, "dpau"),
    F(setxattr, "ppbux"),
    F(lsetxattr, "ppbux"),
    F(fsetxattr, "dpbux"),
    F(listxattr, "pau"),
    F(llistxattr, "pau"),
    F(flistxattr, "dau"),
    F(removexattr, "pp"),
    F(lremovexattr, "pp"),
    F(fremovexattr, "dp"),
    F(fallocate, "dxll"),
    F(fadvise64, "dlld"),
    F(readahead, "dlu"),
    F(fsync, "d"),
    F(fdatasync, "d"),
    F(syncfs, "d"),
    F(sync_file_range, "dllx"),
    F(sync, ""),
    F(fcntl, "dda"),
    F(flock, "dx"),
    F(ioctl, "dxa"),
    F(setrlimit, "da"),
    F(prlimit64, "ddaa"),
    F(copy_file_range, "dadaux"),
    F(sendfile, "ddau"),
    F(splice, "dadaux"),
    F(mmap, "auxxdl"),
    F(poll, "aud"),
    F(ppoll, "auaau"),
    F(select, "daaaa"),
    F(pselect6, "daaaaa"),
    F(epoll_ctl, "ddda"),
    F(inotify_add_watch, "dpx"),
    F(bind, "dau"),
    F(connect, "dau"),
    F(sendmsg, "dax"),
    F(sendmmsg, "daux"),
    F(recvmsg, "dax"),
    F(recvmmsg, "dauxa"),
    F(execve, "paa"),
    F(execveat, "Dpaax"),
};
#undef F

#define SC_CALL(number, kind, handler) [number] = #number,
#define SC_CALL_NET		       SC_CALL
static const char names[CALLS][32] = {
#include "call-list.h"
    [__NR_execve] = "__NR_execve", [__NR_execveat] = "__NR_execveat"};
#undef SC_CALL
#undef SC_CALL_NET

struct bit {
	uint32_t value;
	const char *name;
};

static void put_flags(struct sc_text *x, uint32_t v)
{
	static const struct bit bits[] = {
	    {O_CREAT, "O_CREAT"},	  {O_EXCL, "O_EXCL"},
	    {O_TRUNC, "O_TRUNC"},	  {O_APPEND, "O_APPEND"},
	    {O_NONBLOCK, "O_NONBLOCK"},	  {O_TMPFILE & ~O_DIRECTORY, "O_TMPFILE"},
	    {O_DIRECTORY, "O_DIRECTORY"}, {O_NOFOLLOW, "O_NOFOLLOW"},
	    {O_CLOEXEC, "O_CLOEXEC"},	  {O_PATH, "O_PATH"},
	    {O_SYNC, "O_SYNC"},		  {O_DSYNC, "O_DSYNC"},
	    {O_DIRECT, "O_DIRECT"},	  {O_NOATIME, "O_NOATIME"},
	    {O_NOCTTY, "O_NOCTTY"}};
	static const char *const modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "3"};

	sc_put_str(x, modes[v & O_ACCMODE]);
	v &= ~(uint32_t)O_ACCMODE;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		if ((v & bits[i].value) != bits[i].value)
			continue;
		sc_put(x, "|", 1);
		sc_put_str(x, bits[i].name);
		v &= ~bits[i].value;
	}
	if (v) {
		sc_put_str(x, "|0");
		sc_put_number(x, v, 8, 1);
	}
}

static void put_escaped(struct sc_text *x, const uint8_t *s, size_t n, const char *after)
{
	static const char plain[] = "\"\"\\\\\nn\tt\rr";

	sc_put(x, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		const char *p = plain;

		while (*p && (uint8_t)*p != s[i])
			p += 2;
		if (*p) {
			sc_put(x, "\\", 1);
			sc_put(x, p + 1, 1);
		} else if (s[i] >= ' ' && s[i] < 127) {
			sc_put(x, (const char *)&s[i], 1);
		} else {
			sc_put(x, "\\x", 2);
			sc_put_number(x, s[i], 16, 2);
		}
	}
	sc_put(x, "\"", 1);
	sc_put_str(x, after);
}

static void put_address(struct sc_text *x, long a)
{
	sc_put_str(x, a ? "0x" : "NULL");
	if (a)
		sc_put_number(x, (uint64_t)a, 16, 1);
}

static void put_path(struct sc_text *x, long a)
{
	uint8_t buf[STRING_MAX];
	long n = a ? sc_strnlen_user((const char *)a, STRING_MAX) : -EFAULT;

	if (n < 0 || sc_copy_from_user(buf, (const void *)a, (size_t)n))
		put_address(x, a);
	else
		put_escaped(x, buf, (size_t)n, n == STRING_MAX ? "..." : "");
}

static void put_data(struct sc_text *x, long a, uint64_t len)
{
	uint8_t buf[DATA_MAX];
	uint64_t n = len < DATA_MAX ? len : DATA_MAX;

	if (sc_copy_from_user(buf, (const void *)a, n))
		put_address(x, a);
	else
		put_escaped(x, buf, n, n < len ? "..." : "");
}

static void put_argument(struct sc_text *x, char form, const long *a, long res)
{
	static const char *const whence[] = {"SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA",
					     "SEEK_HOLE"};

	switch (form) {
	case 'D':
		if ((int)*a == AT_FDCWD)
			sc_put_str(x, "AT_FDCWD");
		else
			sc_put_signed(x, (int)*a);
		break;
	case 'd':
		sc_put_signed(x, (int)*a);
		break;
	case 'u':
		sc_put_dec(x, (uint64_t)*a);
		break;
	case 'l':
		sc_put_signed(x, *a);
		break;
	case 'm':
		sc_put(x, "0", 1);
		sc_put_number(x, (uint32_t)*a, 8, 1);
		break;
	case 'o':
		put_flags(x, (uint32_t)*a);
		break;
	case 'p':
		put_path(x, *a);
		break;
	case 'b':
		put_data(x, *a, (uint64_t)a[1]);
		break;
	case 'B':
		if (res >= 0)
			put_data(x, *a, (uint64_t)res);
		else
			put_address(x, *a);
		break;
	case 'w':
		if ((unsigned long)*a < sizeof(whence) / sizeof(whence[0]))
			sc_put_str(x, whence[*a]);
		else
			sc_put_signed(x, *a);
		break;
	case 'a':
		put_address(x, *a);
		break;
	default:
		sc_put_str(x, "0x");
		sc_put_number(x, (uint32_t)*a, 16, 1);
	}
}

static void put_result(struct sc_text *x, long res)
{
#define E(name) [name] = #name
	static const char errors[][16] = {
	    E(EPERM),	E(ENOENT),  E(EINTR),	     E(EIO),	  E(ENXIO),	 E(E2BIG),
	    E(ENOEXEC), E(EBADF),   E(EAGAIN),	     E(ENOMEM),	  E(EACCES),	 E(EFAULT),
	    E(ENOTBLK), E(EBUSY),   E(EEXIST),	     E(EXDEV),	  E(ENODEV),	 E(ENOTDIR),
	    E(EISDIR),	E(EINVAL),  E(ENFILE),	     E(EMFILE),	  E(ENOTTY),	 E(ETXTBSY),
	    E(EFBIG),	E(ENOSPC),  E(ESPIPE),	     E(EROFS),	  E(EMLINK),	 E(EPIPE),
	    E(ERANGE),	E(EDEADLK), E(ENAMETOOLONG), E(ENOLCK),	  E(ENOSYS),	 E(ENOTEMPTY),
	    E(ELOOP),	E(ENODATA), E(EOVERFLOW),    E(ENOTSOCK), E(EOPNOTSUPP), E(ECONNREFUSED),
	    E(ESTALE),	E(EDQUOT)};
#undef E

	if (res == SC_NATIVE || res == SC_NATIVE_CHANGED) {
		sc_put_str(x, "? (goes on to the host's kernel)");
	} else if (res == -SC_ERESTART) {
		sc_put_str(x, "? (a signal; may be made again)");
	} else if (res >= 0 || res < -4095) {
		if (res < 0 || res > 0xffffffffl)
			put_address(x, res);
		else
			sc_put_dec(x, (uint64_t)res);
	} else {
		sc_put_str(x, "-1 ");
		if (-res < (long)(sizeof(errors) / sizeof(errors[0])) && errors[-res][0])
			sc_put_str(x, errors[-res]);
		else
			sc_put_dec(x, (uint64_t)-res);
	}
}

/* ---- lines ---- */

static uint64_t now(void)
{
	struct timespec ts;

	sc_sys2(__NR_clock_gettime, CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Requests that the thread has made, to all domains. */
static uint64_t requests(const struct sc_thread *t)
{
	const struct sc_serve_thread *s = t->serve;
	uint64_t n = 0;

	for (uint32_t i = 0; s && i < SC_MAX_DOMAINS; i++)
		n += s->counts.at[i];
	return n;
}

void sc_trace_begin(struct sc_thread *t, struct sc_trace *tr)
{
	tr->ns = now();
	tr->remote = requests(t);
}

static void put_time(struct sc_text *x, uint64_t ns)
{
	uint64_t s = ns / 1000000000u % 86400;

	sc_put_number(x, s / 3600, 10, 2);
	sc_put(x, ":", 1);
	sc_put_number(x, s / 60 % 60, 10, 2);
	sc_put(x, ":", 1);
	sc_put_number(x, s % 60, 10, 2);
	sc_put(x, ".", 1);
	sc_put_number(x, ns / 1000 % 1000000, 10, 6);
}

/* <seconds> domain lane: requests */
static void put_service(struct sc_text *x, const struct sc_thread *t, uint64_t ns, uint64_t made)
{
	const struct sc_serve_thread *s = t->serve;

	sc_put_str(x, " <");
	sc_put_dec(x, ns / 1000000000u);
	sc_put(x, ".", 1);
	sc_put_number(x, ns / 1000 % 1000000, 10, 6);
	sc_put_str(x, ">");
	if (!made || !s) {
		sc_put_str(x, " library");
		return;
	}
	sc_put(x, " ", 1);
	sc_put_str(x, sc_doms[s->last_dom].name);
	sc_put_str(x, " lane ");
	sc_put_dec(x, s->last_lane);
	if (made > 1) {
		sc_put_str(x, ", ");
		sc_put_dec(x, made);
		sc_put_str(x, " requests");
	}
}

void sc_trace_end(struct sc_thread *t, const struct sc_trace *tr, const struct sc_call *c, long res)
{
	char line[LINE_MAX];
	/* room is left for the end of the line */
	struct sc_text x = {.at = line, .end = line + sizeof(line) - 1};
	uint64_t made = requests(t) - tr->remote, end = now();
	bool known = forms[c->nr][0] || c->nr == __NR_sync;
	const char *form = known ? forms[c->nr] : "xxxxxx";
	const char *name = names[c->nr][0] ? names[c->nr] + sizeof("__NR_") - 1 : "?";

	if (!made && (res == SC_NATIVE || res == SC_NATIVE_CHANGED))
		return;
	sc_put_dec(&x, t->tid);
	sc_put(&x, " ", 1);
	put_time(&x, tr->ns);
	sc_put(&x, " ", 1);
	sc_put_str(&x, name);
	sc_put(&x, "(", 1);
	for (int i = 0; i < 6 && form[i]; i++) {
		if (i)
			sc_put(&x, ", ", 2);
		put_argument(&x, form[i], &c->a[i], res);
	}
	sc_put_str(&x, ") = ");
	put_result(&x, res);
	put_service(&x, t, end > tr->ns ? end - tr->ns : 0, made);
	*x.at = '\n';
	sc_sys3(__NR_write, trace_fd, line, x.at + 1 - line);
}

void sc_trace_option(const char *call, int level, int name)
{
	char buf[160];
	struct sc_text x = {.at = buf, .end = buf + sizeof(buf)};

	if (!sc_tracing)
		return;
	sc_put_str(&x, "scrun: pid ");
	sc_put_dec(&x, (uint64_t)sc_sys0(__NR_getpid));
	sc_put_str(&x, ": ");
	sc_put_str(&x, call);
	sc_put_str(&x, " level=");
	sc_put_dec(&x, (uint32_t)level);
	sc_put_str(&x, " name=");
	sc_put_dec(&x, (uint32_t)name);
	sc_put_str(&x, ": no domain knows this option (ENOPROTOOPT)\n");
	sc_sys3(__NR_write, trace_fd, buf, x.at - buf);
}

/* ---- counters ---- */

static void put_count(struct sc_text *x, const char *name, uint64_t v)
{
	sc_put(x, " ", 1);
	sc_put_str(x, name);
	sc_put(x, "=", 1);
	sc_put_dec(x, v);
}

static void put_domains(struct sc_text *x, const struct sc_serve_counts *n)
{
	sc_put_str(x, " (");
	for (uint32_t i = 0; i < sc_ndoms; i++) {
		if (i)
			sc_put_str(x, ", ");
		sc_put_str(x, sc_doms[i].name);
		sc_put(x, ":", 1);
		sc_put_dec(x, n->at[i]);
	}
	sc_put_str(x, ")");
}

void sc_stats_at_exit(void)
{
	struct sc_intercept_stats is;
	struct sc_serve_counts n;
	char buf[1024];
	struct sc_text x = {.at = buf, .end = buf + sizeof(buf) - 1};
	uint64_t remote = 0;

	sc_counts_sum(&n);
	for (uint32_t i = 0; i < SC_OP_MAX; i++)
		remote += n.remote[i];
	sc_intercept_get_stats(&is);
	sc_put_str(&x, "scrun: pid ");
	sc_put_dec(&x, (uint64_t)sc_sys0(__NR_getpid));
	sc_put_str(&x, ":");
	put_count(&x, "remote", remote);
	put_domains(&x, &n);
	put_count(&x, "spins", n.spins);
	put_count(&x, "sleeps", n.sleeps);
	put_count(&x, "traps", is.traps);
	put_count(&x, "rewritten", is.sites_rewritten);
	put_count(&x, "left", is.sites_left);
	sc_put_str(&x, ";");
	for (uint32_t i = 0; i < SC_OP_MAX; i++)
		if (n.remote[i])
			put_count(&x, op_name(i) ? op_name(i) : "other", n.remote[i]);
	*x.at = '\n';
	sc_sys3(__NR_write, stats_fd, buf, x.at + 1 - buf);
}
