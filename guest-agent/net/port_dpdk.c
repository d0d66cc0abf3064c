/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_dpdk.c - a NIC that DPDK drives from this process, through VFIO behind the VM's virtual IOMMU.
 *
 * The kernel's driver gives the NIC up first: it is unbound and bound to vfio-pci. DPDK runs without huge pages and with virtual
 * addresses as the NIC sees them (the IOMMU translates), so a guest needs nothing prepared.
 *
 * A received frame is passed on where the NIC put it, as a pbuf that lies in the mbuf's private area and gives the mbuf back when it
 * is freed. A sent one is copied into an mbuf: its bytes lie in a process's channel, which is none of the NIC's memory.
 *
 * Sleeping: the NIC's receive interrupt is on only while the poller sleeps (arm()).
 */
#include "port.h"

#include "../log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lwip/pbuf.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_version.h>

#define PCI_DIR	    "/sys/bus/pci/devices"
#define MEMORY_MB   "96"
#define MBUFS	    8191u /* frames that the stack may hold, and those in the NIC's rings */
#define RING	    512u
#define BURST	    32u
#define FRAME_EXTRA 22u /* Ethernet header, two VLAN tags */
#define LINK_TRY_US 100000

struct dpdk {
	struct port port; /* first */
	uint16_t id;
	bool armed;
	bool registered; /* the poller's thread is known to DPDK */
	struct rte_mempool *pool;
	struct rte_mbuf *tx[BURST];
	uint16_t ntx;
};

/* In an mbuf's private area. */
struct frame {
	struct pbuf_custom pbuf; /* first */
	struct rte_mbuf *mbuf;
};

/* ---- receiving ---- */

static void frame_free(struct pbuf *p)
{
	rte_pktmbuf_free(((struct frame *)p)->mbuf);
}

static struct pbuf *frame_of(struct rte_mbuf *m)
{
	struct frame *f = rte_mbuf_to_priv(m);

	f->pbuf.custom_free_function = frame_free;
	f->mbuf = m;
	return pbuf_alloced_custom(PBUF_RAW, rte_pktmbuf_data_len(m), PBUF_REF, &f->pbuf,
				   rte_pktmbuf_mtod(m, void *), rte_pktmbuf_data_len(m));
}

static void disarm(struct dpdk *d)
{
	uint64_t n;

	if (!d->armed)
		return;
	d->armed = false;
	rte_eth_dev_rx_intr_disable(d->id, 0);
	if (read(d->port.fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_debug("reading the NIC's interrupt: %m");
}

static uint32_t dpdk_receive(struct port *t, uint32_t budget, port_input_fn input, void *arg)
{
	struct dpdk *d = (struct dpdk *)t;
	struct rte_mbuf *m[BURST];
	uint32_t total = 0;

	if (!d->registered) {
		d->registered = true;
		if (rte_thread_register() < 0) /* only costs the caches of the buffer pool */
			log_debug("DPDK does not take the poller's thread: %s",
				  rte_strerror(rte_errno));
	}
	disarm(d);
	while (total < budget) {
		uint16_t n = rte_eth_rx_burst(d->id, 0, m, BURST);

		for (uint16_t i = 0; i < n; i++) {
			t->rx_frames++;
			t->rx_bytes += rte_pktmbuf_data_len(m[i]);
			if (m[i]->nb_segs == 1) {
				input(arg, frame_of(m[i]));
			} else {
				t->rx_dropped++;
				rte_pktmbuf_free(m[i]);
			}
		}
		total += n;
		if (n < BURST)
			break;
	}
	return total;
}

static bool dpdk_arm(struct port *t)
{
	struct dpdk *d = (struct dpdk *)t;

	if (t->fd < 0)
		return true; /* the NIC cannot wake us: no sleep */
	if (!d->armed && rte_eth_dev_rx_intr_enable(d->id, 0) < 0)
		return true;
	d->armed = true;
	return rte_eth_rx_queue_count(d->id, 0) > 0;
}

/* ---- sending ---- */

static void dpdk_flush(struct port *t)
{
	struct dpdk *d = (struct dpdk *)t;
	uint16_t sent = rte_eth_tx_burst(d->id, 0, d->tx, d->ntx);

	t->tx_frames += sent;
	for (; sent < d->ntx; sent++) {
		t->tx_dropped++;
		rte_pktmbuf_free(d->tx[sent]);
	}
	d->ntx = 0;
}

static bool dpdk_send(struct port *t, const struct pbuf *p)
{
	struct dpdk *d = (struct dpdk *)t;
	struct rte_mbuf *m = rte_pktmbuf_alloc(d->pool);
	char *to = m ? rte_pktmbuf_append(m, p->tot_len) : NULL;

	if (!to) {
		rte_pktmbuf_free(m);
		t->tx_dropped++;
		return false;
	}
	pbuf_copy_partial(p, to, p->tot_len, 0);
	t->tx_bytes += p->tot_len;
	d->tx[d->ntx++] = m;
	if (d->ntx == BURST)
		dpdk_flush(t);
	return true;
}

static bool dpdk_link_up(struct port *t)
{
	struct rte_eth_link link;

	return rte_eth_link_get_nowait(((struct dpdk *)t)->id, &link) == 0 &&
	       link.link_status == RTE_ETH_LINK_UP;
}

static const struct port_ops dpdk_ops = {
    .name = "dpdk",
    .receive = dpdk_receive,
    .send = dpdk_send,
    .flush = dpdk_flush,
    .link_up = dpdk_link_up,
    .arm = dpdk_arm,
};

/* ---- finding and binding the NIC ---- */

/* Writes text into DEVICE/FILE of sysfs. 0 or -errno. */
static int write_sys(const char *pci, const char *file, const char *text)
{
	char path[256];
	int fd, err = 0;

	if (pci)
		snprintf(path, sizeof(path), PCI_DIR "/%s/%s", pci, file);
	else
		snprintf(path, sizeof(path), "/sys/bus/pci/%s", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static bool is_nic(const char *pci)
{
	char path[256], text[16] = "";
	FILE *f;

	snprintf(path, sizeof(path), PCI_DIR "/%.12s/class", pci);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	return !strncmp(text, "0x0200", 6);
}

/* The address of the NIC that is meant: the named one, or the only one. False after a log message. */
static bool find_nic(const char *wish, char *pci, size_t size)
{
	DIR *dir = opendir(PCI_DIR);
	unsigned found = 0;

	for (const struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
		if (e->d_name[0] == '.' || !is_nic(e->d_name))
			continue;
		if (strcmp(wish, "auto") && strcmp(wish, e->d_name))
			continue;
		snprintf(pci, size, "%.12s", e->d_name);
		found++;
	}
	if (dir)
		closedir(dir);
	if (found == 1)
		return true;
	if (!found)
		log_error("no NIC %s%s here: the VM needs one (scctl define --tap or --pci)",
			  strcmp(wish, "auto") ? "at " : "", strcmp(wish, "auto") ? wish : "");
	else
		log_error("%u NICs here: name one with --pci ADDRESS", found);
	return false;
}

/* Takes the NIC from its kernel driver and gives it to vfio-pci. False after a log message. */
static bool bind_nic(const char *pci)
{
	char path[256];
	int err;

	snprintf(path, sizeof(path), PCI_DIR "/%s/iommu_group", pci);
	if (access(path, F_OK) < 0) {
		log_error("the NIC %s has no IOMMU group: the VM needs a virtual IOMMU (-device "
			  "intel-iommu) and its kernel "
			  "intel_iommu=on",
			  pci);
		return false;
	}
	err = write_sys(pci, "driver_override", "vfio-pci");
	if (!err)
		write_sys(pci, "driver/unbind", pci); /* it may have none */
	if (!err)
		err = write_sys(NULL, "drivers_probe", pci);
	snprintf(path, sizeof(path), PCI_DIR "/%s/driver/module", pci);
	if (err || access(path, F_OK) < 0) {
		log_error("the NIC %s cannot be given to vfio-pci: %s; is the module loaded?", pci,
			  strerror(err ? -err : ENODEV));
		return false;
	}
	return true;
}

/* ---- setting DPDK up ---- */

static bool start_eal(const char *pci)
{
	char *argv[] = {(char *)"sc-agent-net",
			(char *)"--no-shconf",
			(char *)"--no-huge",
			(char *)"-m",
			(char *)MEMORY_MB,
			(char *)"--iova-mode=va",
			(char *)"--no-telemetry",
			(char *)"-l",
			(char *)"0",
			(char *)"--log-level=warning",
			(char *)"-a",
			(char *)pci,
			NULL};
	cpu_set_t cpus;
	int n;

	setenv("RUNTIME_DIRECTORY", "/run", 1); /* where DPDK makes a directory of its own */
	/* DPDK pins the calling thread, whose children inherit that. */
	sched_getaffinity(0, sizeof(cpus), &cpus);
	n = rte_eal_init((int)(sizeof(argv) / sizeof(argv[0])) - 1, argv);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (n < 0)
		log_error("DPDK does not start: %s", rte_strerror(rte_errno));
	return n >= 0;
}

/* Frees of the pool's buffers go through the private area: it is cleared once. */
static void clear_frame(struct rte_mempool *pool, void *arg, void *mbuf, unsigned index)
{
	memset(rte_mbuf_to_priv(mbuf), 0, sizeof(struct frame));
}

static int set_queues(struct dpdk *d, bool interrupts)
{
	struct rte_eth_conf conf = {.intr_conf = {.rxq = interrupts}};
	int err;

	if (d->port.mtu > RTE_ETHER_MTU)
		conf.rxmode.mtu = d->port.mtu;
	err = rte_eth_dev_configure(d->id, 1, 1, &conf);
	if (!err)
		err = rte_eth_rx_queue_setup(d->id, 0, RING, SOCKET_ID_ANY, NULL, d->pool);
	if (!err)
		err = rte_eth_tx_queue_setup(d->id, 0, RING, SOCKET_ID_ANY, NULL);
	return err ? err : rte_eth_dev_start(d->id);
}

static bool start_nic(struct dpdk *d, const char *pci)
{
	struct rte_ether_addr mac;
	int err;

	if (rte_eth_dev_count_avail() != 1) {
		log_error("DPDK has no driver for the NIC %s", pci);
		return false;
	}
	RTE_ETH_FOREACH_DEV(d->id)
	break;
	d->pool = rte_pktmbuf_pool_create(
	    "frames", MBUFS, 256, (sizeof(struct frame) + 63) & ~63u,
	    (uint16_t)(RTE_PKTMBUF_HEADROOM + d->port.mtu + FRAME_EXTRA + 256), SOCKET_ID_ANY);
	if (!d->pool) {
		log_error("no memory for frames: %s", rte_strerror(rte_errno));
		return false;
	}
	rte_mempool_obj_iter(d->pool, clear_frame, NULL);
	err = set_queues(d, true);
	if (err) { /* a NIC without receive interrupts is polled */
		rte_eth_dev_stop(d->id);
		err = set_queues(d, false);
	} else {
		d->port.fd = rte_eth_dev_rx_intr_ctl_q_get_fd(d->id, 0);
	}
	if (err) {
		log_error("the NIC %s does not start: %s", pci, rte_strerror(-err));
		return false;
	}
	/* IPv6 finds neighbours by multicast, and programs join groups: the stack sorts out what it wants. */
	if (rte_eth_allmulticast_enable(d->id) < 0 && rte_eth_promiscuous_enable(d->id) < 0)
		log_warning("the NIC does not take multicast frames: IPv6 will not work");
	if (d->port.fd < 0)
		log_warning("the NIC has no receive interrupts: the poller never sleeps");
	rte_eth_macaddr_get(d->id, &mac);
	memcpy(d->port.mac, mac.addr_bytes, 6);
	return true;
}

struct port *port_open_dpdk(const char *pci, uint16_t mtu)
{
	struct dpdk *d = calloc(1, sizeof(*d));
	char address[32];

	if (!d)
		return NULL;
	d->port.ops = &dpdk_ops;
	d->port.fd = -1;
	d->port.mtu = mtu;
	if (find_nic(pci, address, sizeof(address)) && bind_nic(address) && start_eal(address) &&
	    start_nic(d, address)) {
		log_info("NIC %s, %02x:%02x:%02x:%02x:%02x:%02x, driven by %s", address,
			 d->port.mac[0], d->port.mac[1], d->port.mac[2], d->port.mac[3],
			 d->port.mac[4], d->port.mac[5], rte_version());
		return &d->port;
	}
	free(d);
	return NULL;
}
