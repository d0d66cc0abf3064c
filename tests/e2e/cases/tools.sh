# SPDX-License-Identifier: BSD-3-Clause
# what: everyday tools: sed -i, awk, patch, diff, gzip, xargs -P, find -exec, tail -f, tee, mktemp, flock, process substitution
# exclude: n.gz p.diff
# needs: sed awk patch diff gzip xz perl tail timeout
# filter: s/^--- .*/---/; s/^[+]{3} .*/+++/; s/^tail: (inotify resources exhausted|inotify cannot be used, reverting to polling.*)$//; /^$/d
set -u
cd "$D" || exit 1
seq 1 3000 > n; cp n m; sed -i 's/7$/seven/' m; sed -i.orig '1~2d' m; wc -l m m.orig; diff n m.orig | head -n 4
diff -u n m > p.diff; cp n o; patch -s o p.diff && cmp o m && echo patched; patch -s -R o p.diff && cmp o n && echo reversed; ls *.orig *.rej 2>&1
awk '{ print > ("part" $1 % 5) }' n; wc -l part*; cat part? | sort -n | cmp - n && echo whole
awk 'BEGIN { while ((getline l < "n") > 0) s += l; print s; printf "x" >> "app"; close("app"); printf "y" >> "app" }'; cat app; echo
gzip -k n; gzip -t n.gz && zcat n.gz | cmp - n && echo gz; xz -k m && xzcat m.xz | cmp - m && echo xz; gzip -c m | gunzip > m2; cmp m m2; gzip -l n.gz | awk 'NR==2 { print $2 }'
mkdir t; seq 1 60 | xargs -P 4 -I{} sh -c 'echo {} > t/f{}; mv t/f{} t/g{}'; ls t | wc -l; cat t/* | sort -n | md5sum
find t -name 'g1*' -exec cat {} + | sort -n | tr '\n' ' '; find t -name 'g2*' -execdir rm {} \; ; ls t | wc -l; find t -newer n -type f | wc -l; find . -empty
diff <(sort n) <(sort part0 part1 part2 part3 part4) && echo equal; cat <(echo one) <(cat m | head -n 1) | tee >(wc -l > count) > both; sleep 0.3; cat count both
(for i in 1 2 3 4 5; do echo "line $i"; sleep 0.2; done > grow) & sleep 0.1; timeout 3 tail -n +1 -s 0.1 --pid=$! -f grow; wait; tail -n 2 grow; tac grow | head -n 1
tail -c 5 grow; head -c -5 grow | tail -n 1; dd if=grow bs=1 skip=5 count=1 status=none; echo; od -c grow | head -n 2; cut -d' ' -f2 grow | paste -sd+ | bc 2>/dev/null
T=$(mktemp -p . XXXX); echo x > "$T"; test -s "$T" && rm "$T"; T=$(mktemp -d -p .); touch "$T/a"; rm -r "$T"; ls -d ????
sha256sum n m > sums; sha256sum -c sums; echo >> n; sha256sum --quiet -c sums 2>&1 | head -n 1; truncate -s -1 n; sha256sum --status -c sums && echo good
for i in 1 2 3 4; do (for j in 1 2 3 4 5; do flock lock sh -c 'c=$(cat counter 2>/dev/null || echo 0); echo $((c + 1)) > counter'; done) & done; wait; cat counter
install -d i/j; install -m 711 n i/j/x; stat -c %a i/j/x; ln -s j i/k; cp -rL i l; ls l/k; cp -u n i/j/x; mv -u m2 n; ls m2 2>&1; chmod -R go= i; find i -printf '%m\n' | sort | uniq -c | tr -s ' '
chown -R 5:6 i; find i -printf '%U:%G %p\n' | sort; du -a --apparent-size t 2>/dev/null | wc -l; df . | wc -l; touch -r sums -d '1 day' ref; test ref -nt sums && echo newer
exec 3<>fifo.txt; echo abc >&3; exec 3<&-; read -r x < fifo.txt; echo "$x"; comm -3 <(seq 1 5) <(seq 2 6); join <(seq 1 4) <(seq 3 6); csplit -s n 100 200; wc -l xx*
seq 100000 | sort -R -S 1M -T . | sort -n -S 1M -T . | md5sum; yes | head -c 3000000 > y; md5sum < y; cat y y > yy; tail -c 3000000 yy | cmp - y && echo y; rev n | head -n 2
