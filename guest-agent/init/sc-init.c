/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sc-init - process 1 of a service domain's guest.
 *
 * A service VM runs a stock kernel and one program, the agent. sc-init is all that stands between
 * them: it brings the kernel's own file systems up, loads the modules that the image carries, waits
 * for the disk and for /dev/sc, mounts the disk, starts the agent, and sees to it that everything
 * ends well. It is static, runs no other program than the agent (and a debug shell, if the image
 * has one), and allocates no memory.
 *
 * What it does, in order:
 *
 *   set_up_kernel_files
 *	/proc /sys /dev /run; console; host name
 *   read_options
 *	sc.* words of the kernel command line (see struct options)
 *   load_modules
 *	/lib/modules/list, in the order given there, those whose condition holds
 *   open_buttons
 *	the ACPI power button; what is pressed from now on waits for supervise
 *   mount_disk
 *	waits for the disk (a bounded time), mounts it on /export
 *   start_agent
 *	waits for /dev/sc, runs /sbin/sc-agent; its output goes to the console, line by line, each
 *	with a prefix, so that the serial log tells who spoke
 *   supervise
 *	one loop over children (signalfd), the agent's output, the power button (evdev)
 *   finish
 *	ends all processes, syncs, unmounts, and powers off or reboots
 *
 * How a domain ends:
 *
 *   power button, SIGTERM or ctrl-alt-del
 *	the agent gets SIGTERM and STOP_SECONDS to finish its calls, then SIGKILL; power off
 *	(ctrl-alt-del: reboot)
 *   the agent exits with status 0
 *	it was told to stop by the broker: power off
 *   the agent dies in any other way
 *	its reason is logged; sc.on_agent_exit decides
 *   sc-init itself cannot go on
 *	the reason is logged; sc.on_agent_exit decides as well
 *
 * The journal of the exported file system is replayed by mount; there is no fsck in the guest. A
 * file system too damaged to mount is for the operator to repair on the host, and the console says
 * so.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AGENT_PATH   "/sbin/sc-agent"
#define SHELL_PATH   "/bin/busybox"
#define DEVICE_PATH  "/dev/sc"
#define EXPORT_PATH  "/export"
#define MODULE_LIST  "/lib/modules/list"
#define AGENT_PREFIX "sc-agent: "
#define MAX_INPUTS   8	  /* input devices watched for a power key */
#define MAX_ARGS     64	  /* words in the agent's command line */
#define LINE_SIZE    1024 /* longest line of agent output that is kept whole, in bytes */
#define STOP_SECONDS 20	  /* what the agent gets between SIGTERM and SIGKILL */

/* What becomes of the VM. */
enum ending {
	END_NONE,
	END_REBOOT,
	END_POWEROFF,
	END_HALT,
};

/*
 * The kernel command line's sc.* words. Strings point into cmdline_text.
 *
 * Words of the form sc.agent.NAME=VALUE are handed to the agent as --NAME=VALUE (sc.agent.NAME as
 * --NAME).
 */
struct options {
	const char *role; /* sc.role: "storage" (default) or "network" */
	const char *name; /* sc.name: the domain's name; becomes the host name */
	const char *
	    disk; /* sc.disk: /dev/..., serial:TEXT or uuid:TEXT; NULL: no disk (not for storage) */
	const char *fstype; /* sc.fstype: default ext4 */
	const char *fsopts; /* sc.fsopts: comma-separated, as for mount -o; NULL: none */
	const char *device; /* sc.device: what the agent is given and waited for; default /dev/sc */
	const char
	    *pollers; /* sc.pollers: number of poller threads, as text; NULL: the agent decides */
	enum ending on_exit;	/* sc.on_agent_exit: reboot (default), poweroff, halt */
	unsigned int wait_secs; /* sc.wait: how long to wait for disk and device; default 15 */
	bool shell;		/* sc.shell=1: a shell on the console, if the image has one */
};

/* All state of this program, passed to whoever needs it. */
struct init {
	struct options opt;
	char *argv[MAX_ARGS]; /* agent's command line */
	int argc;
	pid_t agent; /* 0: not running */
	pid_t shell; /* 0: not running */
	int log_fd;  /* read end of the agent's stdout and stderr; -1: closed */
	int sig_fd;  /* signalfd */
	int input_fd[MAX_INPUTS];
	int inputs;
	char line[LINE_SIZE]; /* unfinished line of agent output */
	size_t line_len;
	enum ending ending; /* what a running stop leads to; END_NONE: none is running */
	int64_t kill_at;    /* when the agent is killed, in ms of now_ms(); only while stopping */
};

static char cmdline_text[4096];
static int console_fd = STDERR_FILENO;

/* Milliseconds since boot. */
static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* Writes all of `text` to the console; a console that is gone is nothing to end a service for. */
static void console_write(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(console_fd, text, len);

		if (n <= 0 && errno != EINTR)
			return;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
}

/* One line on the console, with the time since boot as the kernel's own messages have it. */
__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char text[512];
	int64_t ms = now_ms();
	int n = snprintf(text, sizeof(text), "[%5lld.%03lld] sc-init: ", (long long)(ms / 1000),
			 (long long)(ms % 1000));
	va_list ap;

	va_start(ap, fmt);
	n += vsnprintf(text + n, sizeof(text) - (size_t)n - 2, fmt, ap);
	va_end(ap);
	if ((size_t)n > sizeof(text) - 3)
		n = sizeof(text) - 3;
	/* The console is a raw serial line to whoever reads the log. */
	text[n++] = '\r';
	text[n++] = '\n';
	console_write(text, (size_t)n);
}

static bool starts_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Reads a small file into buf as a string without its last newline. Returns its length, or -1. */
static ssize_t read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n < 0)
		return -1;
	while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == ' '))
		n--;
	buf[n] = 0;
	return n;
}

/* Ends the machine. Does not return. */
static _Noreturn void end_machine(enum ending how)
{
	sync();
	reboot(how == END_POWEROFF ? RB_POWER_OFF : how == END_HALT ? RB_HALT_SYSTEM : RB_AUTOBOOT);
	/* Only reached if the kernel refused; process 1 must not exit, for that is a kernel panic.
	 */
	for (;;)
		pause();
}

/* Says what is wrong and gives up. For what happens before an agent runs. Does not return. */
static _Noreturn void give_up(const struct init *in, const char *remedy)
{
	say("cannot start this service domain: %s", remedy);
	/* Time for the console to drain, and a brake for a VM that reboots for ever. */
	sleep_ms(1000);
	end_machine(in->opt.on_exit);
}

static void mount_or_say(const char *type, const char *where, unsigned long flags, const char *data)
{
	mkdir(where, 0755);
	if (mount(type, where, type, flags, data) && errno != EBUSY)
		say("mount %s on %s: %s", type, where, strerror(errno));
}

static void set_up_kernel_files(void)
{
	const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;

	mount_or_say("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755");
	mount_or_say("proc", "/proc", safe, NULL);
	mount_or_say("sysfs", "/sys", safe, NULL);
	mount_or_say("tmpfs", "/run", safe, "mode=0755,size=16m");
}

/* The initramfs has no /dev/console before devtmpfs is there, so the kernel started us without
 * descriptors. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	console_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd > STDERR_FILENO)
		close(fd);
}

static enum ending parse_ending(const char *text)
{
	if (!strcmp(text, "poweroff"))
		return END_POWEROFF;
	if (!strcmp(text, "halt"))
		return END_HALT;
	if (strcmp(text, "reboot") != 0)
		say("sc.on_agent_exit=%s: not one of reboot, poweroff, halt; taking reboot", text);
	return END_REBOOT;
}

static void add_arg(struct init *in, char *arg)
{
	if (in->argc < MAX_ARGS - 1)
		in->argv[in->argc++] = arg;
	else
		say("more than %d agent arguments, dropped: %s", MAX_ARGS - 1, arg);
}

/* "sc.agent.x=y" becomes "--x=y", in place: the word is longer than what it becomes. */
static void add_agent_word(struct init *in, char *word)
{
	char *arg = word + strlen("sc.agent.") - 2;

	arg[0] = '-';
	arg[1] = '-';
	add_arg(in, arg);
}

/* Takes one word of the kernel command line. */
static void take_word(struct init *in, char *word)
{
	struct options *o = &in->opt;
	char *value = strchr(word, '=');

	if (starts_with(word, "sc.agent.")) {
		add_agent_word(in, word);
		return;
	}
	if (!value) {
		say("%s: option without a value, ignored", word);
		return;
	}
	*value++ = 0;
	if (!strcmp(word, "sc.role"))
		o->role = value;
	else if (!strcmp(word, "sc.name"))
		o->name = value;
	else if (!strcmp(word, "sc.disk"))
		o->disk = value;
	else if (!strcmp(word, "sc.fstype"))
		o->fstype = value;
	else if (!strcmp(word, "sc.fsopts"))
		o->fsopts = value;
	else if (!strcmp(word, "sc.device"))
		o->device = value;
	else if (!strcmp(word, "sc.pollers"))
		o->pollers = value;
	else if (!strcmp(word, "sc.on_agent_exit"))
		o->on_exit = parse_ending(value);
	else if (!strcmp(word, "sc.wait"))
		o->wait_secs = (unsigned int)strtoul(value, NULL, 10);
	else if (!strcmp(word, "sc.shell"))
		o->shell = !strcmp(value, "1");
	else
		say("%s: unknown option, ignored", word);
}

static void read_options(struct init *in)
{
	char *save = NULL;

	in->opt = (struct options){
	    .role = "storage",
	    .name = "sc",
	    .fstype = "ext4",
	    .device = DEVICE_PATH,
	    .on_exit = END_REBOOT,
	    .wait_secs = 15,
	};
	add_arg(in, (char *)AGENT_PATH);
	if (read_text("/proc/cmdline", cmdline_text, sizeof(cmdline_text)) < 0) {
		say("/proc/cmdline: %s; going on with defaults", strerror(errno));
		return;
	}
	for (char *w = strtok_r(cmdline_text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		if (starts_with(w, "sc."))
			take_word(in, w);
}

/* True if some PCI device's `file` (in /sys/bus/pci/devices/X) begins with `prefix`. */
static bool pci_has(const char *file, const char *prefix)
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	struct dirent *e;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (e = readdir(dir))) {
		char path[PATH_MAX], text[256];

		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", e->d_name, file);
		found = e->d_name[0] != '.' && read_text(path, text, sizeof(text)) > 0 &&
			starts_with(text, prefix);
	}
	closedir(dir);
	return found;
}

/*
 * Whether a module's condition holds:
 *   always        yes
 *   fs=TYPE       sc.fstype is TYPE
 *   disk=PREFIX   sc.disk begins so
 *   class=HEX     a PCI device of this class is there (prefix of sysfs' class file, such as 0x0108)
 *   pci=MODALIAS  a PCI device whose modalias begins so is there (such as pci:v00001AF4d00001048)
 */
static bool condition_holds(const struct init *in, const char *cond)
{
	if (!strcmp(cond, "always"))
		return true;
	if (starts_with(cond, "fs="))
		return !strcmp(cond + 3, in->opt.fstype);
	if (starts_with(cond, "disk="))
		return in->opt.disk && starts_with(in->opt.disk, cond + 5);
	if (starts_with(cond, "class="))
		return pci_has("class", cond + 6);
	if (starts_with(cond, "pci="))
		return pci_has("modalias", cond + 4);
	say("%s: condition '%s' not understood, module loaded", MODULE_LIST, cond);
	return true;
}

static void load_module(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		say("%s: %s", path, strerror(errno));
		return;
	}
	/* EEXIST: in the kernel already. ENODEV: a driver for hardware (or CPU features) that is
	 * not here. */
	if (syscall(SYS_finit_module, fd, params, 0) && errno != EEXIST && errno != ENODEV)
		say("cannot load %s: %s", path, strerror(errno));
	close(fd);
}

/* The list has a module per line: CONDITION PATH [PARAMETERS]. mkinitramfs.py wrote it, in order of
 * dependence. */
static void load_modules(const struct init *in)
{
	FILE *f = fopen(MODULE_LIST, "re");
	char line[LINE_SIZE];

	if (!f) {
		say("%s: %s; no modules loaded", MODULE_LIST, strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		char *save = NULL;
		char *cond, *path, *params;

		cond = strtok_r(line, " \n", &save);
		path = strtok_r(NULL, " \n", &save);
		params = strtok_r(NULL, "\n", &save);
		if (cond && path && condition_holds(in, cond))
			load_module(path, params ? params : "");
	}
	fclose(f);
}

/* Calls check() every few milliseconds until it is true or the time is over. Returns whether it
 * was. */
static bool wait_until(bool (*check)(struct init *in, char *out), struct init *in, char *out)
{
	int64_t end = now_ms() + (int64_t)in->opt.wait_secs * 1000;

	while (!check(in, out)) {
		if (now_ms() >= end)
			return false;
		sleep_ms(5);
	}
	return true;
}

/* The file system UUID of a block device as text; ext2/3/4 and xfs. False: none found. */
static bool read_uuid(const char *dev, char out[37])
{
	unsigned char sb[2048];
	const unsigned char *u = NULL;
	int fd = open(dev, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = pread(fd, sb, sizeof(sb), 0);
	close(fd);
	if (n != sizeof(sb))
		return false;
	if (!memcmp(sb, "XFSB", 4))
		u = sb + 32;
	else if (sb[1024 + 0x38] == 0x53 && sb[1024 + 0x39] == 0xef)
		u = sb + 1024 + 0x68;
	if (!u)
		return false;
	for (int i = 0; i < 16; i++) {
		bool dash = i == 4 || i == 6 || i == 8 || i == 10;

		out += sprintf(out, "%s%02x", dash ? "-" : "", u[i]);
	}
	return true;
}

/* Whether block device `name` is what sc.disk=serial:... or uuid:... asks for. */
static bool disk_matches(const char *name, const char *want)
{
	char path[PATH_MAX], text[256];

	if (starts_with(want, "serial:")) {
		snprintf(path, sizeof(path), "/sys/class/block/%s/serial", name);
		return read_text(path, text, sizeof(text)) > 0 && !strcmp(text, want + 7);
	}
	snprintf(path, sizeof(path), "/dev/%s", name);
	return read_uuid(path, text) && !strcasecmp(text, want + 5);
}

/* Finds the disk; writes its device path to out (PATH_MAX bytes). */
static bool find_disk(struct init *in, char *out)
{
	const char *want = in->opt.disk;
	struct dirent *e;
	struct stat st;
	bool found = false;
	DIR *dir;

	if (want[0] == '/') {
		snprintf(out, PATH_MAX, "%s", want);
		return !stat(out, &st) && S_ISBLK(st.st_mode);
	}
	dir = opendir("/sys/class/block");
	if (!dir)
		return false;
	while (!found && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || !disk_matches(e->d_name, want))
			continue;
		snprintf(out, PATH_MAX, "/dev/%s", e->d_name);
		found = true;
	}
	closedir(dir);
	return found;
}

static bool find_device(struct init *in, char *out)
{
	struct stat st;

	(void)out;
	return !stat(in->opt.device, &st) && S_ISCHR(st.st_mode);
}

/* Mount options that are flags to mount(2); all others go to the file system as text. */
static const struct {
	const char *name;
	unsigned long set;
	unsigned long clear;
} mount_flags[] = {
    {"defaults", 0, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"noatime", MS_NOATIME, MS_RELATIME},
    {"relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME},
    {"strictatime", MS_STRICTATIME, MS_RELATIME | MS_NOATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"lazytime", MS_LAZYTIME, 0},
    {"sync", MS_SYNCHRONOUS, 0},
    {"dirsync", MS_DIRSYNC, 0},
    {"nosuid", MS_NOSUID, 0},
    {"nodev", MS_NODEV, 0},
};

/* Splits sc.fsopts into flags and what is left (data, `size` bytes). */
static unsigned long parse_fsopts(const char *opts, char *data, size_t size)
{
	/* The agent opens files on behalf of others: a device node on the disk must open no device
	 * of this guest. */
	unsigned long flags = MS_NODEV | MS_NOSUID | MS_RELATIME;
	char copy[LINE_SIZE];
	char *save = NULL;
	size_t used = 0;

	data[0] = 0;
	snprintf(copy, sizeof(copy), "%s", opts ? opts : "");
	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		size_t i = 0, n = sizeof(mount_flags) / sizeof(mount_flags[0]);

		while (i < n && strcmp(mount_flags[i].name, w) != 0)
			i++;
		if (i < n)
			flags = (flags | mount_flags[i].set) & ~mount_flags[i].clear;
		else if (used + strlen(w) + 2 < size)
			used += (size_t)sprintf(data + used, "%s%s", used ? "," : "", w);
	}
	return flags;
}

static const char *mount_remedy(int error)
{
	switch (error) {
	case EINVAL:
		return "no such file system on the disk, or a bad option; make one on the host "
		       "(mkfs), "
		       "or name it with sc.fstype";
	case ENODEV:
		return "the guest image has no module for this file system; build the image with "
		       "it";
	case EUCLEAN:
		return "the file system is damaged; repair it on the host with fsck";
	case EROFS:
	case EACCES:
		return "the disk is read-only; add ro to sc.fsopts, or give the VM a writable disk";
	default:
		return "see the kernel's messages above";
	}
}

static void mount_disk(struct init *in)
{
	char dev[PATH_MAX], data[LINE_SIZE];
	unsigned long flags;

	mkdir(EXPORT_PATH, 0755);
	if (!in->opt.disk) {
		if (!strcmp(in->opt.role, "storage"))
			give_up(in, "role storage needs sc.disk=... on the kernel command line");
		return;
	}
	if (!wait_until(find_disk, in, dev)) {
		say("disk %s did not appear within %u s", in->opt.disk, in->opt.wait_secs);
		give_up(in,
			"give the VM the disk that sc.disk names, or add its driver to the image");
	}
	flags = parse_fsopts(in->opt.fsopts, data, sizeof(data));
	if (mount(dev, EXPORT_PATH, in->opt.fstype, flags, data)) {
		int error = errno;

		say("mount %s (%s, options '%s') on %s: %s", dev, in->opt.fstype,
		    in->opt.fsopts ? in->opt.fsopts : "", EXPORT_PATH, strerror(error));
		give_up(in, mount_remedy(error));
	}
	say("%s (%s) mounted on %s", dev, in->opt.fstype, EXPORT_PATH);
	add_arg(in, (char *)"--root");
	add_arg(in, (char *)EXPORT_PATH);
}

/* In a child: undoes what process 1 did to itself and becomes the program. */
static _Noreturn void become(char *const argv[], int out)
{
	char *const env[] = {(char *)"PATH=/sbin:/bin", (char *)"HOME=/", (char *)"TERM=linux",
			     NULL};
	struct rlimit files = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* One descriptor per file that any application has open. */
	setrlimit(RLIMIT_NOFILE, &files);
	setsid();
	if (out >= 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDIN_FILENO);
		dup2(out, STDOUT_FILENO);
		dup2(out, STDERR_FILENO);
	} else {
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	}
	execve(argv[0], argv, env);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static void start_agent(struct init *in)
{
	int pipe_fd[2];
	char role[64], pollers[64];

	if (!wait_until(find_device, in, NULL)) {
		say("%s did not appear within %u s", in->opt.device, in->opt.wait_secs);
		give_up(in,
			"the VM needs a vhost-user-sc-pci device whose broker (vhost-scd) runs");
	}
	if (pipe2(pipe_fd, O_CLOEXEC))
		give_up(in, strerror(errno));
	add_arg(in, (char *)"--device");
	add_arg(in, (char *)in->opt.device);
	snprintf(role, sizeof(role), "--role=%s", in->opt.role);
	add_arg(in, role);
	if (in->opt.pollers) {
		snprintf(pollers, sizeof(pollers), "--pollers=%s", in->opt.pollers);
		add_arg(in, pollers);
	}
	in->argv[in->argc] = NULL;
	in->agent = fork();
	if (in->agent < 0)
		give_up(in, strerror(errno));
	if (!in->agent)
		become(in->argv, pipe_fd[1]);
	close(pipe_fd[1]);
	in->log_fd = pipe_fd[0];
	say("agent started (pid %d)", (int)in->agent);
}

static void start_shell(struct init *in)
{
	char *const argv[] = {(char *)SHELL_PATH, (char *)"sh", NULL};

	if (!in->opt.shell)
		return;
	if (access(SHELL_PATH, X_OK)) {
		say("sc.shell=1: this image has no shell; build it with --debug-shell");
		return;
	}
	in->shell = fork();
	if (!in->shell)
		become(argv, -1);
	say("DEBUG SHELL on the console");
}

/* Opens those input devices that have a power key: the ACPI power button. */
static void open_buttons(struct init *in)
{
	for (int i = 0; i < 32 && in->inputs < MAX_INPUTS; i++) {
		unsigned char keys[KEY_MAX / 8 + 1] = {0};
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			continue;
		if (ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
		    keys[KEY_POWER / 8] >> (KEY_POWER % 8) & 1)
			in->input_fd[in->inputs++] = fd;
		else
			close(fd);
	}
	if (!in->inputs)
		say("no ACPI power button: this VM can be stopped through its broker only");
}

/* Writes one line of the agent's output; with its prefix, unless the agent said itself who it is.
 */
static void flush_line(struct init *in)
{
	char out[LINE_SIZE + 16];
	const char *prefix;
	int n;

	in->line[in->line_len] = 0;
	prefix = starts_with(in->line, AGENT_PREFIX) ? "" : AGENT_PREFIX;
	n = snprintf(out, sizeof(out), "%s%s\r\n", prefix, in->line);
	console_write(out, (size_t)n);
	in->line_len = 0;
}

/* Copies what the agent wrote to the console. */
static void forward_log(struct init *in)
{
	char buf[LINE_SIZE];
	ssize_t n = read(in->log_fd, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		close(in->log_fd);
		in->log_fd = -1;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] != '\n')
			in->line[in->line_len++] = buf[i];
		if (buf[i] == '\n' || in->line_len == sizeof(in->line) - 1)
			flush_line(in);
	}
	if (in->log_fd < 0 && in->line_len)
		flush_line(in);
}

/* Everything that the agent still has to say; it is dead, so the pipe ends. */
static void drain_log(struct init *in)
{
	struct pollfd p = {.fd = in->log_fd, .events = POLLIN};

	/* A process that the agent left behind could hold the pipe open: do not wait for its end.
	 */
	while (in->log_fd >= 0 && poll(&p, 1, 0) > 0)
		forward_log(in);
}

/* Begins an orderly stop. A second request changes nothing. */
static void begin_stop(struct init *in, enum ending how, const char *why)
{
	if (in->ending != END_NONE)
		return;
	say("%s: stopping the agent, at most %d s", why, STOP_SECONDS);
	in->ending = how;
	in->kill_at = now_ms() + STOP_SECONDS * 1000;
	if (in->agent)
		kill(in->agent, SIGTERM);
}

/* True once every process but this one is gone, or after a second. */
static void kill_all(void)
{
	kill(-1, SIGKILL);
	for (int i = 0; i < 100; i++) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			return;
		if (!pid)
			sleep_ms(10);
	}
}

/* Ends the domain: nothing runs any more, the disk is clean, the machine goes. */
static _Noreturn void finish(struct init *in, enum ending how)
{
	int error = 0;

	drain_log(in);
	kill_all();
	sync();
	if (in->opt.disk) {
		for (int i = 0; i < 50 && umount2(EXPORT_PATH, 0); i++) {
			error = errno;
			if (error != EBUSY)
				break;
			sleep_ms(20);
			error = 0;
		}
		/* Read-only is as good as unmounted for what is on the disk. */
		if (!umount2(EXPORT_PATH, 0) || errno == EINVAL)
			say("%s unmounted", EXPORT_PATH);
		else if (mount(NULL, EXPORT_PATH, NULL, MS_REMOUNT | MS_RDONLY, NULL))
			say("%s: not unmounted (%s); its journal is replayed at the next start",
			    EXPORT_PATH, strerror(error ? error : EBUSY));
	}
	say("%s", how == END_POWEROFF ? "power off" : how == END_HALT ? "halted" : "reboot");
	end_machine(how);
}

/* The agent is dead. Says why and ends the domain. */
static _Noreturn void agent_ended(struct init *in, int status)
{
	enum ending how = in->ending;

	in->agent = 0;
	drain_log(in);
	if (WIFSIGNALED(status))
		say("agent killed by signal %d (%s)%s", WTERMSIG(status),
		    strsignal(WTERMSIG(status)), WCOREDUMP(status) ? ", core dumped" : "");
	else
		say("agent exited with status %d", WEXITSTATUS(status));
	if (how != END_NONE)
		finish(in, how);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		finish(in, END_POWEROFF);
	/* A brake, so that an agent that cannot start does not make a VM that reboots without a
	 * pause. */
	sleep_ms(1000);
	finish(in, in->opt.on_exit);
}

static void reap_children(struct init *in)
{
	int status, agent_status = 0;
	bool agent_died = false;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == in->agent) {
			agent_died = true;
			agent_status = status;
		} else if (pid == in->shell) {
			in->shell = 0;
			if (in->ending == END_NONE)
				start_shell(in);
		}
	}
	if (agent_died)
		agent_ended(in, agent_status);
}

static void take_signal(struct init *in)
{
	struct signalfd_siginfo si;

	while (read(in->sig_fd, &si, sizeof(si)) == sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGCHLD:
			reap_children(in);
			break;
		case SIGINT:
			begin_stop(in, END_REBOOT, "ctrl-alt-del");
			break;
		default:
			begin_stop(in, END_POWEROFF, strsignal((int)si.ssi_signo));
		}
	}
}

static void take_button(struct init *in, int fd)
{
	struct input_event ev;

	while (read(fd, &ev, sizeof(ev)) == sizeof(ev))
		if (ev.type == EV_KEY && ev.code == KEY_POWER && ev.value == 1)
			begin_stop(in, END_POWEROFF, "power button");
}

/* How long the loop may sleep, in ms; -1: for ever. Past the deadline the agent is killed. */
static int stop_timeout(struct init *in)
{
	int64_t left;

	if (in->ending == END_NONE)
		return -1;
	left = in->kill_at - now_ms();
	if (left > 0)
		return (int)left;
	if (!in->agent)
		finish(in, in->ending);
	say("agent did not stop within %d s: killing it", STOP_SECONDS);
	kill(in->agent, SIGKILL);
	/* A process in an uninterruptible wait does not die of it; then the disk is what is left to
	 * save. */
	for (int i = 0; i < 50; i++) {
		sleep_ms(100);
		reap_children(in);
	}
	say("agent is stuck in the kernel");
	finish(in, in->ending);
}

static _Noreturn void supervise(struct init *in)
{
	struct pollfd p[2 + MAX_INPUTS];

	for (;;) {
		p[0] = (struct pollfd){.fd = in->sig_fd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = in->log_fd, .events = POLLIN};
		for (int i = 0; i < in->inputs; i++)
			p[2 + i] = (struct pollfd){.fd = in->input_fd[i], .events = POLLIN};
		if (poll(p, (nfds_t)in->inputs + 2, stop_timeout(in)) <= 0)
			continue;
		if (p[1].revents)
			forward_log(in);
		for (int i = 0; i < in->inputs; i++)
			if (p[2 + i].revents)
				take_button(in, in->input_fd[i]);
		if (p[0].revents)
			take_signal(in);
	}
}

/* Signals come by descriptor. SIGINT is what the kernel makes of ctrl-alt-del once that no longer
 * resets. */
static void set_up_signals(struct init *in)
{
	sigset_t set;

	reboot(RB_DISABLE_CAD);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGPWR);
	sigprocmask(SIG_BLOCK, &set, NULL);
	in->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (in->sig_fd < 0)
		give_up(in, "no signalfd");
}

int main(void)
{
	static struct init in;

	if (getpid() != 1) {
		fputs(
		    "sc-init is process 1 of a service domain's guest; it does nothing elsewhere\n",
		    stderr);
		return 2;
	}
	in.log_fd = -1;
	umask(022);
	set_up_kernel_files();
	open_console();
	read_options(&in);
	say("service domain '%s', role %s", in.opt.name, in.opt.role);
	if (sethostname(in.opt.name, strlen(in.opt.name)))
		say("host name '%s': %s", in.opt.name, strerror(errno));
	set_up_signals(&in);
	load_modules(&in);
	open_buttons(&in);
	start_shell(&in);
	mount_disk(&in);
	start_agent(&in);
	supervise(&in);
}
