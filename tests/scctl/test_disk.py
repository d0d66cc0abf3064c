#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Disks: made once and whole, kept, refused."""

import fcntl
import os
import struct
import subprocess
import unittest
from unittest import mock

import sctest
import scctl_common as common
import scctl_disk as disk

SIZE = 32 << 20


class Disk(sctest.Case):

    def made(self, **changes):
        path = self.path('d.img')
        disk.make(path, changes.get('size', SIZE), changes.get('fs', 'ext4'), changes.get('mode', 0o1777), 'sc-d')
        return path

    def test_made_sparse_and_whole(self):
        path = self.made()
        about = os.stat(path)
        self.assertEqual(about.st_size, SIZE)
        self.assertLess(about.st_blocks * 512, SIZE // 2)
        self.assertEqual(about.st_mode & 0o777, 0o600)
        self.assertEqual(subprocess.run([disk.find_program('e2fsck'), '-fn', path], capture_output=True,
                                        check=False).returncode, 0)
        self.assertEqual(os.listdir(self.dir).count('d.img'), 1)
        self.assertFalse([name for name in os.listdir(self.dir) if name.endswith('.new')])

    def test_mode_of_the_root_directory(self):
        for mode in (0o1777, 0o750):
            path = self.made(mode=mode)
            text = subprocess.run([disk.find_program('debugfs'), '-R', 'stat /', path], capture_output=True, text=True,
                                  check=True).stdout
            self.assertRegex(text, rf'Type: directory +Mode: +0?{mode:o} ')
            os.unlink(path)

    def test_failure_leaves_nothing(self):
        with mock.patch.object(disk, '_make_file_system', side_effect=common.Refusal('no')):
            with self.assertRefusal('no'):
                self.made()
        self.assertFalse([name for name in os.listdir(self.dir) if 'd.img' in name])

    def test_someone_else_was_faster(self):
        with mock.patch.object(disk, '_make_file_system', side_effect=lambda *_: self.file('d.img', 'theirs')):
            with self.assertRefusal('made by someone else just now'):
                self.made()
        with open(self.path('d.img'), encoding='utf-8') as file:
            self.assertEqual(file.read(), 'theirs')

    def check(self, path, size=None, used_by_us=False):
        return disk.check(path, size, 'ext4', used_by_us)

    def test_kept(self):
        path = self.made()
        self.assertTrue(self.check(path))
        self.assertTrue(self.check(path, SIZE))
        self.assertFalse(self.check(self.path('other.img'), SIZE))

    def test_refused(self):
        self.made()
        os.symlink('/nowhere/x', self.path('link'))
        self.file('garbage', 'x' * 4096)
        os.mkfifo(self.path('fifo'))
        for path, size, pattern in ((self.path('absent'), None, 'give --size'),
                                    (self.path('absent'), 4096, 'too small for ext4'),
                                    (self.path('d.img'), SIZE * 2, 'has 32M, not 64M: leave --size out'),
                                    (self.path('link'), SIZE, 'symbolic link to nowhere'),
                                    (self.path('garbage'), None, 'holds no ext4 file system'),
                                    (self.path('fifo'), None, 'neither a file nor a block device'),
                                    (self.dir, None, 'is a directory'),
                                    (self.path('d.img/x'), None, 'cannot be looked at')):
            with self.assertRaisesRegex(common.Usage, pattern, msg=path):
                self.check(path, size)

    def test_in_use_as_qemu_locks(self):
        path = self.made()
        fd = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        fcntl.fcntl(fd, 37, struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))  # F_OFD_SETLK
        with self.assertRefusal('in use: a running virtual machine has it open'):
            self.check(path)
        self.assertTrue(self.check(path, used_by_us=True))

    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists('/dev/loop-control'), 'no loop devices')
    def test_in_use_by_a_loop_device(self):
        path = self.made()
        try:
            loop = subprocess.run(['losetup', '-f', '--show', path], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            self.skipTest('losetup does not work here')
        try:
            with self.assertRefusal('is set up on it: losetup -d'):
                self.check(path)
        finally:
            subprocess.run(['losetup', '-d', loop.strip()], check=True)

    def test_unknown_file_system(self):
        with self.assertRaises(common.Usage):
            disk.check_file_system('fat')
        with mock.patch.object(disk, 'find_program', return_value=None):
            with self.assertRefusal('apt-get install xfsprogs'):
                disk.check_file_system('xfs')


if __name__ == '__main__':
    unittest.main()
