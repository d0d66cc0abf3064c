# SPDX-License-Identifier: BSD-3-Clause
# what: fcntl and ioctl commands, times in all forms, renameat2, getdents with small buffers, xattr sizes, at-calls
# needs: python3
set -u
cd "$D" || exit 1
python3 "$CASES/calls_work.py"
