# SPDX-License-Identifier: BSD-3-Clause
"""catalog_network.py - workloads of the group network. What they run on is in scbench_net.py."""

from scbench_workloads import KIB, Side, Workload, size_text

STREAM_SIZES = [64 << 2 * i for i in range(10)]  # 64 B to 16 MiB
ANSWER_SIZES = (1, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB)
CONNECTIONS = (1, 10, 100, 1000)


def _sides(command, *args):
    """The same client on our domain's stack, on the kernel's in a namespace, and on the kernel's without a wire."""
    words = ('{host}', '{port}') + args
    return Side('net', command, words), {'native': Side('netns', command, words, 'kernel stack over veth'),
                                         'local': Side('netlocal', command, words, 'kernel, loopback interface')}


def _server(program, command, words):
    """A server on the three stacks; its client is always on the host's."""
    side = lambda kind, title='': Side(f'{program}-{kind}', command, words, title)
    return side('net'), {'native': side('netns', 'kernel stack over veth'), 'local': side('netlocal', 'kernel, loopback interface')}


def workloads():
    for size in ANSWER_SIZES:
        ours, bases = _sides('netrr', str(size), '1')
        yield Workload(
            f'netrr-{size}', 'network', f'TCP: a request and an answer of {size_text(size)}, one connection',
            'what a client of a database waits for: two calls, two packets, two stacks.', ours, bases, {'native': 1.0} if size == 64 else {},
            series='netrr', x=size, size=size)
    for way, text in (('tx', 'sent'), ('rx', 'received')):
        for size in STREAM_SIZES:
            ours, bases = _sides('net' + way, str(size))
            yield Workload(
                f'net{way}-{size}', 'network', f'TCP: a stream, {text} by calls of {size_text(size)}',
                'throughput over the whole range of sizes: small ones show calls, large ones copies and the wire.', ours, bases,
                series='net' + way, x=size, size=size)
    ours, bases = _sides('netudp', '64')
    yield Workload('netudp-64', 'network', 'UDP: a request and an answer of 64 bytes', 'what a name server does; no stream hides a call.',
                   ours, bases, size=64)
    ours, bases = _sides('netconn')
    yield Workload('netconn', 'network', 'TCP: connect, one byte there and back, close', 'servers of short connections; sockets are made and '
                   'ended by requests, which data is not.', ours, bases)
    for n in CONNECTIONS:
        ours, bases = _sides('netrr', '64', str(n))
        yield Workload(
            f'netconns-{n}', 'network', f'TCP: 64 bytes there and back on each of {n} connections in turn',
            'whether a stack that polls looks at every connection, or only at those that have something.', ours, bases, series='netconns',
            x=n, size=64)
    for command, together in (('get', 1), ('get', 16), ('set', 1), ('set', 16)):
        ours, bases = _server('redis', command, ('10', str(together)))
        yield Workload(
            f'redis-{command}-{together}', 'network', f'redis: {command} by 10 connections, {together} requests sent together (redis-benchmark\'s figure)',
            'a server that others wrote, unmodified, whose work is mostly its sockets. Its client is on the host\'s stack.', ours, bases,
            {'native': 1.0} if together > 1 else {}, needs='redis-benchmark', size=3, sample_ms=200)  # its clock ticks in milliseconds
    for name, size in (('small', KIB), ('large', 1024 * KIB)):
        ours, bases = _server('nginx', name, ())
        yield Workload(f'nginx-{name}', 'network', f'nginx: a file of {size_text(size)}, again and again over one connection',
                       'a server of files: one that fits a packet, and one that fills buffers.', ours, bases, needs='nginx', size=size)
