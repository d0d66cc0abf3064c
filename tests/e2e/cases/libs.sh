# SPDX-License-Identifier: BSD-3-Clause
# what: shared libraries in the tree: LD_LIBRARY_PATH, LD_PRELOAD, DT_RUNPATH with $ORIGIN, libraries of libraries, dlopen, constructors
# needs: gcc python3
set -u
cd "$D" || exit 1
mkdir lib lib2 bin
cat > a.c <<'EOT'
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
int b(int);
static __thread int mine = 3;
__attribute__((constructor)) static void begin(void) { char c; int f = open(getenv("D"), O_RDONLY); printf("constructor %d %zd\n", f >= 0, read(f, &c, 1)); fflush(stdout); close(f); }
__attribute__((destructor)) static void end(void) { printf("destructor\n"); }
int a(int x) { return b(x) + mine; }
EOT
echo 'int b(int x) { return 2 * x; }' > b.c
echo 'int c(int x) { return x - 1; }' > c.c
echo '#include <unistd.h>
int getppid_calls; pid_t getppid(void) { getppid_calls++; return 77; }' > pre.c
cat > main.c <<'EOT'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int a(int);
int main(int argc, char **argv)
{
	Dl_info i;
	void *h = dlopen("libc1.so", RTLD_NOW);
	int (*c)(int) = h ? (int (*)(int))dlsym(h, "c") : NULL;

	printf("%d %d parent %d\n", a(5), c ? c(5) : -1, getppid() == 77 ? 77 : 0);
	if (dladdr((void *)a, &i))
		printf("from %s\n", i.dli_fname);
	if (argc > 1) {
		fflush(stdout);
		execl(argv[1], argv[1], (char *)NULL);
	}
	return 0;
}
EOT
gcc -shared -fPIC -o lib2/libb.so b.c && gcc -shared -fPIC -Wl,-soname,libc1.so -o lib2/libc1.so c.c && gcc -shared -fPIC -o lib/liba.so a.c -Llib2 -lb '-Wl,-rpath,$ORIGIN/../lib2' && gcc -shared -fPIC -o pre.so pre.c || exit 1
gcc -o bin/plain main.c -Llib -la -Wl,-rpath-link,lib2 && gcc -o bin/origin main.c -Llib -la -Wl,-rpath-link,lib2 '-Wl,-rpath,$ORIGIN/../lib:${ORIGIN}/../lib2,--enable-new-dtags' || exit 1
T=$(mktemp -d /tmp/sc-e2e-libs.XXXXXX); cp bin/plain "$T/plain"; trap 'rm -rf "$T"' EXIT; LP="$D/lib:/nonexistent:$D/lib2"
echo "== program here"; LD_LIBRARY_PATH=$LP bin/plain; bin/origin; bin/plain 2>&1 | sed 's/.*error/error/'; echo "status ${PIPESTATUS[0]}"
echo "== program elsewhere"; LD_LIBRARY_PATH=$LP "$T/plain"; LD_LIBRARY_PATH=$LP LD_PRELOAD=$D/pre.so "$T/plain"; LD_PRELOAD="$D/pre.so" sh -c 'echo $PPID; exec bin/origin'; LD_LIBRARY_PATH=$LP "$T/plain" "$D/bin/origin"; LD_LIBRARY_PATH=$LP bash -c "'$T/plain'; env | grep ^LD_ | sed 's,$D,D,g'"
echo "== python"; LD_LIBRARY_PATH=$LP python3 -c 'import ctypes; print(ctypes.CDLL("liba.so").a(4), ctypes.CDLL("libc1.so").c(4))'; python3 -c 'import ctypes, os; ctypes.CDLL(os.environ["D"] + "/lib2/libb.so", ctypes.RTLD_GLOBAL); print(ctypes.CDLL(os.environ["D"] + "/lib2/libc1.so").c(4))'
export LD_LIBRARY_PATH=$LP; for i in 1 2 3; do "$T/plain" > out$i & done; wait; cat out1; cmp out1 out2; (ulimit -n 20; "$T/plain" | tail -n 1); cp lib2/libb.so broken; truncate -s 100 lib2/libb.so; "$T/plain" 2>&1 | sed 's/.*error/error/'; rm lib2/libb.so; "$T/plain" 2>&1 | sed 's/.*error/error/'
rm -rf bin lib lib2 pre.so broken
