#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""fake vhost-scd: makes the sockets and answers on ctl.sock; for tests of what starts and asks the broker.

FAKE_SCD in the environment: "fail" (complains and fails), "mute" (makes no sockets), otherwise the domain's state.
"""

import argparse
import json
import os
import signal
import socket
import sys


def listen(path, kind):
    if os.path.exists(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    sock.listen(8)
    return sock


def options():
    ap = argparse.ArgumentParser()
    for name in ('name', 'role', 'rundir', 'log', 'pidfile', 'channels', 'window-size', 'lanes', 'max-per-user',
                 'deadline-ms', 'hang-ms', 'retain'):
        ap.add_argument('--' + name)
    for name in ('allow-user', 'allow-group'):
        ap.add_argument('--' + name, action='append', default=[])
    for name in ('daemonize', 'loopback'):
        ap.add_argument('--' + name, action='store_true')
    return ap.parse_args()


def serve(listener, opt, state):
    info, stop = {}, False
    while not stop:
        conn, _ = listener.accept()
        with conn, conn.makefile() as lines:
            order = json.loads(lines.readline() or '{}')
            answer = {'ok': True}
            if order.get('cmd') == 'status':
                answer.update(name=opt.name, role=opt.role, loopback=opt.loopback, state=state, info=info, why='',
                              incarnation=1, incarnations=1, argv=sys.argv[1:], calls={'pread': 7, 'open': 9},
                              errors={'open': 2}, channels=[{'slot': 1, 'uid': 0, 'pid': 42, 'comm': 'dd'}],
                              channels_used=1, limits={'channels': 127, 'slot_size': 16 << 20},
                              agent={'version': '0', 'kernel': '6.1'}, pollers={'count': 1, 'cpu_ns': 5})
                if state == 'refused':
                    answer.update(state='starting', refused=True, why='its agent was refused: it speaks version 9')
            elif order.get('cmd') == 'restart':
                pass
            elif order.get('cmd') == 'set-info':
                info = order['info']
            else:
                answer = {'ok': False, 'error': 'no such command'}
            conn.sendall(json.dumps(answer).encode() + b'\n')


def main():
    state = os.environ.get('FAKE_SCD', 'ready')
    if state == 'fail':
        print('vhost-scd: there is no luck today: try tomorrow', file=sys.stderr)
        return 1
    opt = options()
    here = os.path.join(opt.rundir, opt.name)
    os.makedirs(here, exist_ok=True)
    listeners = {} if state == 'mute' else {
        name: listen(os.path.join(here, name + '.sock'), kind) for name, kind in
        (('attach', socket.SOCK_SEQPACKET), ('agent' if opt.loopback else 'vhost', socket.SOCK_STREAM),
         ('ctl', socket.SOCK_STREAM))}
    with open(opt.log, 'a', encoding='utf-8') as log:
        log.write('vhost-scd: ready\n')
    if os.fork():
        return 0
    os.setsid()
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    with open('/proc/self/comm', 'w', encoding='ascii') as comm:
        comm.write('vhost-scd')
    with open(opt.pidfile, 'w', encoding='ascii') as file:
        file.write(str(os.getpid()))

    def bye(*_):
        for name in listeners:
            os.unlink(os.path.join(here, name + '.sock'))
        os._exit(0)
    signal.signal(signal.SIGTERM, bye)
    signal.alarm(120)  # a test that forgot us
    if state == 'mute':
        signal.pause()
    serve(listeners['ctl'], opt, state)
    return 0


sys.exit(main())
