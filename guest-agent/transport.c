/* SPDX-License-Identifier: BSD-3-Clause */
/* transport.c - what both transports share. */
#include "transport.h"

#include <unistd.h>

void transport_fds_close(struct transport_fds *fds)
{
	for (uint32_t i = 0; i < fds->n; i++)
		if (fds->fd[i] >= 0)
			close(fds->fd[i]);
	fds->n = 0;
}
