# SPDX-License-Identifier: BSD-3-Clause
"""All workloads, in the order in which they are run."""
from work_net import Nginx, Redis, Stream
from work_ops import Ops
from work_programs import Fio, Git, Postgres, Race, Sqlite, SqliteExclusive, SqliteWal, Tar

WORKLOADS = [Ops, Race, Sqlite, SqliteWal, SqliteExclusive, Git, Tar, Fio, Postgres, Stream, Redis, Nginx]
