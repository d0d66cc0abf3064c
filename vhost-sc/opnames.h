/* SPDX-License-Identifier: BSD-3-Clause */
/* opnames.h - names of operations (ops.h), for status. */
#ifndef VHOST_SC_OPNAMES_H
#define VHOST_SC_OPNAMES_H

#include <stdint.h>

/* The name of an operation: "read"; or NULL for a number without one. */
const char *op_name(uint32_t op);

#endif
