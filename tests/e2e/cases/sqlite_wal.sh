# SPDX-License-Identifier: BSD-3-Clause
# what: sqlite3 with a write-ahead log: eight writing processes, checkpoints, a process that dies, mmap_size, integrity check
# needs: sqlite3
# timeout: 180
# exclude: *.db *.db-wal *.db-shm
set -u
cd "$D" || exit 1
sqlite3 w.db 'pragma journal_mode=wal; create table w(p, i, b);'
for p in 1 2 3 4 5 6 7 8; do
	(for i in $(seq 1 10); do
		printf '.timeout 100000\ninsert into w values(%d, %d, randomblob(3000));\n' "$p" "$i" | sqlite3 w.db
	done) &
done
wait
sqlite3 w.db 'select p, count(*), sum(i) from w group by p order by p; pragma integrity_check;'
# One that has the log open for long while others write and check-point.
(printf '.timeout 100000\nbegin; select count(*) from w;\n'; sleep 1; printf 'select count(*) from w; commit; select count(*) > 80 from w;\n') | sqlite3 w.db &
sleep 0.3
sqlite3 w.db '.timeout 100000' 'insert into w values(9, 9, 9);' 'pragma wal_checkpoint(passive);' >/dev/null
wait
# The log's index is made anew by whoever comes first.
(printf '.timeout 100000\nbegin immediate; insert into w values(10, 10, 10);\n'; sleep 5) | sqlite3 w.db &
writer=$!
sleep 0.5
pkill -9 -P $$ sqlite3
wait $writer 2>/dev/null
sqlite3 w.db '.timeout 100000' 'select count(*) from w where p = 10; insert into w values(11, 11, 11); pragma integrity_check;'
sqlite3 w.db 'pragma mmap_size=30000000; select count(*), sum(length(b)) from w; update w set i = i + 1; select sum(i) from w; pragma integrity_check;'
sqlite3 w.db 'pragma wal_checkpoint(truncate); pragma journal_mode=delete; pragma integrity_check;'
sqlite3 w.db 'select p, i from w order by p, i' | sha256sum
ls
