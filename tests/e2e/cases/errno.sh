# SPDX-License-Identifier: BSD-3-Clause
# what: a table of system calls made to fail: errno must be the native kernel's
# needs: python3
set -u
cd "$D" || exit 1
python3 "$CASES/errno_table.py"
