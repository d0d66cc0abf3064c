/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault.h - named places at which an agent that was built for it (sc-agent-fault, -DSC_FAULTS) can be told to die: the environment's
 * SC_FAULT is POINT[:N], and at the Nth time (default: the first) that any thread comes by, the process gets SIGKILL. In the agent
 * that is installed they are nothing. Names are PART:STEP; docs/recovery.md lists them.
 */
#ifndef SC_AGENT_FAULT_H
#define SC_AGENT_FAULT_H

#ifdef SC_FAULTS
/* Any thread. */
void fault_point(const char *name);
#define SC_FAULT_POINT(name) fault_point(name)
#else
#define SC_FAULT_POINT(name) ((void)0)
#endif

#endif
