/* SPDX-License-Identifier: BSD-3-Clause */
/* reexec.c - the broker's restart; see reexec.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blob.h"
#include "broker.h"
#include "closer.h"
#include "log.h"

#define STATE_ENV     "VHOST_SCD_STATE"
#define STATE_MAGIC   0x31534453u /* "SDS1" */
#define STATE_VERSION 4u	  /* of the order and meaning of what is written below */

void reexec_request(struct broker *b)
{
	if (b->restart)
		return;
	b->restart = true;
	b->restart_due = loop_now() + RESTART_MS;
	loop_at(&b->loop, 0);
}

/* The configuration that the state depends on: a new program line must not differ in it. */
static void put_shape(const struct broker *b, struct blob_out *out)
{
	blob_put_u32(out, b->cfg->channels);
	blob_put_u64(out, b->cfg->slot_size);
	blob_put_u32(out, b->cfg->loopback);
	blob_put_bytes(out, &b->cfg->layout, sizeof(b->cfg->layout));
}

static bool same_shape(const struct broker *b, struct blob_in *in)
{
	struct sc_layout layout;
	bool same = blob_get_u32(in) == b->cfg->channels;

	same &= blob_get_u64(in) == b->cfg->slot_size;
	same &= blob_get_u32(in) == b->cfg->loopback;
	blob_get_bytes(in, &layout, sizeof(layout));
	return same && memcmp(&layout, &b->cfg->layout, sizeof(layout)) == 0;
}

static int save(const struct broker *b, struct blob_out *out)
{
	int err;

	blob_put_u32(out, STATE_MAGIC);
	blob_put_u32(out, STATE_VERSION);
	put_shape(b, out);
	blob_put_fd(out, b->lock_fd);
	blob_put_fd(out, b->ctl.listener.fd);
	blob_put_u64(out, b->started);
	blob_put_u32(out, b->restarts);
	blob_put_u32(out, log_get_level());
	process_save(b, out);
	session_save(b, out);
	segment_save(b, out);
	object_save(b, out);
	client_save(b, out);
	ticket_save(b, out);
	domain_save(b, out);
	err = b->tr->save((struct broker *)(uintptr_t)b, out);
	blob_put_u32(out, STATE_MAGIC);
	return err ? err : out->err;
}

/* The blob as a memfd that will be inherited. Returns it, or -errno. */
static int to_memfd(const struct blob_out *out)
{
	size_t done = 0;
	int fd = memfd_create("vhost-scd-state", 0);

	if (fd < 0)
		return -errno;
	while (done < out->len) {
		ssize_t n = write(fd, out->data + done, out->len - done);

		if (n <= 0) {
			close(fd);
			return -EIO;
		}
		done += (size_t)n;
	}
	return fd;
}

static void give_up(struct broker *b, const char *why)
{
	b->restart = false;
	log_error("restart given up: %s", why);
	client_serve_waiting(b);
}

/* Puts the new program in place of this one. Returns -errno if that fails. */
static int replace(struct broker *b, const struct blob_out *out)
{
	char env[16];
	sigset_t none;
	sigset_t old;
	int err;
	int fd;

	fd = to_memfd(out);
	if (fd < 0)
		return fd;
	snprintf(env, sizeof(env), "%d", fd);
	err = blob_inherit_fds(out, 1);
	if (!err && !setenv(STATE_ENV, env, 1)) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, &old);
		execv(b->cfg->exe, b->cfg->argv);
		err = -errno;
		sigprocmask(SIG_SETMASK, &old, NULL);
	}
	unsetenv(STATE_ENV);
	blob_inherit_fds(out, 0);
	close(fd);
	return err ? err : -ENOMEM;
}

void reexec_try(struct broker *b)
{
	struct blob_out out = {0};
	int err;

	if (session_busy(b) || segment_busy(b) || b->tr->busy(b) || closer_tick(loop_now())) {
		if (loop_now() >= b->restart_due)
			give_up(b, "the guest did not finish what was under way");
		else
			loop_at(&b->loop, b->restart_due);
		return;
	}
	log_info("restarting as %s", b->cfg->exe);
	err = save(b, &out);
	if (!err)
		err = replace(b, &out);
	blob_out_free(&out);
	give_up(b, strerror(-err));
}

bool reexec_pending(void)
{
	return getenv(STATE_ENV) != NULL;
}

static int load(struct broker *b, struct blob_in *in)
{
	int ctl_fd;
	int err;

	if (blob_get_u32(in) != STATE_MAGIC || blob_get_u32(in) != STATE_VERSION ||
	    !same_shape(b, in))
		return -EPROTO;
	b->lock_fd = blob_get_fd(in);
	ctl_fd = blob_get_fd(in);
	b->started = blob_get_u64(in);
	b->restarts = blob_get_u32(in) + 1;
	log_set_level(blob_get_u32(in));
	if (in->err)
		return in->err;
	err = ctl_init(b, ctl_fd);
	if (!err)
		err = process_load(b, in);
	if (!err)
		err = session_load(b, in);
	if (!err)
		err = segment_load(b, in);
	if (!err)
		err = object_load(b, in);
	if (!err)
		err = client_load(b, in);
	if (!err)
		err = ticket_load(b, in);
	if (!err)
		err = domain_load(b, in);
	if (!err)
		err = b->tr->load(b, in);
	if (!err && blob_get_u32(in) != STATE_MAGIC)
		err = -EBADMSG;
	return err ? err : in->err;
}

int reexec_load(struct broker *b)
{
	struct blob_in in = {0};
	struct stat st;
	void *data;
	int err;
	const char *env = getenv(STATE_ENV);
	int fd = env ? (int)strtol(env, NULL, 10) : -1;

	unsetenv(STATE_ENV);
	if (fstat(fd, &st))
		return -errno;
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	in.data = data;
	in.len = (size_t)st.st_size;
	err = load(b, &in);
	munmap(data, in.len);
	close(fd);
	return err;
}
