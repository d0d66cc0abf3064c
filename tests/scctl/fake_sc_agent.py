#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""fake sc-agent: does nothing until it is told to end. FAKE_AGENT=fail: complains and ends."""

import os
import signal
import sys

if os.environ.get('FAKE_AGENT') == 'fail':
    sys.exit('sc-agent: cannot serve: no reason')
with open('/proc/self/comm', 'w', encoding='ascii') as comm:
    comm.write('sc-agent')
signal.alarm(120)
signal.sigwait([signal.SIGTERM, signal.SIGALRM])
