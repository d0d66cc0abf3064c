# SPDX-License-Identifier: BSD-3-Clause
# what: tar creates, extracts, compresses, keeps modes, owners, times, hard links and sparse files
# needs: tar gzip xz
set -u
cd "$D" || exit 1
mkdir src; cd src
for i in $(seq 1 40); do mkdir -p "d$((i % 7))/e$((i % 3))"; seq 1 $((i * 37)) > "d$((i % 7))/e$((i % 3))/f$i"; done
ln d1/e1/f1 hard; ln -s d1/e1/f1 soft; mkfifo fifo; truncate -s 3M sparse; echo x | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
chmod 4711 d2/e2/f2; chown 12:34 d2/e2/f23 2>/dev/null; chmod 0700 d3
find . -exec touch -h -d '2020-02-02 02:02:02.5 UTC' {} +
cd ..
tar --sort=name --format=pax --pax-option=delete=atime,delete=ctime -cf a.tar src && sha256sum a.tar
tar -tvf a.tar | wc -l; tar --sort=name -czf a.tgz src; tar --sort=name -cJSf a.txz src
mkdir x y z; tar -xpf a.tar -C x; tar -xzf a.tgz -C y; tar -xJSf a.txz -C z
for t in x y z; do diff -r --no-dereference -x fifo src $t/src && echo "$t same"; (cd $t && find . -mindepth 1 -printf '%p %y %m %U %G %n %T@\n' | sort | sha256sum); done
tar -df a.tar && echo verified; tar --delete -f a.tar src/hard; tar -rf a.tar --transform s,^,added/, x/src/soft; tar -tf a.tar | tail -n 1
tar -cf - src | (mkdir p && cd p && tar -xf -); find p | sort | sha256sum; rm a.tgz a.txz a.tar
tar -xf missing.tar; echo "status $?"
