# SPDX-License-Identifier: BSD-3-Clause
# what: cp -a, ls -lR, mv, ln, rm, touch, chmod, install, head, tail, wc, cmp, split, tee, du on a small tree
# needs: cp ls mv ln rm touch chmod install split cmp
set -u
cd "$D" || exit 1
mkdir -p a/b/c "a/with space" a/empty
for i in 1 2 3 4 5 6 7 8 9; do seq 1 "${i}00" > "a/b/f$i"; done
printf 'no newline' > "a/with space/x y"
ln -s f1 a/b/sym; ln -s ../b a/c-link; ln -s /nowhere/at/all a/dangling; ln a/b/f2 a/b/hard2
mkfifo a/fifo
chmod 4755 a/b/f3; chmod 000 a/b/f4; chmod 1777 a/empty; chmod g+s a/b/c
touch -d '2001-02-03 04:05:06.789 UTC' a/b/f5; touch -h -d '2002-03-04 UTC' a/b/sym
cp -a a copy; cp -r --preserve=mode a/b copy2; cp a/b/f1 a/b/f9 copy/empty/
cp --sparse=always a/b/f9 sparse; cp -l a/b/f6 linked; cp -s "$D/a/b/f7" symlinked
find . -printf '%p %y %m %n %s %l\n' | grep -v ' d ' | sort
ls -lR --time-style=+ copy | sed 's/^total .*//'
stat -c '%n %a %F %h %s %Y' a/b/f5 copy/b/f5 a/b/sym
mv copy/b/f1 copy/b/renamed; mv copy/b moved; mv moved a/empty/; mv nothing elsewhere
mv -n a/b/f1 a/b/f2; mv -T a/b/f8 a/b/f9
rm a/b/f1; rm a/nothing; rm -r a/empty; rmdir a/b; rm -rf copy2
install -m 640 -D a/b/f2 inst/deep/f2
head -c 100 a/b/f9 | tail -n 3; wc a/b/f*; cmp a/b/f2 a/b/hard2 && echo same; cmp a/b/f2 a/b/f3
split -l 50 a/b/f6 part.; cat part.* | cmp - a/b/f6 && echo joined
echo one | tee t1 t2 >/dev/null; echo two >> t1; echo three | tee -a t1; cat t1 t2
truncate -s 12345 t2; truncate -s +1 t2; truncate -s -345 t2; stat -c %s t2
mktemp -p . tmp.XXXXXX >/dev/null && rm tmp.*
sort -R --random-source=a/b/f9 a/b/f3 | sort -n -o sorted; md5sum sorted a/b/f3
shuf -i 1-5000 --random-source=a/b/f9 | sort -S 32K -T . -n | md5sum
comm -12 <(sort a/b/f2) <(sort a/b/f3) | wc -l; paste a/b/f2 a/b/f3 | md5sum; nl t1; tac t1; rev t1 2>/dev/null
readlink a/b/sym; readlink -f a/c-link/f3; realpath a/b/../c-link/f2; basename "$PWD"; test -e a/dangling || echo dangling
ls a/missing; cat a/missing; cat a; mkdir a; mkdir a/x/y; ln a/b/f2 a/b/f3; ln -s x a/b/f3; touch a/b/f2/x
test -x a/b/f3 && echo x; test -w a/b/f4 && echo w; [ a/b/f2 -ef a/b/hard2 ] && echo ef; [ a/b/f5 -ot a/b/f6 ] && echo ot
sync -d t1; sync -f t1; sync t1; echo done
