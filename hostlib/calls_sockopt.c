/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * calls_sockopt.c - setsockopt and getsockopt.
 *
 * Options about waiting, and about what the library knows by itself, are the library's; they lie in the object, where all
 * processes that hold the socket find them. All others are the domain's (SC_OP_SETSOCKOPT). What it does not know is ENOPROTOOPT,
 * and a line with --trace.
 *
 * On a fresh socket an option is set in the kernel's socket, whose answer counts, and kept: if the socket moves to a
 * domain it is set there, too.
 */
#include <linux/in6.h>
#include <netinet/ip.h>
#include <sys/time.h>

#include "calls.h"
#include "trace.h"
#include "net.h"

#define VALUE_MAX 4096u /* bytes of a value that goes to the domain */
#define USEC_MAX  1000000
/* <netinet/in.h> and <linux/in6.h> do not go together */
#define OPT_IP_TOS	  1
#define OPT_IP_TTL	  2
#define OPT_IP_PKTINFO	  8
#define OPT_IP_RECVTTL	  12
#define OPT_IP_RECVTOS	  13
#define OPT_RECVPKTINFO6  49
#define OPT_RECVHOPLIMIT6 51
#define OPT_RECVTCLASS6	  66
#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif

static uint32_t kind_of(const struct sc_file *f)
{
	return __atomic_load_n(&f->kind, __ATOMIC_ACQUIRE);
}

static long not_socket(const struct sc_file *f)
{
	return sc_is_path(f) ? -EBADF : -ENOTSOCK;
}

/* ---- the library's own ---- */

/* A value of int size or more, as the kernel reads it. */
static long int_value(const void *value, uint32_t len, int *out)
{
	if (len < sizeof(*out))
		return -EINVAL;
	memcpy(out, value, sizeof(*out));
	return 0;
}

static long set_timeout(uint64_t *us, const void *value, uint32_t len)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= USEC_MAX)
		return -EDOM;
	if (tv.tv_sec < 0)
		tv = (struct timeval){.tv_usec = 1}; /* as the kernel: it is over at once */
	if (tv.tv_sec > (long)(INT64_MAX / USEC_MAX - 1))
		tv = (struct timeval){0};
	__atomic_store_n(us, (uint64_t)tv.tv_sec * USEC_MAX + (uint64_t)tv.tv_usec,
			 __ATOMIC_RELAXED);
	return 0;
}

/* Which bit of `control` an option is; 0: none. */
static uint32_t control_bit(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_TIMESTAMP ? SC_CONTROL_STAMP : 0;
	if (level == IPPROTO_IP) {
		switch (name) {
		case OPT_IP_PKTINFO:
			return SC_CONTROL_PKTINFO;
		case OPT_IP_RECVTOS:
			return SC_CONTROL_TOS;
		case OPT_IP_RECVTTL:
			return SC_CONTROL_TTL;
		default:
			return 0;
		}
	}
	if (level != IPPROTO_IPV6)
		return 0;
	switch (name) {
	case OPT_RECVPKTINFO6:
		return SC_CONTROL_PKTINFO6;
	case OPT_RECVTCLASS6:
		return SC_CONTROL_TCLASS;
	case OPT_RECVHOPLIMIT6:
		return SC_CONTROL_HOPS;
	default:
		return 0;
	}
}

static long set_control(struct sc_sock_host *h, uint32_t bit, const void *value, uint32_t len)
{
	int v = 0;
	long err = len == 1 ? 0 : int_value(value, len, &v);

	if (len == 1)
		v = *(const uint8_t *)value;
	if (err)
		return err;
	if (v)
		__atomic_fetch_or(&h->control, bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&h->control, ~bit, __ATOMIC_RELAXED);
	return 0;
}

/* 1: not one of the library's. */
static long set_own(struct sc_nsock *s, int level, int name, const void *value, uint32_t len)
{
	struct sc_sock_host *h = sc_sock_host(s);
	uint32_t bit = control_bit(level, name);
	int v;
	long err;

	if (bit)
		return set_control(h, bit, value, len);
	if (level != SOL_SOCKET)
		return 1;
	switch (name) {
	case SO_RCVTIMEO:
	case SO_RCVTIMEO_NEW:
		return set_timeout(&h->rcvtimeo_us, value, len);
	case SO_SNDTIMEO:
	case SO_SNDTIMEO_NEW:
		return set_timeout(&h->sndtimeo_us, value, len);
	case SO_RCVLOWAT:
		err = int_value(value, len, &v);
		if (!err)
			__atomic_store_n(&h->rcvlowat,
					 v < 0 ? INT32_MAX
					 : v   ? (uint32_t)v
					       : 1,
					 __ATOMIC_RELAXED);
		return err;
	case SO_SNDLOWAT:
	case SO_TYPE:
	case SO_DOMAIN:
	case SO_PROTOCOL:
	case SO_ACCEPTCONN:
	case SO_ERROR:
		return -ENOPROTOOPT;
	default:
		return 1;
	}
}

long sc_sockopt_set(struct sc_thread *t, struct sc_file *f, int level, int name, const void *value,
		    uint32_t len)
{
	struct sc_opx x = {.op = SC_OP_SETSOCKOPT,
			   .arg0 = (uint32_t)level,
			   .arg1 = (uint32_t)name,
			   .d1 = {.p = (void *)value, .len = len, .in = 1}};
	long res = set_own(sc_nsock_of(f), level, name, value, len);

	if (res == 1)
		res = sc_net_call(t, f, &x);
	if (res == -ENOPROTOOPT)
		sc_trace_option("setsockopt", level, name);
	return res;
}

static long option_kept(struct sc_thread *t, long result)
{
	struct sc_file *f = sc_fd_any(t, (int)t->native.a[0]);
	uint32_t len = (uint32_t)t->native.a[4];
	struct sc_sockopt *o, **last;

	if (result || !f || kind_of(f) != SC_KIND_FRESH || len > VALUE_MAX)
		return result;
	o = sc_map(sizeof(*o) + len);
	if (!o)
		return result;
	o->level = (int)t->native.a[1];
	o->name = (int)t->native.a[2];
	o->len = len;
	if (sc_copy_from_user(o->value, (const void *)t->native.a[3], len)) {
		sc_unmap(o, sizeof(*o) + len);
		return result;
	}
	for (last = &sc_nsock_of(f)->opts; *last; last = &(*last)->next)
		;
	*last = o;
	return result;
}

long call_setsockopt(struct sc_thread *t, const struct sc_call *c)
{
	uint8_t value[VALUE_MAX];
	struct sc_netchan *nc;
	uint32_t len = (uint32_t)c->a[4];
	long err;

	if (kind_of(c->file) == SC_KIND_FILE)
		return not_socket(c->file);
	if (kind_of(c->file) == SC_KIND_FRESH)
		return sc_native_changed(t, c, option_kept);
	err = sc_net_enter(t, c->file, &nc);
	if (err)
		return err;
	if ((int)len < 0)
		return -EINVAL;
	if (len > VALUE_MAX)
		len = VALUE_MAX;
	if (sc_copy_from_user(value, (const void *)c->a[3], len))
		return -EFAULT;
	return sc_sockopt_set(t, c->file, sc_int(c->a[1]), sc_int(c->a[2]), value, len);
}

/* ---- getsockopt ---- */

/* Gives len bytes of a value to the program, which has told how much room there is. */
static long put_value(const struct sc_call *c, const void *value, uint32_t len)
{
	int room;

	if (sc_copy_from_user(&room, (const void *)c->a[4], sizeof(room)))
		return -EFAULT;
	if (room < 0)
		return -EINVAL;
	if ((uint32_t)room > len)
		room = (int)len;
	if (sc_copy_to_user((void *)c->a[3], value, (size_t)room))
		return -EFAULT;
	return sc_copy_to_user((void *)c->a[4], &room, sizeof(room));
}

static long put_timeout(const struct sc_call *c, uint64_t us)
{
	struct timeval tv = {.tv_sec = (long)(us / USEC_MAX), .tv_usec = (long)(us % USEC_MAX)};

	return put_value(c, &tv, sizeof(tv));
}

/* 1: not one of the library's. */
static long get_own(const struct sc_call *c, struct sc_nsock *s, int level, int name)
{
	struct sc_sock_host *h = sc_sock_host(s);
	uint32_t bit = control_bit(level, name);
	int v;

	if (bit) {
		v = (__atomic_load_n(&h->control, __ATOMIC_RELAXED) & bit) != 0;
		return put_value(c, &v, sizeof(v));
	}
	if (level != SOL_SOCKET)
		return 1;
	switch (name) {
	case SO_RCVTIMEO:
	case SO_RCVTIMEO_NEW:
		return put_timeout(c, __atomic_load_n(&h->rcvtimeo_us, __ATOMIC_RELAXED));
	case SO_SNDTIMEO:
	case SO_SNDTIMEO_NEW:
		return put_timeout(c, __atomic_load_n(&h->sndtimeo_us, __ATOMIC_RELAXED));
	case SO_RCVLOWAT:
		v = (int)__atomic_load_n(&h->rcvlowat, __ATOMIC_RELAXED);
		v = v > 0 ? v : 1;
		break;
	case SO_SNDLOWAT:
		v = 1;
		break;
	case SO_TYPE:
		v = s->type;
		break;
	case SO_DOMAIN:
		v = s->family;
		break;
	case SO_PROTOCOL:
		v = s->protocol ? s->protocol : s->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
		break;
	case SO_ACCEPTCONN:
		v = __atomic_load_n(&s->sh->state, __ATOMIC_ACQUIRE) == SC_SOCK_LISTEN;
		break;
	case SO_ERROR:
		v = (int)sc_net_take_error(s);
		break;
	default:
		return 1;
	}
	return put_value(c, &v, sizeof(v));
}

long call_getsockopt(struct sc_thread *t, const struct sc_call *c)
{
	uint8_t value[VALUE_MAX] = {0};
	struct sc_opx x = {.op = SC_OP_GETSOCKOPT,
			   .arg0 = (uint32_t)c->a[1],
			   .arg1 = (uint32_t)c->a[2],
			   .d1 = {.p = value, .out = 1, .by_res = 1}};
	struct sc_netchan *nc;
	int room;
	long res;

	if (kind_of(c->file) != SC_KIND_SOCK)
		return kind_of(c->file) == SC_KIND_FILE ? not_socket(c->file) : SC_NATIVE;
	res = sc_net_enter(t, c->file, &nc);
	if (res)
		return res;
	res = get_own(c, sc_nsock_of(c->file), sc_int(c->a[1]), sc_int(c->a[2]));
	if (res != 1)
		return res;
	if (sc_copy_from_user(&room, (const void *)c->a[4], sizeof(room)))
		return -EFAULT;
	if (room < 0)
		return -EINVAL;
	x.d1.len = (uint32_t)room < VALUE_MAX ? (uint32_t)room : VALUE_MAX;
	res = sc_net_call(t, c->file, &x);
	if (res == -ENOPROTOOPT)
		sc_trace_option("getsockopt", sc_int(c->a[1]), sc_int(c->a[2]));
	return res < 0 ? res : put_value(c, value, (uint32_t)res);
}
