# SPDX-License-Identifier: BSD-3-Clause
"""Network domains: their options, checked, and what the agent is told of them."""

import ipaddress
import re

from scctl_common import Usage

IFF_PERSIST = 0x0800  # <linux/if_tun.h>
MIN_MTU, MAX_MTU = 576, 9000
OPTIONS = ('tap', 'pci', 'addr', 'gw', 'addr6', 'slaac', 'dhcp', 'dns', 'mtu')


def add_options(cmd):
    """The options of a network domain, for define and start."""
    cmd.add_argument('--tap', default='', metavar='NAME', help='network: the NIC is this tap device (made if absent)')
    cmd.add_argument('--addr', default='', metavar='ADDR/PREFIX', help='network: IPv4 address')
    cmd.add_argument('--gw', default='', metavar='ADDR', help='network: IPv4 gateway')
    cmd.add_argument('--addr6', action='append', default=[], metavar='ADDR/PREFIX', help='network: IPv6 address; may be repeated')
    cmd.add_argument('--slaac', action='store_true', help='network: IPv6 addresses as routers announce them')
    cmd.add_argument('--dhcp', action='store_true', help='network: IPv4 address and gateway by DHCP')
    cmd.add_argument('--dns', action='append', default=[], metavar='ADDR', help='network: name server; may be repeated')
    cmd.add_argument('--mtu', type=int, default=0, metavar='N', help='network: default 1500')


def given(args):
    """The first option of a network domain that was given, '' if none was."""
    return next(('--' + name for name in OPTIONS if getattr(args, name, '')), '')


def _interface(text, option, version):
    try:
        if '/' not in text:
            raise ValueError
        found = ipaddress.ip_interface(text)
        if found.version != version:
            raise ValueError
    except ValueError:
        raise Usage(f'{option} {text}: write an IPv{version} address and its prefix, for example '
                    + ('10.77.0.2/24' if version == 4 else 'fd77::2/64')) from None
    return found


def _address(text, option):
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise Usage(f'{option} {text}: not an IPv4 address') from None


def tap_stays(name):
    """True if the host has this tap whether somebody holds it or not: it was made by hand, not by libvirt or QEMU for a VM."""
    try:
        with open(f'/sys/class/net/{name}/tun_flags', encoding='ascii') as f:
            return bool(name) and bool(int(f.read(), 16) & IFF_PERSIST)
    except OSError:
        return False


def agent_arguments(args, nic=()):
    """Checks the options (or a Domain with fields of these names) and returns them as sc-agent-net wants them.

    nic: what the agent is told of its NIC; by default the tap, as in a loopback domain.
    """
    pci = getattr(args, 'pci', '')
    if bool(args.tap) == bool(pci):
        raise Usage('a network domain needs one NIC: --tap NAME, a tap device' + (', or --pci ADDRESS' if hasattr(args, 'pci') else ''))
    if pci and not re.fullmatch(r'[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]', pci):
        raise Usage(f'--pci {pci}: write a whole address in lower case, as lspci -D shows it: 0000:3b:00.0')
    if args.tap and not re.fullmatch(r'[A-Za-z0-9_.-]{1,15}', args.tap):
        raise Usage(f'--tap {args.tap}: a device\'s name has at most 15 letters, digits, "-", "_", "."')
    if not (args.addr or args.dhcp or args.addr6 or args.slaac):
        raise Usage('a network domain needs an address: --addr ADDR/PREFIX, --dhcp, --addr6 or --slaac')
    if args.addr and args.dhcp:
        raise Usage('--addr and --dhcp exclude each other')
    argv = list(nic) or ['--tap', args.tap]
    if args.addr:
        home = _interface(args.addr, '--addr', 4)
        argv += ['--addr', str(home)]
        if args.gw and _address(args.gw, '--gw') not in home.network:
            raise Usage(f'--gw {args.gw} is not in the network {home.network} of --addr')
    if args.gw:
        argv += ['--gw', str(_address(args.gw, '--gw'))]
    for text in args.addr6:
        argv += ['--addr6', str(_interface(text, '--addr6', 6))]
    for text in args.dns:
        argv += ['--dns', str(_address(text, '--dns'))]
    if args.mtu:
        if not MIN_MTU <= args.mtu <= MAX_MTU:
            raise Usage(f'--mtu {args.mtu}: it must be {MIN_MTU} to {MAX_MTU}')
        argv += ['--mtu', str(args.mtu)]
    return argv + ['--slaac'] * args.slaac + ['--dhcp'] * args.dhcp


def agent_words(domain):
    """The same for a guest: "NAME=VALUE" or "NAME" for each option. Its NIC is the only one that it sees."""
    argv = agent_arguments(domain, ['--pci', 'auto'])
    words = []
    for arg in argv:
        if arg.startswith('--'):
            words.append(arg[2:])
        else:
            words[-1] += '=' + arg
    return words


def _counted(report, name):
    count = report[name]
    text = f"{count['in']} in, {count['out']} out"
    return text + ''.join(f', {count[word]} {word}' for word in ('dropped', 'errors') if count[word])


def lines(name, report):
    """What the broker's order "net" answered, for people."""
    nic = report['interface']
    yield (f"{name}: {nic['mac']}, mtu {nic['mtu']}, link {'up' if nic['link'] else 'down'}"
           + (f", {nic['addr']}/{nic['prefix']}" if nic['addr'] != '0.0.0.0' else ', no IPv4 address')
           + (f" by {nic['gw']}" if nic['gw'] != '0.0.0.0' else ''))
    if nic['addr6']:
        yield '  IPv6: ' + ', '.join(nic['addr6'])
    if nic['dns']:
        yield '  name servers: ' + ', '.join(nic['dns'])
    yield f"  frames: {_counted(report, 'frames')}; {report['rx_bytes']} bytes in, {report['tx_bytes']} out"
    for protocol in ('arp', 'ip4', 'ip6', 'icmp', 'udp', 'tcp'):
        if report[protocol]['in'] or report[protocol]['out']:
            yield f'  {protocol}: {_counted(report, protocol)}'
    yield f"  processes received {report['received']} bytes and sent {report['sent']}; {report['nsockets']} sockets"
    sockets = report['sockets']
    if sockets:
        yield f"  {'':3} {'state':11} {'recv-q':>7} {'send-q':>7}  {'local':28} {'peer':28} pid"
    for s in sockets:
        yield (f"  {s['type']:3} {s['state']:11} {s['recvq']:7} {s['sendq']:7}  {s['local'] or '*':28} {s['peer'] or '*':28} {s['pid']}"
               ).rstrip()
    if len(sockets) < report['nsockets']:
        yield f"  … and {report['nsockets'] - len(sockets)} more"
