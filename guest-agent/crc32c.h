/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.h - CRC-32C (Castagnoli), by the CPU's instruction where it has one. Pure functions, any thread. */
#ifndef SC_AGENT_CRC32C_H
#define SC_AGENT_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `len` bytes that follow those whose checksum is `before` (0: nothing). */
uint32_t crc32c(uint32_t before, const void *data, size_t len);

#endif
