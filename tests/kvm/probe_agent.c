/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe_agent - stands in for the agent in tests of the guest driver (test_driver.py).
 *
 * Started by sc-init as /sbin/sc-agent. Checks everything that virtio_sc.h promises of /dev/sc,
 * with a host side that does as it is told by one-line messages ("ring 1": ring the bell of slot
 * 1) and answers with a message. Prints one line for each check: "ok WHAT" or "not ok
 * WHAT: WHY", then "done". Host and guest agree on PATTERN bytes in slot 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vhost-sc/virtio_sc.h>

#define DEVICE	"/dev/sc"
#define DRIVER	"/sys/bus/virtio/drivers/virtio_sc"
#define CHANNEL (4u << 20) /* bytes mapped in slot 1 by the host */
#define WAIT_MS 30000

static int dev;
static struct sc_dev_info info;
static sigjmp_buf fault_jump;
static void *volatile nowhere = (void *)8; /* no memory is mapped there */

static void check(bool good, const char *what)
{
	if (good)
		printf("ok %s\n", what);
	else
		printf("not ok %s: errno %d (%s)\n", what, errno, strerror(errno));
	fflush(stdout);
}

/* Sends a one-line message and reads the answer. Returns its length, or -1. */
static ssize_t ask(char *answer, size_t size, const char *fmt, ...)
{
	struct pollfd room = {.fd = dev, .events = POLLOUT};
	struct pollfd p = {.fd = dev, .events = POLLIN};
	char text[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (poll(&room, 1, WAIT_MS) != 1 || write(dev, text, (size_t)n) != n)
		return -1;
	if (poll(&p, 1, WAIT_MS) != 1)
		return -1;
	return read(dev, answer, size);
}

static void check_open(void)
{
	int other;

	dev = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	check(dev >= 0, "open");
	other = open(DEVICE, O_RDWR);
	check(other < 0 && errno == EBUSY, "second open is refused");
	check(!ioctl(dev, SC_IOC_INFO, &info), "info");
	check(info.window_size / info.slot_size >= info.num_channels + 1, "window holds all slots");
}

static void check_messages(void)
{
	static char big[SC_MSG_MAX + 1];
	struct pollfd p = {.fd = dev, .events = POLLIN | POLLOUT};
	char buf[SC_MSG_MAX];
	int queued = 0;
	bool good = true;

	check(read(dev, buf, sizeof(buf)) < 0 && errno == EAGAIN, "read without a message");
	check(poll(&p, 1, 0) == 1 && p.revents == POLLOUT, "poll without a message");
	check(write(dev, big, sizeof(big)) < 0 && errno == EMSGSIZE, "message too long");
	check(write(dev, big, 0) < 0 && errno == EMSGSIZE, "message empty");
	check(write(dev, nowhere, 64) < 0 && errno == EFAULT, "message from nowhere");
	check(ask(buf, sizeof(buf), "info %u %llu %llu", info.num_channels, info.slot_size,
		  info.window_size) == 2 &&
		  !memcmp(buf, "ok", 2),
	      "device's configuration as the host knows it");
	for (size_t n = 1; n <= SC_MSG_MAX; n += n < 3 ? 1 : n - 1) {
		ssize_t got = ask(buf, sizeof(buf), "message %zu", n);

		for (ssize_t i = 0; i < got; i++)
			good &= buf[i] == (char)(i * 7 + (ssize_t)n);
		good &= got == (ssize_t)n;
	}
	check(good, "messages of 1 to SC_MSG_MAX bytes");

	p.events = POLLIN;
	check(ask(buf, 99, "message 100") < 0 && errno == EMSGSIZE, "read into too little room");
	check(read(dev, nowhere, 100) < 0 && errno == EFAULT, "read to nowhere");
	check(poll(&p, 1, 0) == 1 && read(dev, buf, 100) == 100 && buf[1] == (char)107,
	      "the message stayed");
	check(ask(buf, sizeof(buf), "lie 4000000000") == SC_MSG_MAX,
	      "length from the device is bounded");

	/* The host does not read until it is told to by what it has read before. */
	check(ask(buf, sizeof(buf), "sleep 1000") == 2, "host pauses");
	while (write(dev, "noise", 5) == 5)
		queued++;
	check(errno == EAGAIN && queued >= VIRTIO_SC_CONTROL_QUEUE_SIZE / 2, "controlq full");
	fcntl(dev, F_SETFL, O_RDWR);
	check(write(dev, "noise", 5) == 5, "write waits for room");
	fcntl(dev, F_SETFL, O_RDWR | O_NONBLOCK);
	check(ask(buf, sizeof(buf), "burst 200") == 1, "burst begins");
	good = buf[0] == 0;
	for (int i = 1; good && i < 200; i++) {
		p.events = POLLIN;
		good &= poll(&p, 1, WAIT_MS) == 1 && read(dev, buf, sizeof(buf)) == 1 &&
			(unsigned char)buf[0] == i;
	}
	check(good, "200 messages in order through 64 buffers");
}

static int bind_bell(unsigned int slot, int fd)
{
	struct sc_dev_doorbell arg = {.slot = slot, .fd = fd};

	return ioctl(dev, SC_IOC_DOORBELL, &arg);
}

/* Bells that arrive at an eventfd until `n` have or time is over. */
static uint64_t count_bells(int fd, uint64_t n)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t total = 0, value;

	while (total < n && poll(&p, 1, WAIT_MS) == 1 &&
	       read(fd, &value, sizeof(value)) == sizeof(value))
		total += value;
	return total;
}

static void check_doorbells(void)
{
	int one = eventfd(0, EFD_NONBLOCK), two = eventfd(0, EFD_NONBLOCK);
	unsigned int last = info.num_channels;
	uint64_t value;
	bool good = true;
	char buf[64];

	check(bind_bell(0, one) < 0 && errno == EINVAL, "bell of slot 0");
	check(bind_bell(last + 1, one) < 0 && errno == EINVAL, "bell beyond the last slot");
	check(bind_bell(1, STDIN_FILENO) < 0 && errno == EBADF, "bell to what is no eventfd");
	check(bind_bell(1, 999) < 0 && errno == EBADF, "bell to a closed descriptor");
	check(!bind_bell(1, one) && !bind_bell(last, two), "bind bells");
	check(ask(buf, sizeof(buf), "ring 1") == 2 && count_bells(one, 1) == 1, "bell of slot 1");
	check(ask(buf, sizeof(buf), "ring %u", last) == 2 && count_bells(two, 1) == 1,
	      "bell of the last slot");
	check(read(one, &value, sizeof(value)) < 0 && errno == EAGAIN,
	      "bells do not leak between slots");
	for (int i = 0; i < 50; i++)
		good &= ask(buf, sizeof(buf), "ring 1") == 2 && count_bells(one, 1) == 1;
	check(good, "50 bells, each one");
	check(!bind_bell(1, -1), "unbind");
	check(ask(buf, sizeof(buf), "ring 1") == 2 && read(one, &value, sizeof(value)) < 0,
	      "no bell when unbound");
	check(!bind_bell(1, two), "two slots share an eventfd");
	check(ask(buf, sizeof(buf), "ring 1") == 2 && count_bells(two, 1) == 1, "shared bell");

	check(ioctl(dev, SC_IOC_KICK, 0ul) < 0 && errno == EINVAL, "kick of slot 0");
	check(ioctl(dev, SC_IOC_KICK, last + 1ul) < 0 && errno == EINVAL,
	      "kick beyond the last slot");
	check(!ioctl(dev, SC_IOC_KICK, 1ul), "kick");
	check(ask(buf, sizeof(buf), "kicked 1") == 2 && !memcmp(buf, "ok", 2),
	      "the host got the kick");
	check(!ioctl(dev, SC_IOC_KICK, (unsigned long)last), "kick of the last slot");
	check(ask(buf, sizeof(buf), "kicked %u", last) == 2 && !memcmp(buf, "ok", 2),
	      "the host got the last slot's kick");
	check(ask(buf, sizeof(buf), "kicked 2") == 2 && !memcmp(buf, "no", 2),
	      "kicks do not leak between slots");
}

static unsigned char pattern(size_t i, unsigned char seed)
{
	return (unsigned char)(i * 31 + (i >> 12) + seed);
}

static bool has_pattern(const unsigned char *p, size_t n, unsigned char seed)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != pattern(i, seed))
			return false;
	return true;
}

static void fill_pattern(unsigned char *p, size_t n, unsigned char seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = pattern(i, seed);
}

/* Direct I/O between the exported disk and the channel: no bounce through the page cache. */
static void check_direct_io(unsigned char *channel)
{
	int fd = open("/export/direct", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	char buf[64];

	check(fd >= 0, "O_DIRECT file");
	fill_pattern(channel, CHANNEL, 3);
	check(pwrite(fd, channel, CHANNEL, 0) == CHANNEL, "O_DIRECT write from the window");
	memset(channel, 0, CHANNEL);
	check(pread(fd, channel, CHANNEL, 0) == CHANNEL && has_pattern(channel, CHANNEL, 3),
	      "O_DIRECT read into the window");
	check(ask(buf, sizeof(buf), "check 3") == 2 && !memcmp(buf, "ok", 2),
	      "the host sees what came from the disk");
	check(pread(fd, channel + 512, 512, 1024) == 512 && channel[512] == pattern(1024, 3),
	      "O_DIRECT of one sector");
	close(fd);
}

/* What the kernel's list of memory types says of the window. The tests' guest has debugfs, as
 * Debian's kernels do. */
static bool is_write_back(void)
{
	char line[256];
	bool found = false;
	FILE *f;

	mkdir("/tmp", 0755);
	if (mount("debugfs", "/tmp", "debugfs", 0, NULL))
		return false;
	f = fopen("/tmp/x86/pat_memtype_list", "r");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long from, to;
		char type[32];

		if (sscanf(line, "PAT: [mem %llx-%llx] %31s", &from, &to, type) == 3)
			found |= to - from == info.window_size && !strcmp(type, "write-back");
	}
	if (f)
		fclose(f);
	umount("/tmp");
	return found;
}

static long minor_faults(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_minflt;
}

static unsigned char *check_window(void)
{
	size_t slot = info.slot_size;
	unsigned char *window, *channel;
	char buf[64];
	long faults;
	pid_t child;
	int status;

	check(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, dev, 0) == MAP_FAILED && errno == EINVAL,
	      "private mapping");
	check(mmap(NULL, 8192, PROT_READ, MAP_SHARED, dev, (off_t)info.window_size - 4096) ==
		      MAP_FAILED &&
		  errno == EINVAL,
	      "mapping beyond the window");
	window = mmap(NULL, info.window_size, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);
	check(window != MAP_FAILED, "map the window");
	check(is_write_back(), "the window is write-back");
	channel = window + slot;
	faults = minor_faults();
	check(has_pattern(channel, CHANNEL, 1), "guest sees what the host wrote");
	check(minor_faults() - faults < 16, "huge mappings");
	fill_pattern(channel, CHANNEL, 2);
	check(ask(buf, sizeof(buf), "check 2") == 2 && !memcmp(buf, "ok", 2),
	      "host sees what the guest wrote");
	check_direct_io(channel);

	/* A mapping that no huge page fits. */
	munmap(window + slot + 4096, 4096);
	check(mmap(window + slot + 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dev,
		   (off_t)slot + 4096) != MAP_FAILED &&
		  channel[5000] == pattern(5000, 3),
	      "map one page");
	window[0] = 42;
	check(window[0] == 42, "slot 0");
	child = fork();
	if (!child)
		_exit(channel[4000] == pattern(4000, 3) ? 7 : 1);
	check(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "window in a child");
	return channel;
}

static void on_fault(int sig)
{
	siglongjmp(fault_jump, sig);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return good;
}

/* The name of the virtio device that the driver is bound to. */
static const char *bound_device(void)
{
	static const char *const names[] = {"virtio0", "virtio1", "virtio2"};
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), DRIVER "/%s", names[i]);
		if (!access(path, F_OK))
			return names[i];
	}
	return "";
}

/* The device goes while it is open, mapped, bound, and a process waits for it. */
static void check_removal(volatile unsigned char *channel)
{
	struct pollfd p = {.fd = dev, .events = POLLIN};
	const char *name = bound_device();
	int bell = eventfd(0, EFD_NONBLOCK);
	char buf[64];
	pid_t child;
	int sig, status;

	bind_bell(1, bell);
	child = fork();
	if (!child)
		_exit(poll(&p, 1, WAIT_MS) == 1 && p.revents & POLLHUP ? 7 : 1);
	check(write_file(DRIVER "/unbind", name), "unbind the driver while it is in use");
	check(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7,
	      "a waiting process is woken");
	check(poll(&p, 1, 0) == 1 && p.revents == POLLHUP, "poll says that the device is gone");
	check(read(dev, buf, sizeof(buf)) < 0 && errno == ENODEV, "read when the device is gone");
	check(write(dev, "x", 1) < 0 && errno == ENODEV, "write when the device is gone");
	check(ioctl(dev, SC_IOC_KICK, 1ul) < 0 && errno == ENODEV, "kick when the device is gone");
	check(!bind_bell(1, bell), "bell when the device is gone");
	signal(SIGBUS, on_fault);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig)
		(void)channel[0];
	check(sig == SIGBUS, "the window is revoked");
	check(access(DEVICE, F_OK) < 0, "/dev/sc is gone");

	check(write_file(DRIVER "/bind", name), "bind again while the old file is open");
	close(dev);
	dev = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	check(dev >= 0 && !ioctl(dev, SC_IOC_INFO, &info), "open again");
	check(ask(buf, sizeof(buf), "attach") == 2, "messages again");
}

static sigjmp_buf thread_jump[4];
static _Thread_local int thread_number;
static volatile bool stop_threads;

static void on_thread_fault(int sig)
{
	siglongjmp(thread_jump[thread_number], sig);
}

/* Uses everything as fast as it can until the device goes, and what is left of it after that. */
static void *use_device(void *arg)
{
	volatile unsigned char *channel = (unsigned char *)arg + info.slot_size;
	static volatile int counter;
	struct sc_dev_doorbell bell = {.slot = 1, .fd = eventfd(0, EFD_NONBLOCK)};
	char *page = aligned_alloc(4096, 4096);
	int file = open("/export/direct", O_RDWR | O_DIRECT);
	char buf[SC_MSG_MAX];
	unsigned int seed;

	thread_number = counter++ % 4;
	seed = (unsigned int)thread_number;
	while (!stop_threads) {
		size_t at = (size_t)rand_r(&seed) % (CHANNEL / 2) / 4096 * 4096;
		volatile size_t size = at & 4096 ? 4096 : CHANNEL / 2;

		if (sigsetjmp(thread_jump[thread_number], 1))
			continue;
		(void)!pread(file, (void *)(channel + at), size, 0);
		(void)!pwrite(file, (void *)(channel + at), size, 4096);
		ioctl(dev, SC_IOC_KICK, 1 + at / 4096 % info.num_channels);
		ioctl(dev, SC_IOC_DOORBELL, &bell);
		(void)!read(dev, buf, sizeof(buf));
		madvise((void *)(channel + at), 4096, MADV_DONTNEED);
		if (thread_number & 1)
			memcpy(page, (void *)(channel + at), 4096);
	}
	close(bell.fd);
	close(file);
	free(page);
	return NULL;
}

/* The device goes and comes under load, ten times. */
static void check_removal_under_load(void)
{
	const char *name = bound_device();
	pthread_t threads[4];
	char buf[64];
	bool good = true;

	signal(SIGBUS, on_thread_fault);
	for (int round = 0; round < 10 && good; round++) {
		void *window =
		    mmap(NULL, info.window_size, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);

		stop_threads = false;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, use_device, window);
		usleep(50000);
		good &= write_file(DRIVER "/unbind", name);
		usleep(10000);
		stop_threads = true;
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		munmap(window, info.window_size);
		close(dev);
		good &= write_file(DRIVER "/bind", name);
		dev = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		/* A reset device has an empty window. I/O to a hole would stop the disk for good.
		 */
		good &= dev >= 0 && ask(buf, sizeof(buf), "attach") == 2;
	}
	check(good, "unbind under load, ten times");
}

int main(void)
{
	unsigned char *channel;

	check_open();
	check_messages();
	check_doorbells();
	channel = check_window();
	check_removal(channel);
	check_removal_under_load();
	printf("done\n");
	return 0;
}
