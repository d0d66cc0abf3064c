/* SPDX-License-Identifier: BSD-3-Clause */
/* lwiphooks.h - where lwIP asks the network agent (net/kept.c). */
#ifndef SC_LWIPHOOKS_H
#define SC_LWIPHOOKS_H

#include <stdint.h>

#include "lwip/ip_addr.h"

struct tcp_hdr;
struct tcp_pcb;

/* A segment is about to leave; its header is ready but for the checksum. Adds no options: returns `opts`. */
uint32_t *kept_leaves(struct tcp_hdr *hdr, const struct tcp_pcb *pcb, uint32_t *opts);
/* Initial sequence number of a connection. */
uint32_t kept_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *peer,
		  uint16_t peer_port);

#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(p, hdr, pcb, opts) kept_leaves(hdr, pcb, opts)
#define LWIP_HOOK_TCP_ISN				 kept_isn

#endif
