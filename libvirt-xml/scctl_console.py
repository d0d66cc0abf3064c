# SPDX-License-Identifier: BSD-3-Clause
"""The console of a VM that runs without libvirt: a socket to its serial line, and logs made fit for a terminal."""

import os
import select
import socket
import sys
import termios
import tty

from scctl_common import Refusal

ESCAPE = b'\x1d'  # Ctrl-], as virsh console has it


def printable(line):
    """A log's line without what would steer the reader's terminal: the guest wrote it."""
    return ''.join(c if c.isprintable() or c == '\t' else '' if c == '\r' else '?' for c in line)


def _forward(sock, keyboard):
    """Copies both ways until Ctrl-], the end of input or of the VM."""
    readers = [sock, keyboard]
    while True:
        for ready in select.select(readers, [], [])[0]:
            data = os.read(ready if isinstance(ready, int) else ready.fileno(), 4096)
            if ready is sock:
                if not data:
                    return 'the VM closed the console'
                os.write(1, data)
            elif not data or ESCAPE in data:
                sock.sendall(data.split(ESCAPE)[0])
                return 'left the console; the VM runs on'
            else:
                sock.sendall(data)


def talk(path):
    """Connects the terminal with the console socket at `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as err:
        raise Refusal(f'console {path}: {err.strerror}: is the VM running, and are you root?') from err
    print('Connected. Ctrl-] leaves the console.', file=sys.stderr)
    saved = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if saved:
            tty.setraw(0)
        why = _forward(sock, 0)
    finally:
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        sock.close()
    print('\n' + why, file=sys.stderr)
