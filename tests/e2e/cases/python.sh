# SPDX-License-Identifier: BSD-3-Clause
# what: python3: os, shutil, tempfile, zipfile, tarfile, pathlib, glob, fcntl, subprocess, mmap of a file for reading
# needs: python3
set -u
cd "$D" || exit 1
python3 "$CASES/python_work.py"
