# SPDX-License-Identifier: BSD-3-Clause
# what: vim -es: edits, backups, swap files, a crash and its recovery, write-protected and changed files
# needs: vim.tiny
set -u
cd "$D" || exit 1
v() { vim.tiny -es -u NONE -i NONE -T dumb "$@" < /dev/null; }
seq 1 2000 > n; v -c 'set ff=unix' -c '%s/7$/seven/' -c 'g/^1/d' -c '$put =\"end\"' -c wq n; echo "status $?"; wc -l < n; md5sum < n
v -c 'set backup backupext=.bak' -c '1d' -c x n; md5sum n n.bak | cut -d' ' -f1 | uniq | wc -l; v -c 'set backup backupcopy=yes' -c '1d' -c x n; ls; ln -s n l; ln n h; v -c '1d' -c x l; stat -c '%h %F' l h; cmp n h && echo "links kept"
v -c 'r !echo from a command' -c 'w new' -c 'q!' n; tail -n 1 new; v -c 'w !cat > filtered' -c q n; cmp n filtered && echo filtered; v -c 'sort! n' -c w -c q filtered; head -n 2 filtered
chmod 444 new; v -c '1d' -c 'w!' -c q new; stat -c %a new; wc -l < new; : > e; v -c 'call append(0, range(1, 5))' -c wq e; cat e; v -c 'set fileformat=dos' -c wq e; od -c e | head -n 1
vim.tiny -u NONE -i NONE -T dumb -n -es -c 'e ++enc=latin1 n' -c 'saveas copy' -c q < /dev/null; cmp n copy && echo saved; v -c 'e none/x' -c 'w' -c q; ls none 2>&1; v -c 'w ++p /dev/full' -c 'q!' n; echo "status $?"
(mkfifo /tmp/sc-e2e-vim.$$; vim.tiny -es -u NONE -i NONE -T dumb -c 'set updatecount=1 directory=.' -c '1s/^/CHANGED/' -c 'preserve' crash < /tmp/sc-e2e-vim.$$ & p=$!; exec 3> /tmp/sc-e2e-vim.$$; for _ in $(seq 200); do [ -s .crash.swp ] && break; sleep 0.05; done; sleep 0.5; kill -9 $p; wait $p 2>/dev/null; rm -f /tmp/sc-e2e-vim.$$)
ls -A | grep -c swp; v -r -c 'w! recovered' -c 'q!' crash; cat recovered; rm -f .crash.swp; ls -A
