/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake.h - a broker and an agent inside the test program, to answer the serving layer rightly or maliciously.
 */
#ifndef TESTS_HOSTLIB_FAKE_H
#define TESTS_HOSTLIB_FAKE_H

#include <stdint.h>
#include <vhost-sc/attach.h>
#include <vhost-sc/channel.h>
#include <vhost-sc/ops.h>

#define FAKE_DEADLINE_MS 300u

/* The last channel that was given out, as the agent sees it. */
struct fake_channel {
	uint8_t *base;
	struct sc_layout lay;
	struct sc_channel_host *host;
	struct sc_channel_guest *guest;
	int call;
	int kick;
};
extern struct fake_channel fake;

/*
 * What the agent does with a request. Called on the agent's thread. Returns true if it is to be completed with *c (whose
 * tag is already right), false if nothing is to be written.
 */
typedef int fake_answer(const struct sc_slot *s, struct sc_cqe *c, struct sc_lane *lane,
			uint32_t index);
extern fake_answer *_Atomic fake_agent;

/* Answers sensibly: opens give handle 5, reads give 'r', paths succeed. */
fake_answer fake_good;

/* Starts broker and agent for domain "fake"; sets VHOST_SC_RUNDIR's equivalent. Once. */
void fake_start(void);

/* How many attachments there were. */
extern _Atomic uint32_t fake_attached;
/* What the next attachment is answered: enum sc_attach_status. */
extern _Atomic uint32_t fake_status;
/* The agent's heart stops (0: beats). */
extern _Atomic uint32_t fake_silent;
/* Closes the broker's end of the attachment. */
void fake_hang_up(void);

#endif
