/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_rings.c - what a call costs between one caller and one poller, without host library and hypervisor.
 *
 *   bench_rings AGENT DIR [CALLER_CPU POLLER_CPU [agent options...]]
 *
 * Starts the agent (loopback) on DIR, plays broker and process, and prints nanoseconds per call for several operations
 * and depths, the best of many short runs (so that a busy machine shows its quiet moments), beside two yardsticks measured in the same run on the same CPUs: the cache-line floor (one
 * line going to and fro between the two) and getppid(). A tool for people, not a test.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vhost-sc/channel.h"
#include "vhost-sc/control.h"
#include "vhost-sc/ops.h"

#define RUNS	  40
#define LIMIT_SEC 120 /* whatever hangs, ends */

#define CHECK(x)                                                                         \
	do {                                                                             \
		if (!(x)) {                                                              \
			fprintf(stderr, "bench_rings: %s (line %d): %s\n", #x, __LINE__, \
				strerror(errno));                                        \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

struct bench {
	int sock;
	pid_t agent;
	struct sc_layout l;
	uint8_t *mem;
	int call, kick;
	struct sc_lane *lane;
	struct sc_slot *slots;
	struct sc_cqe *cqes;
	uint32_t tail, done, depth;
	struct sc_state_header *state;
	bool sleepy; /* the caller sleeps at once */
};

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* ---- yardsticks ---- */

static struct {
	_Alignas(64) _Atomic uint32_t ping;
	_Alignas(64) _Atomic uint32_t pong;
	int cpu;
} floor_lines;

static void *floor_thread(void *arg)
{
	uint32_t last = 0;

	(void)arg;
	pin(floor_lines.cpu);
	while (last != UINT32_MAX) {
		uint32_t now_is = atomic_load_explicit(&floor_lines.ping, memory_order_acquire);

		if (now_is == last)
			continue;
		last = now_is;
		atomic_store_explicit(&floor_lines.pong, last, memory_order_release);
	}
	return NULL;
}

static double measure_floor(int cpu)
{
	pthread_t t;
	double best = 1e9;

	floor_lines.cpu = cpu;
	CHECK(!pthread_create(&t, NULL, floor_thread, NULL));
	for (uint32_t rep = 0, n = 1; rep < RUNS; rep++) {
		int64_t start = now();

		for (int i = 0; i < 2000; i++, n++) {
			atomic_store_explicit(&floor_lines.ping, n, memory_order_release);
			while (atomic_load_explicit(&floor_lines.pong, memory_order_acquire) != n)
				;
		}
		if ((double)(now() - start) / 2000 < best)
			best = (double)(now() - start) / 2000;
	}
	atomic_store(&floor_lines.ping, UINT32_MAX);
	pthread_join(t, NULL);
	return best;
}

static double measure_getppid(void)
{
	double best = 1e9;

	for (int rep = 0; rep < RUNS; rep++) {
		int64_t start = now();

		for (int i = 0; i < 2000; i++)
			syscall(SYS_getppid);
		if ((double)(now() - start) / 2000 < best)
			best = (double)(now() - start) / 2000;
	}
	return best;
}

/* ---- broker ---- */

static int make_memory(size_t size, void **mem)
{
	int fd = memfd_create("bench", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	*mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	CHECK(*mem != MAP_FAILED);
	return fd;
}

static void send_fds(int sock, const void *msg, size_t len, const int *fds, int n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(3 * sizeof(int))];
	} ctl = {0};
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = len};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &ctl,
			   .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
	CHECK(sendmsg(sock, &h, 0) == (ssize_t)len);
}

static void expect(int sock, uint16_t type)
{
	char buf[SC_MSG_MAX];
	struct sc_msg_hdr *h = (struct sc_msg_hdr *)buf;

	do
		CHECK(recv(sock, buf, sizeof(buf), 0) >= (ssize_t)sizeof(*h));
	/* cppcheck-suppress uninitvar ; filled by recv */
	while (h->type != type);
}

static void start_agent(struct bench *b, const char *program, const char *dir, const char *cpu,
			char **more)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char *argv[64] = {(char *)program, "--loopback",  addr.sun_path, "--root",
			  (char *)dir,	   "--log-level", "warning"};
	int n = 7, srv = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/bench-rings.%d", getpid());
	CHECK(bind(srv, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(srv, 1) == 0);
	argv[n++] = "--pin";
	argv[n++] = (char *)cpu;
	while (*more && n < 62)
		argv[n++] = *more++;
	b->agent = fork();
	if (!b->agent) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execv(program, argv);
		_exit(1);
	}
	b->sock = accept(srv, NULL, NULL);
	CHECK(b->sock >= 0);
	unlink(addr.sun_path);
	close(srv);
}

static void attach(struct bench *b)
{
	struct sc_msg_start start = {.h = {SC_MSG_START, 0, sizeof(start), 1, 0},
				     .incarnation = 1,
				     .abi = SC_ABI_VERSION,
				     .epoch = 1,
				     .state_size = SC_STATE_DEFAULT};
	struct sc_msg_attach at = {.h = {SC_MSG_ATTACH, 0, sizeof(at), 2, 1},
				   .session = 1,
				   .process = 1,
				   .pid = 1,
				   .uid = geteuid(),
				   .gid = getegid()};
	void *mem;
	int fd, fds[3];

	expect(b->sock, SC_MSG_HELLO);
	fd = make_memory(SC_STATE_DEFAULT, &mem);
	b->state = mem;
	send_fds(b->sock, &start, sizeof(start), &fd, 1);
	CHECK(sc_layout_init(&b->l, SC_DEFAULT_CHANNEL, SC_DEFAULT_LANES, SC_DEFAULT_ENTRIES) == 0);
	at.layout = b->l;
	fds[0] = make_memory(b->l.size, &mem);
	fds[1] = b->call = eventfd(0, EFD_NONBLOCK);
	fds[2] = b->kick = eventfd(0, EFD_NONBLOCK);
	b->mem = mem;
	send_fds(b->sock, &at, sizeof(at), fds, 3);
	expect(b->sock, SC_MSG_ATTACHED);
	b->lane = (struct sc_lane *)(b->mem + b->l.lanes_off);
	b->slots = (struct sc_slot *)(b->mem + b->l.slots_off);
	b->cqes = (struct sc_cqe *)(b->mem + b->l.cqes_off);
	b->depth = 256;
	b->lane->depth_log2 = 8;
	((struct sc_channel_host *)b->mem)->lanes[0] = 1;
	__atomic_store_n(&((struct sc_channel_host *)b->mem)->lanes_gen, 1, __ATOMIC_RELEASE);
}

/* ---- process ---- */

static inline struct sc_slot *next_slot(struct bench *b)
{
	return &b->slots[b->tail++ & (b->depth - 1)];
}

static inline void publish(struct bench *b)
{
	struct sc_channel_guest *g = (struct sc_channel_guest *)(b->mem + SC_PAGE);
	uint64_t one = 1;

	__atomic_store_n(&b->lane->tail, b->tail, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	if (__atomic_load_n(&g->asleep, __ATOMIC_RELAXED))
		CHECK(write(b->call, &one, 8) == 8);
}

static inline void wait_all(struct bench *b)
{
	uint64_t n;

	while (__atomic_load_n(&b->lane->done, __ATOMIC_ACQUIRE) != b->tail) {
		struct pollfd p = {.fd = b->kick, .events = POLLIN};

		if (!b->sleepy)
			continue;
		__atomic_store_n(&b->lane->host_asleep, 1, __ATOMIC_RELAXED);
		atomic_thread_fence(memory_order_seq_cst);
		if (__atomic_load_n(&b->lane->done, __ATOMIC_ACQUIRE) != b->tail) {
			poll(&p, 1, 1000);
			if (read(b->kick, &n, 8) < 0)
				CHECK(errno == EAGAIN);
		}
		__atomic_store_n(&b->lane->host_asleep, 0, __ATOMIC_RELAXED);
	}
	b->done = b->tail;
}

static int64_t last_res(struct bench *b)
{
	return b->cqes[(b->tail - 1) & (b->depth - 1)].res;
}

static int64_t call(struct bench *b, struct sc_slot s)
{
	*next_slot(b) = s;
	publish(b);
	wait_all(b);
	return last_res(b);
}

struct result {
	double ns;
	double poller, worker, self; /* CPU, as parts of one */
};

static uint64_t self_cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Best of RUNS: `total` calls in all like *s, `depth` per publication. */
static struct result measure(struct bench *b, const struct sc_slot *s, int depth, int total,
			     int64_t want)
{
	struct result r = {.ns = 1e12};
	int64_t begin;
	uint64_t p, w, c;

	usleep(600000); /* the agent's counters are written twice a second */
	p = b->state->poller_ns;
	w = b->state->worker_ns;
	c = self_cpu();
	begin = now();
	total = total / RUNS < depth ? depth : total / RUNS;
	for (int rep = 0; rep < RUNS; rep++) {
		int64_t start = now();
		double ns;

		for (int i = 0; i < total / depth; i++) {
			for (int j = 0; j < depth; j++)
				*next_slot(b) = *s;
			publish(b);
			wait_all(b);
			if (last_res(b) != want) {
				fprintf(stderr, "bench_rings: op %d: %lld\n", s->op,
					(long long)last_res(b));
				exit(1);
			}
		}
		ns = (double)(now() - start) / (double)(total - total % depth); /* whole batches */
		if (ns < r.ns)
			r.ns = ns;
	}
	begin = now() - begin;
	r.self = (double)(self_cpu() - c) / (double)begin;
	usleep(600000);
	r.poller = (double)(b->state->poller_ns - p) / (double)begin;
	r.worker = (double)(b->state->worker_ns - w) / (double)begin;
	return r;
}

static void show(const char *name, int depth, struct result r, double floor_ns, double ppid)
{
	printf("%-22s depth %3d  %8.0f ns  %6.1f floors  %6.1f getppid   CPU: caller %3.0f %%, "
	       "poller %3.0f %%, workers %3.0f %%\n",
	       name, depth, r.ns, r.ns / floor_ns, r.ns / ppid, 100 * r.self, 100 * r.poller,
	       100 * r.worker);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	const char *poller_cpu = argc > 4 ? argv[4] : "1";
	uint32_t path, data;
	double floor_ns, ppid;
	int64_t root, h, hw;
	char *none = NULL;

	if (argc < 3) {
		fprintf(
		    stderr,
		    "usage: bench_rings AGENT DIR [CALLER_CPU POLLER_CPU [agent options...]]\n");
		return 2;
	}
	alarm(LIMIT_SEC);
	start_agent(&b, argv[1], argv[2], poller_cpu, argc > 5 ? argv + 5 : &none);
	attach(&b);
	pin(argc > 3 ? atoi(argv[3]) : 0); /* not before: the agent would inherit it */
	floor_ns = measure_floor(atoi(poller_cpu));
	ppid = measure_getppid();
	printf("floor (a line to and fro) %.0f ns, getppid %.0f ns\n", floor_ns, ppid);
	path = b.l.arena_off;
	data = b.l.pool_off;
	root = call(&b, (struct sc_slot){.op = SC_OP_ROOT});
	CHECK(root > 0);
	memcpy(b.mem + path, "bench.data", 10);
	hw = call(&b, (struct sc_slot){.op = SC_OP_OPEN,
				       .handle = (uint64_t)root,
				       .buf = path,
				       .len = 10,
				       .arg0 = O_RDWR | O_CREAT | (uint64_t)0644 << 32,
				       .arg2 = 1});
	CHECK(hw > 0);
	for (uint32_t i = 0; i < 64; i++)
		CHECK(call(&b, (struct sc_slot){.op = SC_OP_WRITE,
						.handle = (uint64_t)hw,
						.buf = data,
						.len = 65536,
						.off = i * 65536}) == 65536);
	h = call(
	    &b, (struct sc_slot){
		    .op = SC_OP_OPEN, .handle = (uint64_t)root, .buf = path, .len = 10, .arg2 = 1});
	CHECK(h > 0);

	struct sc_slot nop = {.op = SC_OP_NOP, .arg0 = 7};
	struct sc_slot rd = {.op = SC_OP_READ, .handle = (uint64_t)h, .buf = data, .len = 4096};
	struct sc_slot rd64 = {.op = SC_OP_READ, .handle = (uint64_t)h, .buf = data, .len = 65536};
	struct sc_slot rd1m = {
	    .op = SC_OP_READ, .handle = (uint64_t)h, .buf = data, .len = 1 << 20};
	struct sc_slot wr = {.op = SC_OP_WRITE, .handle = (uint64_t)hw, .buf = data, .len = 4096};
	struct sc_slot wr64 = {
	    .op = SC_OP_WRITE, .handle = (uint64_t)hw, .buf = data, .len = 65536};
	struct sc_slot st = {.op = SC_OP_STAT,
			     .handle = (uint64_t)root,
			     .buf = path,
			     .len = 10,
			     .buf2 = data,
			     .len2 = 144,
			     .arg1 = 0xfff};
	struct sc_slot fst = {.op = SC_OP_STAT,
			      .handle = (uint64_t)h,
			      .arg0 = AT_EMPTY_PATH,
			      .buf2 = data,
			      .len2 = 144,
			      .arg1 = 0xfff};
	struct sc_slot acc = {
	    .op = SC_OP_CHMOD, .handle = (uint64_t)root, .buf = path, .len = 10, .arg1 = 0644};

	for (int d = 1; d <= 128; d *= d == 1 ? 4 : 2)
		show("NOP", d, measure(&b, &nop, d, 200000, 7), floor_ns, ppid);
	show("READ 4 KiB cached", 1, measure(&b, &rd, 1, 50000, 4096), floor_ns, ppid);
	show("READ 4 KiB cached", 32, measure(&b, &rd, 32, 100000, 4096), floor_ns, ppid);
	show("READ 64 KiB cached", 1, measure(&b, &rd64, 1, 5000, 65536), floor_ns, ppid);
	show("READ 1 MiB cached", 1, measure(&b, &rd1m, 1, 300, 1 << 20), floor_ns, ppid);
	show("WRITE 4 KiB", 1, measure(&b, &wr, 1, 20000, 4096), floor_ns, ppid);
	show("WRITE 4 KiB", 32, measure(&b, &wr, 32, 50000, 4096), floor_ns, ppid);
	show("WRITE 64 KiB", 1, measure(&b, &wr64, 1, 3000, 65536), floor_ns, ppid);
	show("STAT path", 1, measure(&b, &st, 1, 50000, 0), floor_ns, ppid);
	show("STAT handle", 1, measure(&b, &fst, 1, 50000, 0), floor_ns, ppid);
	show("CHMOD (worker)", 1, measure(&b, &acc, 1, 20000, 0), floor_ns, ppid);
	b.sleepy = true;
	show("NOP, caller sleeps", 1, measure(&b, &nop, 1, 20000, 7), floor_ns, ppid);
	kill(b.agent, SIGTERM);
	waitpid(b.agent, NULL, 0);
	return 0;
}
