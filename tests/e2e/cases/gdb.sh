# SPDX-License-Identifier: BSD-3-Clause
# what: gdb on a program that runs under scrun: breakpoints, watchpoints, backtraces, following forks and threads, attaching, core files
# needs: gdb gcc
# exclude: *
# (core files hold addresses)
# timeout: 120
# filter: s/0x[0-9a-f]+/ADDR/g; s/(process|LWP|Thread) [0-9ADR]+/\1 N/g; s/core\.[0-9]+/core.N/; s/\(LWP N\)//; s/^Hardware watch/Watch/
set -u
cd "$D" || exit 1
cat > p.c <<'EOT'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int counter;
static int deep(int n) { counter = n; return n ? deep(n - 1) + 1 : 0; }
static void *thread(void *p) { FILE *f = fopen("thread", "w"); fputs("x", f); fclose(f); *(int *)p = 5; return p; }
static void handler(int s) { FILE *f = fopen("handled", "w"); fprintf(f, "%d", s); fclose(f); }
int main(int argc, char **argv)
{
	FILE *f = fopen("out", "w");
	pthread_t t;
	int v = 0;
	fprintf(f, "%d\n", deep(5)); fclose(f);
	signal(SIGUSR1, handler); raise(SIGUSR1);
	pthread_create(&t, NULL, thread, &v); pthread_join(t, NULL);
	if (argc > 1 && !strcmp(argv[1], "wait")) { f = fopen("pid", "w"); fprintf(f, "%d\n", getpid()); fclose(f); rename("pid", "pid2"); while (access("go", F_OK)) usleep(20000); }
	if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)8 = 1;
	if (fork() == 0) { f = fopen("child", "w"); fputs("c", f); fclose(f); _exit(3); }
	wait(&v);
	printf("v %d\n", WEXITSTATUS(v));
	return 4;
}
EOT
gcc -g -O0 -no-pie -o p p.c -pthread || exit 1
g() { gdb -q -nx -batch -ex 'set debuginfod enabled off' -ex 'set confirm off' -ex 'set print thread-events off' -ex 'set print inferior-events off' -ex 'set auto-load no' -ex 'set libthread-db-search-path /nonexistent' -ex 'handle SIGSYS SIGUSR1 nostop noprint pass' "$@" 2>/dev/null < /dev/null | grep -vE '^(SIGSYS|Signal  |\[Thread debugging|Using host|warning|\[New|\[Switching|$)'; }
g -ex 'break deep if n == 2' -ex run -ex bt -ex 'print counter' -ex 'finish' -ex 'info breakpoints' -ex delete -ex continue ./p | grep -vE 'Hits|already hit'; cat out handled thread child; echo
g -ex 'break main' -ex run -ex 'watch counter' -ex continue -ex continue -ex 'delete' -ex 'next' -ex 'next' -ex 'call deep(2)' -ex 'print v' -ex kill ./p
g -ex 'handle SIGUSR1 stop print pass' -ex run -ex bt -ex continue ./p | grep -oE 'Program received.*|in (main|__GI_raise) .*|\[Inf.*'; g -ex 'run crash' -ex 'bt' ./p; g -ex 'set follow-fork-mode child' -ex 'break _exit' -ex run -ex 'bt 1' -ex continue ./p | grep -c main
g -ex 'catch syscall rename' -ex 'print 1' ./p | tail -n 1
rm -f go pid2; ./p wait & for _ in $(seq 400); do [ -e pid2 ] && break; sleep 0.05; done
g -ex "attach $(cat pid2)" -ex 'print counter' -ex 'frame function main' -ex 'print argc' -ex 'print v' -ex 'set var v = 9' -ex 'gcore core' -ex detach ./p | grep -E '^\$|Saved'; touch go; wait $!; echo "status $?"; g -ex 'print counter' -ex 'frame function main' -ex 'print v' ./p core | grep '^\$'
rm -f p core
