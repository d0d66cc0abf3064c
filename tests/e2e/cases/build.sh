# SPDX-License-Identifier: BSD-3-Clause
# what: gcc, make, ar, ld, nm, strip, gdb-less debugging information: a small C project built in the tree, run outside
# needs: gcc make ar nm strip objdump perl
# timeout: 120
# filter: s/time [0-9]+ s in/time in/
# exclude: *.o *.a prog libx.so
set -u
cd "$D" || exit 1
mkdir src include
for i in $(seq 1 12); do printf '#include "x.h"\nint f%d(int a) { return a * %d + BASE; }\n' "$i" "$i" > src/f$i.c; echo "int f$i(int a);" >> include/x.h; done
echo '#define BASE 7' >> include/x.h
{ echo '#include <stdio.h>'; echo '#include "x.h"'; echo 'int main(void) { int s = 0;'; for i in $(seq 1 12); do echo "s += f$i(s);"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
cat > Makefile <<'EOT'
OBJ = $(patsubst src/%.c,src/%.o,$(wildcard src/*.c))
prog: main.o libx.a
	$(CC) -o $@ main.o -L. -lx
libx.a: $(OBJ)
	$(AR) rcs $@ $^
%.o: %.c include/x.h
	$(CC) -g -O1 -Iinclude -MMD -c -o $@ $<
libx.so: $(OBJ)
	$(CC) -shared -o $@ $^
clean:
	rm -f prog libx.a libx.so main.o $(OBJ)
EOT
make -s -j2 prog; make -q prog; echo "up to date $?"; T=$(mktemp /tmp/sc-e2e-prog.XXXXXX); install -m 755 prog "$T"; "$T"; rm -f "$T"
touch -d '+1 minute' src/f3.c; make -n prog | grep -c f3; make -s prog; nm libx.a | grep -c ' T '; ar t libx.a | sort | md5sum; strip -o stripped prog; objdump -t stripped | grep -c f3
find . -name '*.d' | sort | xargs cat | md5sum; rm -f stripped; sed -i 's/BASE 7/BASE 8/' include/x.h; sleep 1; touch include/x.h; make -s prog; install -m 755 prog "$T"; "$T"; rm -f "$T"
perl -e 'open(F, "+>", "p") or die; print F "abc\n" x 1000; seek(F, 0, 0); my @l = <F>; print scalar(@l), "\n"; close F; rename "p", "q"; print -s "q", "\n"; opendir(D, "src"); print scalar(grep(/\.c$/, readdir(D))), "\n"; utime 5, 6, "q"; print((stat "q")[9], "\n")'
perl -pi -e 's/abc/xyz/' q; head -n 1 q; perl -i.bak -ne 'print unless $. % 2' q; wc -l q q.bak
make -s clean; find . -name '*.o'; rm -f src/*.d main.d
