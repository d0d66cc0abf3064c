#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Builds lwIP, the TCP/IP stack of the network domain's agent, from Debian's source package.

    kvm/build_lwip.py [--jobs N]

The last line on standard output is the directory with include/ and liblwip.a; everything else goes to standard error.

How it works: the source package is fetched by apt (which checks the signatures) from the machine's own package sources, by way of a
private copy of their configuration that says deb-src where the original says deb; neither that configuration nor the package
lists are touched. The core, IPv4, IPv6 and Ethernet are compiled with the options of guest-agent/lwip/lwipopts.h. The result
is kept in .cache/lwip/KEY, where KEY is a hash of this script, the options and the source's version; .cache/lwip/current
names it. Root is not needed.
"""

import argparse
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(TOP, '.cache', 'lwip')
OPTIONS = os.path.join(TOP, 'guest-agent', 'lwip')
FILES = ['core/*.c', 'core/ipv4/*.c', 'core/ipv6/*.c', 'netif/ethernet.c']
FLAGS = ['-std=gnu11', '-O2', '-g', '-fPIC', '-fno-strict-aliasing', '-fno-omit-frame-pointer', '-Wno-address']


def say(text):
    print('build_lwip: ' + text, file=sys.stderr)


def die(text):
    say(text)
    sys.exit(1)


def run(argv, log, **kw):
    """Runs a command with its output in a log, whose end is shown if it fails."""
    with open(log, 'w', encoding='utf-8') as out:
        status = subprocess.run(argv, stdout=out, stderr=subprocess.STDOUT, check=False, stdin=subprocess.DEVNULL, **kw).returncode
    if status:
        with open(log, encoding='utf-8', errors='replace') as text:
            sys.stderr.write(''.join(text.readlines()[-20:]))
        die(f'failed: {" ".join(argv[:3])} (whole output: {log})')


def version():
    """The source version that the machine's package lists offer, '' for none."""
    out = subprocess.run(['apt-cache', 'show', '--no-all-versions', 'liblwip-dev'], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=False, env=dict(os.environ, LC_ALL='C')).stdout
    found = re.search(r'^Source: \S+ \((.*)\)$', out, re.M) or re.search(r'^Version: (.*)$', out, re.M)
    return found.group(1) if found else ''


def key(source_version):
    digest = hashlib.sha256(source_version.encode())
    for path in [os.path.abspath(__file__)] + sorted(glob.glob(os.path.join(OPTIONS, '**', '*.h'), recursive=True)):
        with open(path, 'rb') as data:
            digest.update(data.read())
    return digest.hexdigest()[:16]


def apt_config(name, default):
    out = subprocess.run(['apt-config', 'shell', 'V', name], stdout=subprocess.PIPE, text=True, check=False).stdout
    found = re.search(r"V='(.*)'", out)
    return found.group(1) if found else default


def source_lists():
    """The machine's package sources as (one-line text, deb822 text), with deb-src for deb."""
    lines, stanzas = [], []
    parts = apt_config('Dir::Etc::sourceparts/d', '/etc/apt/sources.list.d')
    for path in [apt_config('Dir::Etc::sourcelist/f', '/etc/apt/sources.list')] + sorted(glob.glob(os.path.join(parts, '*'))):
        if not os.path.isfile(path):
            continue
        with open(path, encoding='utf-8', errors='replace') as text:
            data = text.read()
        if path.endswith('.sources'):
            for stanza in re.split(r'\n\s*\n', re.sub(r'^#.*\n?', '', data, flags=re.M)):
                if re.search(r'^Types:.*\bdeb\b(?!-)', stanza, re.M | re.I) and not re.search(r'^Enabled:\s*(no|false)', stanza, re.M | re.I):
                    stanzas.append(re.sub(r'^Types:.*$', 'Types: deb-src', stanza.strip(), flags=re.M | re.I))
        elif path.endswith('.list'):
            lines += ['deb-src' + line.strip()[3:] for line in data.splitlines()
                      if re.match(r'\s*deb\s', line) and 'cdrom:' not in line]
    return '\n'.join(lines) + '\n', '\n\n'.join(stanzas) + '\n'


def fetch(source_version, work):
    """Leaves the source in work/source."""
    apt = os.path.join(work, 'apt')
    for sub in ('parts', 'lists/partial', 'cache/archives/partial'):
        os.makedirs(os.path.join(apt, sub), exist_ok=True)
    one_line, deb822 = source_lists()
    for name, text in (('machine.list', one_line), ('machine.sources', deb822)):
        if text.strip():
            with open(os.path.join(apt, 'parts', name), 'w', encoding='utf-8') as out:
                out.write(text)
    command = ['apt-get', '-o', 'Dir::Etc::SourceList=/dev/null', '-o', f'Dir::Etc::SourceParts={apt}/parts',
               '-o', f'Dir::State::lists={apt}/lists', '-o', f'Dir::Cache={apt}/cache', '-o', 'APT::Sandbox::User=root']
    # A third party's repository may have no sources: what counts is whether lwIP's can be had.
    subprocess.run(command + ['update'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    run(command + ['source', '--download-only', f'lwip={source_version}'], os.path.join(work, 'source.log'), cwd=work)
    found = glob.glob(os.path.join(work, 'lwip_*.dsc'))
    if len(found) != 1:
        die(f'the source of lwIP {source_version} cannot be had from this machine\'s package sources; try apt-get update')
    run(['dpkg-source', '--no-check', '-x', found[0], os.path.join(work, 'source')], os.path.join(work, 'unpack.log'))


def build(work, jobs):
    src = os.path.join(work, 'source', 'src')
    out = os.path.join(work, 'out')
    os.makedirs(os.path.join(out, 'obj'))
    include = os.path.join(out, 'include')
    shutil.copytree(os.path.join(src, 'include'), include)
    shutil.copytree(OPTIONS, include, dirs_exist_ok=True)
    sources = sorted(path for pattern in FILES for path in glob.glob(os.path.join(src, pattern)))

    def compile_one(path):
        name = os.path.relpath(path, src).replace('/', '_')
        run(['gcc'] + FLAGS + ['-I', include, '-c', path, '-o', os.path.join(out, 'obj', name + '.o')],
            os.path.join(work, name + '.log'))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(compile_one, sources))
    run(['ar', 'rcs', os.path.join(out, 'liblwip.a')] + sorted(glob.glob(os.path.join(out, 'obj', '*.o'))),
        os.path.join(work, 'ar.log'))
    shutil.rmtree(os.path.join(out, 'obj'))
    return out


def main():
    parser = argparse.ArgumentParser(description='Builds lwIP from Debian\'s source package.')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, 'lock'), 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source_version = version()
        if not source_version:
            die('the package lists do not offer liblwip-dev: apt-get update')
        name = key(source_version)
        place = os.path.join(CACHE, name)
        if not os.path.exists(os.path.join(place, 'liblwip.a')):
            work = os.path.join(CACHE, 'work-' + name)
            shutil.rmtree(work, ignore_errors=True)
            os.makedirs(work)
            say(f'fetching and compiling lwIP {source_version}')
            fetch(source_version, work)
            os.rename(build(work, args.jobs), place)
            shutil.rmtree(work)
        link = os.path.join(CACHE, 'current')
        if not (os.path.islink(link) and os.readlink(link) == name):
            if os.path.lexists(link + '.new'):
                os.unlink(link + '.new')
            os.symlink(name, link + '.new')
            os.replace(link + '.new', link)
    print(place)


if __name__ == '__main__':
    main()
