# SPDX-License-Identifier: BSD-3-Clause
# what: redis-server with append-only file and snapshots in the tree, under redis-benchmark; rewrite, background save, kill -9, recovery
# needs: redis-server redis-cli redis-benchmark redis-check-rdb redis-check-aof
# timeout: 120
# exclude: *
# (the persistence files hold times and sizes that differ from run to run; what they contain is compared by the digest)
set -u
cd "$D" || exit 1
S=$(mktemp -d /tmp/sc-e2e-redis.XXXXXX)
trap 'kill $pid 2>/dev/null; rm -rf "$S"' EXIT
start()
{
	redis-server --port 0 --unixsocket "$S/s" --dir "$D" --appendonly yes --appendfsync "$1" --save '60 1000' --daemonize no --enable-debug-command yes --logfile "$D/log" --loglevel notice &
	pid=$!
	for _ in $(seq 600); do [ "$(redis-cli -s "$S/s" ping 2>/dev/null)" = PONG ] && return; sleep 0.05; done
	echo "no answer"; tail log
}
c() { redis-cli -s "$S/s" "$@"; }
idle() { while [ "$(c info persistence | tr -d '\r' | awk -F: '/^(aof_rewrite_in_progress|rdb_bgsave_in_progress|aof_rewrite_scheduled|loading)/ { n += $2 } END { print n }')" != 0 ]; do sleep 0.05; done; }
start everysec
redis-benchmark -s "$S/s" -q -n 4000 -c 20 -P 8 -r 500 -t set,incr,lpush,sadd,hset,zadd > bench; grep -c 'requests per second' bench
c flushall; for i in $(seq 200); do echo "set key:$i $(printf '%0*d' $((i * 7)) "$i")"; echo "rpush list $i"; echo "hset hash f$i v$i"; echo "zadd z $i m$i"; done | c --pipe | tail -n 1
c bgrewriteaof; idle; c info persistence | tr -d '\r' | grep -E '^(aof_last_bgrewrite_status|aof_last_write_status|aof_enabled)'
c bgsave; idle; c info persistence | tr -d '\r' | grep -E '^rdb_last_bgsave_status'; c save; redis-check-rdb dump.rdb | grep -o 'RDB looks OK.*'
before=$(c debug digest); c dbsize; c shutdown; wait $pid; echo "ended $?"
start always; [ "$(c debug digest)" = "$before" ] && echo "same after a restart"; c set last word; c append last s; c lrange list -2 -1
before=$(c debug digest); kill -9 $pid; wait $pid 2>/dev/null; for f in appendonlydir/*.incr.aof; do redis-check-aof "$f" | grep -o 'AOF.*is valid'; done | sed 's/[^ ]*aof//'
start everysec; [ "$(c debug digest)" = "$before" ] && echo "same after kill -9"; c get last; c debug reload; [ "$(c debug digest)" = "$before" ] && echo "same after a reload"
c bgrewriteaof; idle; c bgsave; idle; c shutdown nosave; wait $pid; echo "ended $?"; grep -ciE 'error|warning.*fail' log; ls; ls appendonlydir | sed 's/[0-9]*\./N./'
