# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of scctl share: its modules, directories of its own for each test, a fake vhost-scd, a fake host."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SCCTL = os.path.join(TOP, 'libvirt-xml', 'scctl')
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TOP, 'libvirt-xml'))

import scctl_cli  # noqa: E402
import scctl_common  # noqa: E402


class Case(unittest.TestCase):
    """A test with directories, and a build, of its own."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='sct.')
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        os.chmod(self.dir, 0o755)
        self.env = {'VHOST_SC_' + key: os.path.join(self.dir, key.lower())
                    for key in ('CONFDIR', 'STATEDIR', 'LOGDIR', 'RUNDIR', 'LIBVIRT_HOOKS', 'BUILD')}
        self.env['VHOST_SC_QEMU'] = '/bin/true'
        saved = {key: os.environ.get(key) for key in self.env}
        os.environ.update(self.env)
        self.addCleanup(self._restore, saved)
        for program in ('vhost-sc/vhost-scd', 'guest-agent/sc-agent', 'guest-agent/sc-agent-static', 'hostlib/scrun'):
            path = os.path.join(self.dir, 'build', program)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(os.path.join(HERE, 'fake_' + os.path.basename(program).replace('-', '_').replace('_static', '')
                                    + '.py') if 'scrun' not in program else '/bin/true', path)

    @staticmethod
    def _restore(saved):
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def file(self, name, text=''):
        """Writes a file below the test's directory. Returns its path."""
        path = self.path(name.lstrip('/'))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def scctl(self, *argv, expect=0):
        """Runs a command in this process. Returns (standard output, standard error)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = scctl_cli.main(list(argv))
            except SystemExit as end:
                status = end.code
        self.assertEqual(status, expect, f'{argv}: {err.getvalue()}')
        return out.getvalue(), err.getvalue()

    def refused(self, code, pattern, *argv):
        """Runs a command that has to fail with one clear line."""
        _, err = self.scctl(*argv, expect=code)
        lines = [line for line in err.splitlines() if not line.startswith(('usage:', ' '))]
        self.assertRegex(lines[-1], pattern)
        self.assertNotIn('Traceback', err)
        return err

    def assertRefusal(self, pattern):
        return self.assertRaisesRegex(scctl_common.Refusal, pattern)
