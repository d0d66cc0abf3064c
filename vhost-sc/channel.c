/* SPDX-License-Identifier: BSD-3-Clause */
/* channel.c - sealed memory of channels; see channel.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel.h"
#include "config.h"
#include "log.h"

#define HUGE_SIZE (2u << 20)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

/*
 * Has the pages of a memfd taken from a NUMA node. The policy of a shared mapping is the file's: it holds for whoever
 * touches a page first, which for a channel's arena is the application, wherever it runs.
 */
static void prefer_node(int memfd, uint64_t size, int node)
{
	unsigned long mask[SCD_MAX_NODES / (8 * sizeof(long))] = {0};
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	mask[(unsigned)node / (8 * sizeof(long))] = 1ul << ((unsigned)node % (8 * sizeof(long)));
	/* one bit more: the kernel takes the number for that of the first bit that is not looked at */
	if (map == MAP_FAILED ||
	    syscall(SYS_mbind, map, size, MPOL_PREFERRED, mask, SCD_MAX_NODES + 1, 0))
		log_peer(LOG_LEVEL_WARN, "memory is not asked from NUMA node %d: %s", node,
			 strerror(errno));
	if (map != MAP_FAILED)
		munmap(map, size);
}

int memfd_sealed(const char *name, uint64_t size, struct memory_kind kind)
{
	unsigned flags =
	    MFD_CLOEXEC | MFD_ALLOW_SEALING | (kind.huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	int err;
	int fd;

	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags); /* a kernel that does not know the flag */
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		err = -errno;
		close(fd);
		return err;
	}
	if (kind.node >= 0)
		prefer_node(fd, size, kind.node);
	return fd;
}

int channel_adopt(struct channel *c, int memfd, const struct sc_layout *l, bool huge)
{
	*c = CHANNEL_NONE;
	/* All of it on huge pages: mapping is what reserves them, so that who maps it next gets
	 * them. */
	c->mapped = huge ? l->size : SC_PAGE;
	c->host = mmap(NULL, c->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (c->host == MAP_FAILED) {
		*c = CHANNEL_NONE;
		return -errno;
	}
	c->memfd = memfd;
	return 0;
}

int channel_create(struct channel *c, const struct sc_layout *l, struct memory_kind kind)
{
	int err;
	int fd;

	*c = CHANNEL_NONE;
	fd = memfd_sealed("vhost-sc-channel", l->size, kind);
	if (fd < 0)
		return fd;
	err = channel_adopt(c, fd, l, kind.huge);
	if (err) {
		close(fd);
		return err;
	}
	c->host->magic = SC_CHANNEL_MAGIC;
	c->host->abi = SC_ABI_VERSION;
	c->host->layout = *l;
	return 0;
}

void channel_label(struct channel *c, uint32_t session, uint32_t slot)
{
	c->host->session = session;
	c->host->slot = slot;
}

void channel_set_incarnation(struct channel *c, uint32_t incarnation)
{
	/* Release: whoever sees the number also sees what the broker did before. */
	atomic_store_explicit((_Atomic uint32_t *)&c->host->incarnation, incarnation,
			      memory_order_release);
}

void channel_close(struct channel *c)
{
	if (c->memfd < 0)
		return;
	munmap(c->host, c->mapped);
	close(c->memfd);
	*c = CHANNEL_NONE;
}

/* Puts zeros where memory has gone. Nothing but async-signal-safe calls: mmap is a plain system
 * call. */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(SC_PAGE - 1);
	size_t len = SC_PAGE;

	if (info->si_code == BUS_ADRERR) {
		if (mmap((void *)page, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
			return;
		/* A piece of a huge page cannot be replaced: replace all of it. */
		page &= ~(uintptr_t)(HUGE_SIZE - 1);
		len = HUGE_SIZE;
		if (mmap((void *)page, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
			return;
	}
	signal(sig, SIG_DFL);
}

void channel_guard_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &sa, NULL);
}
