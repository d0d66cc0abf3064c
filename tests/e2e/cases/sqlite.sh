# SPDX-License-Identifier: BSD-3-Clause
# what: sqlite3 with a rollback journal: transactions, four concurrent writers, integrity check, vacuum
# needs: sqlite3
# timeout: 120
# exclude: *.db
set -u
cd "$D" || exit 1
sqlite3 a.db 'create table t(x); insert into t values(1); select * from t;'
sqlite3 a.db <<'EOT'
pragma journal_mode=delete;
create table k(id integer primary key, v text, b blob);
with recursive c(i) as (select 1 union all select i+1 from c where i < 5000) insert into k select i, 'value ' || i, zeroblob(i % 300) from c;
create index kv on k(v);
begin; delete from k where id % 3 = 0; rollback;
begin; update k set v = v || '!' where id % 7 = 0; commit;
select count(*), sum(length(b)), max(v) from k; pragma integrity_check; vacuum; pragma integrity_check;
EOT
sqlite3 c.db 'create table w(p, i);'
for p in 1 2 3 4; do
	(for i in $(seq 1 15); do printf '.timeout 60000\ninsert into w values(%d, %d);\n' "$p" "$i" | sqlite3 c.db; done) &
done
wait
sqlite3 c.db 'select p, count(*), sum(i) from w group by p order by p; pragma integrity_check;'
sqlite3 c.db 'begin exclusive; insert into w values(9,9); commit; select count(*) from w;'
sqlite3 m.db 'pragma journal_mode=persist; create table t(x); insert into t values(randomblob(100000)); select length(x) from t;'
sqlite3 m.db 'pragma journal_mode=truncate; insert into t values(2); select count(*) from t; pragma journal_mode=memory; insert into t values(3);'
sqlite3 a.db .dump | sha256sum; sqlite3 a.db '.backup b.db'; sqlite3 b.db .dump | sha256sum; ls
