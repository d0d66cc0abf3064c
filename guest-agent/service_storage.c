/* SPDX-License-Identifier: BSD-3-Clause */
/* service_storage.c - the storage agent: how its parts (handles, locks, operations) fit into the ops table of service.h. */
#include "service.h"

#include "handles.h"
#include "hot.h"
#include "keep.h"
#include "locks.h"
#include "log.h"
#include "objects.h"
#include "retain.h"
#include "session.h"
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define HANDLES_MAX	 1000000u
#define BYTES_PER_HANDLE 8192u
#define FDS_RESERVED	 (512u + HOT_MAX_MAPS) /* descriptors that are not open files of callers */

static const char usage[] =
    "Usage: sc-agent (--device PATH | --loopback SOCKET) --root DIR [options]\n"
    "Serves the calls of a service domain: in its guest through /dev/sc, or as a process of the "
    "host\n"
    "(a loopback domain: no isolation).\n"
    "\n"
    "  --device PATH      the guest driver's device, /dev/sc\n"
    "  --loopback SOCKET  the broker's agent.sock\n"
    "  --root DIR         directory that is served\n"
    "  --role storage     what is served (default: storage)\n"
    "  --pollers N        threads that poll for requests, 1..16 (default: 1)\n"
    "  --pin CPU[,CPU..]  CPU of each poller (default: not pinned)\n"
    "  --workers N        threads for calls that may block, 1..64 (default: 8)\n"
    "  --max-spin-us N    longest spin of a poller without work, 1..10000 (default: the broker's, "
    "or 50)\n"
    "  --log-level LEVEL  error, warning, info (default) or debug\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 told to end, and all is synced; 1 a problem, which stderr names; 2 wrong "
    "usage.\n";

static const struct option options[] = {
    {"root", required_argument, NULL, 'r'},
    {NULL, 0, NULL, 0},
};

static const char *take_option(struct options *o, int val, char *value)
{
	o->root = value;
	return NULL;
}

static const char *check_options(const struct options *o)
{
	return o->root ? NULL : "--root DIR";
}

/* The kernel's setting of this name below /proc/sys is not 0. */
static bool sysctl_is_set(const char *name)
{
	char path[128], value = '0';
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value != '0';
}

/* Opens what is served, and learns what the machine has. */
static bool prepare(struct agent *agent)
{
	struct stat st;

	hot_init();
	agent->root_fd = open(agent->opt.root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	agent->sync_fd = open(agent->opt.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (agent->root_fd < 0 || agent->sync_fd < 0 || fstat(agent->root_fd, &st) < 0) {
		log_error("cannot open the root directory %s: %m", agent->opt.root);
		return false;
	}
	agent->root_dev = st.st_dev;
	agent->root_ino = st.st_ino;
	if (access("/proc/self/fd", X_OK) < 0) {
		log_error("/proc is needed and not mounted: %m");
		return false;
	}
	agent->protected_links = sysctl_is_set("fs/protected_symlinks");
	return true;
}

/* How many open files fit into memory: each pins two or three kernel objects, and a caller may hold as many as he can. */
static uint32_t handles_by_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	uint64_t n = pages > 0 ? (uint64_t)pages * SC_PAGE / BYTES_PER_HANDLE : HANDLES_MAX;

	return n < HANDLES_MAX ? (uint32_t)n : HANDLES_MAX;
}

/* Raises the limit of open files as far as it goes. Returns how many handles there may be. */
static uint32_t raise_limits(void)
{
	struct rlimit rl = {.rlim_cur = HANDLES_MAX, .rlim_max = HANDLES_MAX};
	uint32_t max = handles_by_memory();

	if (setrlimit(RLIMIT_NOFILE, &rl) < 0) { /* not privileged: as far as allowed */
		if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
			return 512;
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	if (rl.rlim_cur <= 2 * FDS_RESERVED)
		return (uint32_t)rl.rlim_cur / 2;
	return rl.rlim_cur - FDS_RESERVED < max ? (uint32_t)rl.rlim_cur - FDS_RESERVED : max;
}

/* Makes the tables. */
static bool make_tables(struct agent *agent)
{
	uint32_t max = raise_limits(),
		 one = max - max / 4; /* a single session leaves some to the others */

	agent->handles = handles_new(max, agent->incarnation);
	agent->sessions = sessions_new(one < AGENT_SESSION_HANDLES ? one : AGENT_SESSION_HANDLES);
	agent->locks = locks_new(agent);
	agent->objects = objects_new(agent);
	if (agent->handles)
		handles_serve(agent->handles, agent);
	if (agent->handles && agent->sessions && agent->locks && agent->objects && keep_init(agent))
		return true;
	log_error("not enough memory for the tables");
	return false;
}

static void describe(const struct agent *agent, char *text, size_t size)
{
	snprintf(text, size, "%s", agent->opt.root);
}

static void resumed(struct agent *agent)
{
	keep_resumed(agent);
	retain_resumed(agent);
}

static void cancel_session(struct agent *agent, struct session *s)
{
	locks_cancel_session(agent->locks, s->id);
}

static void process_gone(struct agent *agent, uint32_t process)
{
	locks_process_gone(agent->locks, process);
}

static void synced(struct agent *agent, uint32_t seq)
{
	locks_synced(agent->locks, seq);
}

static bool sync_wanted(struct agent *agent, uint32_t seq)
{
	return locks_sync_wanted(agent->locks, seq);
}

static int64_t expire(struct agent *agent, int64_t now)
{
	return locks_expire(agent->locks, now);
}

static int sync_root(struct agent *agent)
{
	int err = objects_flush_all(agent), synced;

	if (err)
		log_error("what was stored into mapped files could not be written: %s",
			  strerror(-err));
	synced = retain_is_on(agent) ? retain_sync(agent) : syncfs(agent->sync_fd) < 0 ? -errno : 0;
	if (!synced)
		return err;
	log_error("syncing %s: %s", agent->opt.root, strerror(-synced));
	return synced;
}

static void beat(struct agent *agent)
{
	objects_tick(agent, now_ns());
}

static uint32_t count_open(struct agent *agent)
{
	return handles_count(agent->handles);
}

const struct service agent_service = {
    .program = "sc-agent",
    .usage = usage,
    .role = SC_ROLE_STORAGE,
    .max_pollers = AGENT_MAX_POLLERS,
    .options = options,
    .option = take_option,
    .check_options = check_options,
    .prepare = prepare,
    .make_tables = make_tables,
    .recover = keep_recover,
    .resumed = resumed,
    .describe = describe,
    .begin = storage_start,
    .work = storage_work,
    .ring_done = storage_ring_done,
    .moved = storage_moved,
    .finish = storage_finish,
    .published = retain_published,
    .pending_lost = keep_is_lost,
    .start_worker = actor_own_umask,
    .cancel_session = cancel_session,
    .end_session = storage_end_session,
    .release = storage_release,
    .process_gone = process_gone,
    .synced = synced,
    .sync_wanted = sync_wanted,
    .expire = expire,
    .object_done = objects_done,
    .object_idle = objects_idle,
    .beat = beat,
    .sync = sync_root,
    .count_open = count_open,
};
