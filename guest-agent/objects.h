/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * objects.h - files that are mapped by processes of the host.
 *
 * A file that is mapped somewhere has an object: memory of the host's, as long as the file, which all who map it share
 * (vhost-sc/attach.h). It is filled from the file when the first one maps it, and ends when the last mapping is gone. In
 * between both are kept alike:
 *
 *   who writes, truncates, allocates   does so to the file and then to the object
 *   who stores into a mapping          has changed the object alone; it is the truth from then on. So reads of a file that
 *                                      somebody may store to come from the object, and what was stored is written back:
 *                                      at msync, fsync, sync, every few seconds, and at the end
 *
 * What was stored is found by comparing the object with the file, page by page, where the object has any: stores leave no
 * trace that the host could see. It works whoever stored, and however he died.
 *
 * The object's memory is not mapped here: those who may write to the file may shrink it at any time, and a fault would be
 * the VM's end. The broker moves its bytes to and from the agent's own segment, at most SC_OBJECT_IO_MAX at a time, on
 * request (SC_MSG_OBJECT); a short count is all that a shrunk object can do to us.
 *
 * The gate. Calls must not pay for mappings that do not exist. A file's place in gate.covered (gate.stored: somebody may
 * store) tells pollers that it may have an object; only then is the table searched, by a worker. A write that began before
 * its file had an object would miss it; so whoever makes one closes the gate, and waits until all writes that began before
 * are finished: they are counted, each in its poller, by the gate's phase. A poller orders its count before its look at the
 * gate for the compiler alone; the one who closes the gate pays for that with membarrier().
 *
 * Locks: an object's lock is held across calls to the broker and to the file system; workers alone take it (main, which
 * receives the broker's answers, must not). The table's lock guards chains, references and the waiting requests' list.
 */
#ifndef SC_AGENT_OBJECTS_H
#define SC_AGENT_OBJECTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent.h"
#include "handles.h"
#include "poller.h"

struct object;
struct objects;
struct sc_msg_object_done;
struct sc_msg_object_idle;

/* NULL: no memory. */
struct objects *objects_new(struct agent *agent);

/* ---- the gate: pollers ---- */

static inline uint32_t gate_place(uint64_t dev, uint64_t ino)
{
	return (uint32_t)(((ino ^ dev << 7) * 0x9e3779b97f4a7c15ull) >> 56);
}

/* The file may have an object: have a worker write to it. */
static inline bool gate_is_covered(const struct agent *agent, const struct handle *h)
{
	return atomic_load_explicit(&agent->gate.any, memory_order_relaxed) &&
	       atomic_load_explicit(&agent->gate.covered[gate_place(h->dev, h->ino)],
				    memory_order_relaxed);
}

/* Somebody may store into a mapping of the file: have a worker read and sync it. */
static inline bool gate_is_stored(const struct agent *agent, const struct handle *h)
{
	return atomic_load_explicit(&agent->gate.any, memory_order_relaxed) &&
	       atomic_load_explicit(&agent->gate.stored[gate_place(h->dev, h->ino)],
				    memory_order_relaxed);
}

/* A call that is going to change the contents of c->h's file, in its poller: counts it, or says (false) that the file may
 * have an object. storage_finish() ends it by gate_leave(). */
static inline bool gate_enter(struct poller *p, struct call *c)
{
	const struct agent *agent = poller_actor(p)->agent;
	_Atomic uint32_t *changing = poller_changing(p);
	uint32_t phase = atomic_load_explicit(&agent->gate.phase, memory_order_relaxed) & 1;
	uint32_t n = atomic_load_explicit(&changing[phase], memory_order_relaxed);

	if (c->gate)
		return true;
	/* Release: whoever sees a later, lower count sees what the calls did. */
	atomic_store_explicit(&changing[phase], n + 1, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	if (!gate_is_covered(agent, c->h)) {
		c->gate = (uint8_t)(phase + 1);
		return true;
	}
	atomic_store_explicit(&changing[phase], n, memory_order_release);
	return false;
}

static inline void gate_leave(struct poller *p, struct call *c)
{
	_Atomic uint32_t *changing = poller_changing(p);
	uint32_t phase = c->gate - 1u;

	atomic_store_explicit(&changing[phase],
			      atomic_load_explicit(&changing[phase], memory_order_relaxed) - 1,
			      memory_order_release);
}

/* ---- workers ---- */

/*
 * A change of a file by a worker: between these two calls it is done to the file, and, if the result is an object (locked), to
 * that, too.
 */
struct change {
	struct object *o;     /* or NULL: the file has none, or one that is yet to be filled */
	struct object *early; /* that one */
	uint32_t phase;
};
void change_begin(struct agent *agent, uint64_t dev, uint64_t ino, struct change *ch);
/* The same for the file that fd names; O_PATH will do. */
void change_begin_fd(struct agent *agent, int fd, struct change *ch);
void change_end(struct agent *agent, struct change *ch);

/* The object of a file that is not to be changed, locked; NULL: none. Given back by object_leave(). */
struct object *object_enter(struct agent *agent, uint64_t dev, uint64_t ino);
void object_leave(struct agent *agent, struct object *o);

/* With the object locked. 0 or -errno, or bytes. */

/* True if somebody may store. */
bool object_is_stored(const struct object *o);
/* What a read of the file is to return: bytes, 0 at its end. */
ssize_t object_read(struct agent *agent, struct object *o, void *to, size_t len, uint64_t off);
/* These bytes were written to the file. */
void object_written(struct agent *agent, struct object *o, const void *from, size_t len,
		    uint64_t off);
/* The file's content changed from `from` on (up to `to`), or its size: takes it over. */
void object_changed(struct agent *agent, struct object *o, uint64_t from, uint64_t to);
/* Writes back what was stored in a range. */
int object_flush(struct agent *agent, struct object *o, uint64_t from, uint64_t to);

/* Writes back what was stored to any file. 0 or the first -errno. */
int objects_flush_all(struct agent *agent);

/* SC_OP_MAP, SC_OP_MAP_WRITE, SC_OP_MSYNC. */
int64_t work_map(struct actor *a, struct call *c, bool cached);
int64_t work_map_write(struct actor *a, struct call *c, bool cached);
int64_t work_msync(struct actor *a, struct call *c, bool cached);

/* For recovery, before anything is served: an object that is kept, of the file fd (which belongs to it from now on). False: it is
 * not there any more. Waits for the broker's answers, which main receives. */
bool objects_restore(struct agent *agent, int fd, bool writable, const struct sc_kept_object *kept,
		     uint32_t entry);

/* ---- main ---- */

/* The broker's messages. */
void objects_done(struct agent *agent, const struct sc_msg_object_done *m);
void objects_idle(struct agent *agent, const struct sc_msg_object_idle *m);
/* Now and then: has workers write back what is due. */
void objects_tick(struct agent *agent, int64_t now);

#endif
