# SPDX-License-Identifier: BSD-3-Clause
"""The disk of a storage domain: made if it is absent, left alone if it is there, refused if someone else uses it.

A new disk is a sparse raw image with one file system on the whole of it (no partition table: nothing but our guest
reads it). It is made under a temporary name beside its place, and given its name by link(2), which fails if someone
else was faster; so an interrupted or a second `define` never leaves, nor meets, half a disk.

Whether a disk is in use is asked in three ways, because its users declare themselves in three ways: QEMU holds OFD
locks on bytes of the image from 100 on; the kernel holds a mounted block device exclusively; and a loop device names
its backing file.
"""

import errno
import fcntl
import glob
import os
import stat
import struct
import tempfile

from scctl_common import MIB, Refusal, Usage, make_dirs, read_text, run, show_size

FILE_SYSTEMS = {
    # name: (program, its Debian package, offset of the magic number, the magic number)
    'ext4': ('mkfs.ext4', 'e2fsprogs', 1024 + 56, b'\x53\xef'),
    'xfs': ('mkfs.xfs', 'xfsprogs', 0, b'XFSB'),
}

MIN_SIZE = {'ext4': 16 * MIB, 'xfs': 300 * MIB}

_F_OFD_GETLK = 36
_FLOCK = struct.Struct('hhqqi4x')  # struct flock of x86-64


def find_program(name):
    """Path of a system program: people's PATH often lacks the sbin directories."""
    for directory in os.environ.get('PATH', '').split(':') + ['/usr/sbin', '/sbin']:
        path = os.path.join(directory, name)
        if directory and os.access(path, os.X_OK):
            return path
    return None


def check_file_system(fs):
    """Refuses a file system that we do not know or cannot make."""
    if fs not in FILE_SYSTEMS:
        raise Usage(f'--fs {fs}: not one of {", ".join(FILE_SYSTEMS)}')
    program, package = FILE_SYSTEMS[fs][:2]
    if not find_program(program):
        raise Refusal(f'--fs {fs}: {program} is not installed: apt-get install {package}')


def in_use(path):
    """Who uses the disk at `path`, in words; '' if nobody does. The disk exists."""
    flags = os.O_RDWR | os.O_CLOEXEC
    is_block = stat.S_ISBLK(os.stat(path).st_mode)
    try:
        fd = os.open(path, flags | (os.O_EXCL if is_block else 0))
    except OSError as err:
        if err.errno == errno.EBUSY:
            return 'it is mounted, or part of a volume, on this host'
        raise
    try:
        lock = fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        if _FLOCK.unpack(lock)[0] != fcntl.F_UNLCK:
            return 'a running virtual machine has it open'
    finally:
        os.close(fd)
    real = os.path.realpath(path)
    for backing in glob.glob('/sys/block/loop*/loop/backing_file'):
        if read_text(backing) == real:
            return f'/dev/{backing.split("/")[3]} is set up on it: losetup -d'
    return ''


def disk_size(path):
    """Bytes of an image or block device."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def check(path, size, fs, used_by_us):
    """Checks what is at `path` before anything is touched.

    path: absolute. size: bytes asked for, or None. fs: the file system it is to hold. used_by_us: a VM of the domain
    that is being redefined runs, so the disk may well be in use.
    Returns True if the disk exists and will do, False if it has to be made. Refuses everything else.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            raise Usage(f'disk {path} is a symbolic link to nowhere ({os.readlink(path)}): remove it or correct it') \
                from None
        if size is None:
            raise Usage(f'disk {path} does not exist: give --size to have it made') from None
        if size < MIN_SIZE[fs]:
            raise Usage(f'--size {show_size(size)}: too small for {fs}, which needs {show_size(MIN_SIZE[fs])}') \
                from None
        return False
    except OSError as err:
        raise Usage(f'disk {path} cannot be looked at: {err.strerror}') from err
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        kind = 'a directory' if stat.S_ISDIR(mode) else 'neither a file nor a block device'
        raise Usage(f'disk {path} is {kind}: name an image file (made if absent) or a block device')
    try:
        user = in_use(path)
    except OSError as err:
        raise Refusal(f'disk {path} cannot be opened for writing: {err.strerror}') from err
    if user and not used_by_us:
        raise Refusal(f'disk {path} is in use: {user}; stop that first, or name another disk')
    _check_content(path, size, fs)
    return True


def _check_content(path, size, fs):
    """Refuses an existing disk of another size than asked for, or without the file system."""
    actual = disk_size(path)
    if size is not None and size != actual:
        raise Usage(f'disk {path} exists and has {show_size(actual)}, not {show_size(size)}: leave --size out to use '
                    'it as it is, or name another disk')
    _, _, offset, magic = FILE_SYSTEMS[fs]
    with open(path, 'rb') as file:
        file.seek(offset)
        found = file.read(len(magic))
    if found != magic:
        raise Usage(f'disk {path} exists but holds no {fs} file system: make one (mkfs.{fs} {path}), name it with '
                    '--fs, or name another disk')


def make(path, size, fs, root_mode, label):
    """Makes the disk. path: absolute, absent. root_mode: permissions of the file system's root directory.

    label: for the file system; cut to what it can hold.
    """
    directory = os.path.dirname(path)
    make_dirs(directory)
    room = os.statvfs(directory)
    for left in glob.glob(os.path.join(glob.escape(directory), '.' + glob.escape(os.path.basename(path)) + '.*.new')):
        os.unlink(left)  # of a define that was killed; nobody else defines this domain now (scctl_common.locked)
    temp = None
    try:
        fd, temp = tempfile.mkstemp(prefix='.' + os.path.basename(path) + '.', suffix='.new', dir=directory)
        try:
            os.truncate(fd, size)
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        _make_file_system(temp, fs, root_mode, label)
        fd = os.open(temp, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(temp, path)
    except FileExistsError as err:
        raise Refusal(f'disk {path} was made by someone else just now: run the command again to use it') from err
    except OSError as err:
        raise Refusal(f'disk {path} cannot be made: {err.strerror}') from err
    finally:
        if temp:
            os.unlink(temp)
    if room.f_bavail * room.f_frsize < size:
        return (f'disk {path} can grow to {show_size(size)}, but its file system has only '
                f'{room.f_bavail * room.f_frsize // MIB}M free')
    return ''


def _make_file_system(path, fs, root_mode, label):
    program = find_program(FILE_SYSTEMS[fs][0])
    what = f'making the {fs} file system'
    if fs == 'xfs':
        # A prototype file gives the root directory's mode; mkfs.xfs reads it from a file only.
        with tempfile.NamedTemporaryFile('w', suffix='.proto') as proto:
            proto.write(f'dummy\n0 0\nd--{root_mode & 0o777:03o} 0 0\n$\n')
            proto.flush()
            run([program, '-q', '-L', label[:12], '-p', proto.name, path], what, timeout=600)
        return
    # -m 0: no blocks reserved for root, who does not live in the guest.
    run([program, '-q', '-F', '-m', '0', '-L', label[:16], path], what, timeout=600)
    # mke2fs cannot give the root directory a mode. debugfs can, and needs no mount.
    debugfs = find_program('debugfs')
    run([debugfs or 'debugfs', '-w', '-R', f'set_inode_field / mode 0{0o040000 | root_mode:o}', path],
        'setting the mode of its root directory', timeout=60)
