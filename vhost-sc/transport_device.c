/* SPDX-License-Identifier: BSD-3-Clause */
/* transport_device.c - the VM's virtio-sc device over vhost-user. Not built yet: only --loopback
 * works. */
#include <errno.h>

#include "broker.h"
#include "log.h"

static int device_open(struct broker *b)
{
	log_error("domain %s: the device transport is not there yet, use --loopback", b->cfg->name);
	return -ENOTSUP;
}

static void device_close(struct broker *b)
{
}

const struct transport_ops transport_device = {
    .name = "VM",
    .open = device_open,
    .close = device_close,
};
