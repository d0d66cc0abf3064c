#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""many_work.py - an echo server with several processes that accept from one listener, for test_many.py.

    many_work.py ADDRESS PORT PROCESSES

Each process holds its connections, and sends back what comes on each; "who" is answered by the process's number. It ends with its
standard input.
"""
import os
import resource
import select
import socket
import sys


def serve(listener, number):
    poll = select.epoll()
    listener.setblocking(False)
    poll.register(listener, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    held = {}
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                return
            if fd == listener.fileno():
                try:
                    s, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                s.setblocking(False)
                held[s.fileno()] = s
                poll.register(s, select.EPOLLIN)
                continue
            try:
                data = held[fd].recv(65536)
            except ConnectionResetError:
                data = b""
            if data:
                held[fd].sendall(b"%-8d" % number if data == b"who-----" else data)
            else:
                poll.unregister(fd)
                held.pop(fd).close()


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
    number = 0
    for i in range(1, int(sys.argv[3])):
        if os.fork() == 0:
            number = i
            break
    serve(listener, number)


main()
