# SPDX-License-Identifier: BSD-3-Clause
# what: nginx, master and workers, serves files of the tree with sendfile: ranges, listings, conditions, reload, log rotation
# needs: nginx curl
# exclude: log error.log tmp conf
# (logs hold times, conf the socket's name; the temporary directories belong to the worker)
# timeout: 90
# filter: s/^20[0-9/]+ [0-9:]+ //; s/ [0-9]+#[0-9]+:/ N:/
set -u
cd "$D" || exit 1
S=$(mktemp -d /tmp/sc-e2e-nginx.XXXXXX); chmod 755 "$S"
trap 'nginx -c "$D/conf" -p "$D" -s stop 2>/dev/null; rm -rf "$S"' EXIT
mkdir www www/dir www/private tmp; chmod 755 . www www/dir; : > www/empty; echo hello > www/hello.txt; seq 1 500000 > www/big.txt; head -c 70000 /dev/zero > www/dir/zeros; echo '<p>index' > www/index.html; ln -s hello.txt www/link.txt; chmod 700 www/private; echo no > www/private/x
touch -d '2020-02-02 02:02:02 UTC' www/* www/dir/*
cat > conf <<EOT
user nobody nogroup; worker_processes 2; pid $D/pid; error_log $D/error.log; daemon on;
events { worker_connections 64; }
http {
	sendfile on; sendfile_max_chunk 256k; access_log $D/log combined; default_type text/plain; server_tokens off; open_file_cache max=100;
	client_body_temp_path $D/tmp/body; proxy_temp_path $D/tmp/proxy; fastcgi_temp_path $D/tmp/f; uwsgi_temp_path $D/tmp/u; scgi_temp_path $D/tmp/s;
	server { listen unix:$S/s; root $D/www; location /dir/ { autoindex on; } location /plain/ { alias $D/www/; sendfile off; } location /direct/ { alias $D/www/; directio 4k; aio off; } }
}
EOT
nginx -t -q -c "$D/conf" -p "$D" 2>&1; nginx -c "$D/conf" -p "$D" 2>&1; echo "status $?"
get() { curl -s --max-time 60 --unix-socket "$S/s" "$@"; }
for _ in $(seq 100); do get -o /dev/null http://x/ && break; sleep 0.05; done
get http://x/; get http://x/hello.txt; get http://x/link.txt; get -o /dev/null -w '%{http_code} %{size_download}\n' http://x/empty; get http://x/big.txt | md5sum; get http://x/plain/big.txt | md5sum; get http://x/direct/big.txt | md5sum
get -r 100-119 http://x/big.txt; echo; get -r -7 http://x/big.txt; get -r 5-9,20-29 http://x/big.txt | tr -d '\r' | grep -v -e -- | grep -c .; get -I http://x/hello.txt | tr -d '\r' | grep -E '^(HTTP|Content|Last|ETag|Accept)'
get -o /dev/null -w '%{http_code}\n' -z '2021-01-01' http://x/hello.txt; get -o /dev/null -w '%{http_code}\n' http://x/none; get -o /dev/null -w '%{http_code}\n' http://x/private/x; get http://x/dir/ | grep -c zeros; get -o /dev/null -w '%{http_code}\n' http://x/dir
for i in $(seq 8); do get -o "out$i" "http://x/big.txt?$i" & done; wait; md5sum out? | cut -d' ' -f1 | uniq -c | tr -s ' '; rm out?
mv log log.1; kill -USR1 "$(cat pid)"; for _ in $(seq 100); do [ -e log ] && break; sleep 0.05; done; get -o /dev/null http://x/rotated; for _ in $(seq 100); do [ -s log ] && break; sleep 0.05; done; grep -c rotated log; wc -l < log.1; rm log.1
sed -i 's/hello/good day/' www/hello.txt; sed -i 's/open_file_cache max=100/open_file_cache off/' conf; old=$(cat pid); kill -HUP "$old"; for _ in $(seq 100); do [ "$(get http://x/hello.txt)" = 'good day' ] && break; sleep 0.05; done; get http://x/hello.txt; echo "$(($(cat pid) - old))"
nginx -c "$D/conf" -p "$D" -s quit; for _ in $(seq 200); do [ -e pid ] || break; sleep 0.05; done; ls; grep -cE 'alert|crit|emerg' error.log
