/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.h - what the command line fixed. Filled once by main.c, read-only afterwards.
 */
#ifndef VHOST_SC_CONFIG_H
#define VHOST_SC_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vhost-sc/control.h>

#include "channel.h"

#define SCD_VERSION "0.1"

/* vhost-user names a ring with eight bits: 256 rings, two of which are controlq and eventq. */
#define SCD_MAX_CHANNELS 254
#define SCD_MAX_NODES	 1024 /* NUMA nodes, as the kernel at most has */

struct config {
	const char *name;	  /* the domain's */
	uint32_t role;		  /* SC_ROLE_* */
	char dir[256];		  /* RUNDIR/NAME */
	const char *vhost_socket; /* path; NULL: dir/vhost.sock */
	bool loopback;		  /* agent.sock exists instead of vhost.sock */

	uint32_t channels;
	uint64_t window_size; /* bytes */
	uint64_t slot_size;   /* bytes; a channel fills its slot */
	struct sc_layout layout;
	struct memory_kind memory; /* of channels */

	uid_t *allow_users; /* who may attach; both lists empty: everybody */
	size_t nallow_users;
	gid_t *allow_groups;
	size_t nallow_groups;
	uint32_t max_per_user; /* channels; root is not limited */
	mode_t socket_mode;    /* of attach.sock */
	uint32_t deadline_ms;  /* told to processes */
	uint32_t detach_ms;    /* the agent may take so long to let go of a channel */
	uint32_t
	    hang_ms; /* an agent that is silent so long with calls pending hangs; 0: not looked for */
	/* own segments that are kept (state.h), bytes, powers of two; retain: 0: there is no log */
	uint64_t state_size;
	uint64_t retain_size;

	const char *log_file;
	const char *pidfile;
	bool daemonize;

	char **argv;	/* as given, for the restart */
	char exe[4096]; /* this program's path, for the restart */
};

#endif
