/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lwipopts.h - how lwIP is built for the network agent: raw API, no threads, no locks, no limits but memory. What bounds memory are
 * the agent's own limits: sockets of a session, sizes of rings, frames waiting for ARP.
 */
#ifndef SC_LWIPOPTS_H
#define SC_LWIPOPTS_H

#define NO_SYS		     1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET	     0
#define LWIP_NETCONN	     0
#define LWIP_TIMERS	     1
#define LWIP_SINGLE_NETIF    0

/* Memory: libc's. */
#define MEM_LIBC_MALLOC	  1
#define MEMP_MEM_MALLOC	  1
#define MEM_ALIGNMENT	  8
#define MEM_SIZE	  (64u << 20)
#define MEMP_NUM_TCP_SEG  65535
#define PBUF_POOL_BUFSIZE 2048
#define ETH_PAD_SIZE	  0

/* Protocols. */
#define LWIP_ETHERNET			1
#define LWIP_ARP			1
#define ARP_TABLE_SIZE			127
#define ARP_QUEUEING			1
#define ARP_QUEUE_LEN			101 /* datagrams that wait for one address, as many as with Linux */
#define ETHARP_SUPPORT_STATIC_ENTRIES	0
#define ETHARP_TRUST_IP_MAC		0
#define LWIP_IPV4			1
#define LWIP_IPV6			1
#define LWIP_ICMP			1
#define LWIP_ICMP6			1
#define LWIP_IGMP			1
#define LWIP_IPV6_MLD			1
#define LWIP_IPV6_AUTOCONFIG		1
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS	1
#define LWIP_ND6_NUM_NEIGHBORS		127
#define LWIP_ND6_NUM_DESTINATIONS	127
#define LWIP_ND6_QUEUEING		1
#define LWIP_ND6_TCP_REACHABILITY_HINTS 1
#define LWIP_IPV6_FORWARD		0
#define IPV6_FRAG_COPYHEADER		1 /* pointers have 8 bytes */
#define LWIP_DHCP			1
#define LWIP_DHCP_CHECK_LINK_UP		1
#define LWIP_DHCP_PROVIDE_DNS_SERVERS	0
#define LWIP_DNS			0
#define LWIP_RAW			1
#define LWIP_UDP			1
#define LWIP_TCP			1
#define LWIP_MULTICAST_TX_OPTIONS	1
#define IP_REASSEMBLY			1
#define IP_REASS_MAX_PBUFS		256
#define IP_FRAG				1
#define IP_SOF_BROADCAST		1
#define IP_SOF_BROADCAST_RECV		1
#define IP_DEFAULT_TTL			64
#define LWIP_BROADCAST_PING		0
#define LWIP_MULTICAST_PING		0
#define SO_REUSE			1
#define SO_REUSE_RXTOALL		1
#define LWIP_NETBUF_RECVINFO		0

/* The domain's own addresses reach itself. */
#define LWIP_HAVE_LOOPIF		   1
#define LWIP_NETIF_LOOPBACK		   1
#define LWIP_LOOPBACK_MAX_PBUFS		   4096
#define LWIP_NETIF_LOOPBACK_MULTITHREADING 0
#define LWIP_NETIF_STATUS_CALLBACK	   1
#define LWIP_NETIF_LINK_CALLBACK	   1
#define LWIP_NETIF_HOSTNAME		   1
#define LWIP_CHECKSUM_CTRL_PER_NETIF	   1

/* TCP. A connection's window and queue are bounded by its own rings; these are the upper bounds. */
#define TCP_MSS			   8960
#define LWIP_WND_SCALE		   1
#define TCP_RCV_SCALE		   5
#define TCP_WND			   (1u << 20)
#define TCP_SND_BUF		   (1u << 20)
#define TCP_SND_QUEUELEN	   16384
#define TCP_SNDLOWAT		   1024
#define TCP_SNDQUEUELOWAT	   16
#define TCP_WND_UPDATE_THRESHOLD   2920
#define TCP_OVERSIZE		   0
#define TCP_QUEUE_OOSEQ		   1
#define LWIP_TCP_SACK_OUT	   1
#define LWIP_TCP_MAX_SACK_NUM	   4
#define LWIP_TCP_TIMESTAMPS	   0
#define LWIP_TCP_KEEPALIVE	   1
#define TCP_LISTEN_BACKLOG	   1
#define TCP_DEFAULT_LISTEN_BACKLOG 0xff
#define TCP_MAXRTX		   12
#define TCP_SYNMAXRTX		   6
#define TCP_MSL			   30000UL /* TIME-WAIT: 60 s, as Linux */
/* Clocks as Linux has them: ACKs are delayed for 40 ms at most, a lost segment is sent again after 240 ms at least, the
 * first SYN after 1 s. */
#define TCP_TMR_INTERVAL  40
#define LWIP_TCP_RTO_TIME 1000

/* What is kept of a connection hangs on its pcb; segments are looked at before they leave (net/kept.h). */
#define LWIP_HOOK_FILENAME	  "lwiphooks.h"
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1

/* Counters, which `scctl net` shows. */
#define LWIP_STATS	   1
#define LWIP_STATS_LARGE   1
#define MEM_STATS	   0
#define MEMP_STATS	   0
#define SYS_STATS	   0
#define LWIP_STATS_DISPLAY 0

#define LWIP_PERF 0

#endif
