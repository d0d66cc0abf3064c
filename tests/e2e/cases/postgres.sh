# SPDX-License-Identifier: BSD-3-Clause
# what: PostgreSQL: initdb, pgbench, crash and recovery, checksums, dump, with its data directory in the tree
# user: nobody
# timeout: 150
# only: loopback
# exclude: pg
# (a cluster differs from another one in every control file; what it holds is compared by queries)
set -u
cd "$D" || exit 1
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
S=$(mktemp -d /tmp/sc-e2e-pg.XXXXXX)
export PGHOST=$S PGUSER=sc PGDATABASE=postgres
trap 'pg_ctl -D "$D/pg" -m immediate stop > /dev/null 2>&1; rm -rf "$S"' EXIT
type -p initdb > /dev/null || echo "no initdb"
initdb -D pg -A trust -U sc --no-locale -E UTF8 --data-checksums > init.log 2>&1; echo "initdb $?"; rm -f init.log
cat >> pg/postgresql.conf <<EOT
unix_socket_directories = '$S'
listen_addresses = ''
shared_buffers = 16MB
max_connections = 20
log_destination = stderr
EOT
up() { pg_ctl -D pg -w -t 60 -l server.log start > /dev/null 2>&1; echo "start $?"; }
q() { psql -qAtX -v ON_ERROR_STOP=1 "$@"; }
up
pgbench -i -q -s 1 > /dev/null 2>&1; echo "pgbench -i $?"
pgbench -c 4 -j 2 -t 60 > bench.log 2>&1; echo "pgbench $?"; grep -E 'actually processed|failed' bench.log; rm -f bench.log
q -c 'select count(*), count(distinct tid) from pgbench_history' -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)'
q <<'EOT'
create table t(id int primary key, v text, b bytea); insert into t select i, repeat('x', i % 900), decode(md5(i::text), 'hex') from generate_series(1, 5000) i;
create index on t(v); analyze t; begin; delete from t where id % 3 = 0; rollback; update t set v = v || '!' where id % 7 = 0; checkpoint; vacuum full t; select count(*), sum(length(v)), md5(string_agg(encode(b, 'hex'), '' order by id)) from t;
set work_mem = '64kB'; select count(*) from (select v, row_number() over (order by v, id desc) from t) x; copy t to '/tmp/sc-e2e-pg.copy'; create table u(like t); copy u from '/tmp/sc-e2e-pg.copy'; select count(*) from u;
create tablespace ts location '/nonexistent';
EOT
rm -f /tmp/sc-e2e-pg.copy; mkdir ts; q -c "create tablespace ts location '$D/ts'" -c 'alter table u set tablespace ts' -c 'select count(*) from u'
q -c 'insert into t select i, null, null from generate_series(10001, 10100) i'; pg_ctl -D pg -m immediate stop > /dev/null; echo "crash $?"; up; q -c 'select count(*) from t'; grep -c 'database system was not properly shut down' server.log
pg_dump -t t -t pgbench_branches --schema-only | grep -c TABLE; q -c 'drop table u' -c 'drop tablespace ts'; q -c 'select pg_size_pretty(pg_relation_size(oid)) from pg_class where relname = $$t$$' -c 'create database other' -c 'drop database other'
pg_ctl -D pg -w -m fast stop > /dev/null; echo "stop $?"; pg_checksums -D pg --check > sums 2>&1; echo "checksums $?"; grep -c 'Bad checksums:  0' sums; pg_controldata pg | grep 'cluster state'; grep -cE 'PANIC|FATAL' server.log; rm -f sums server.log
