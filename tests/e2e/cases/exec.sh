# SPDX-License-Identifier: BSD-3-Clause
# what: programs and scripts on remote paths: execve, PATH, #! lines, permissions, inherited descriptors, /proc/self/exe
# needs: gcc python3
set -u
cd "$D" || exit 1
mkdir bin; cp /bin/echo bin/myecho; cp /bin/cat bin/mycat; PATH="$D/bin:$PATH"; export PATH
bin/myecho one; ./bin/myecho two; "$D/bin/myecho" three; myecho four; (exec bin/myecho five); env bin/myecho six; echo seven | mycat
printf '#!/bin/sh\necho "script $0" "$@"\n' > s.sh; chmod 755 s.sh; ./s.sh a b; "$D/s.sh" c; printf '#!%s/bin/mycat\nshown by mycat\n' "$D" > t; chmod 755 t; ./t
printf '#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], open(sys.argv[0]).readline())\n' > p.py; chmod 755 p.py; ./p.py x y; printf '#! %s/s.sh  arg  \n' "$D" > u; chmod 755 u; ./u z
printf 'no magic $0\n' > n; chmod 755 n; bash -c './n'; printf '#!/nonexistent/interp\n' > v; chmod 755 v; ./v 2>&1 | sed 's/.*: //'; chmod 644 s.sh; ./s.sh; ./missing; ./bin; : > e; chmod 755 e; ./e; echo "status $?"
cat > c.c <<'EOT'
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <spawn.h>
extern char **environ;
int main(int argc, char **argv)
{
	char path[4096] = "";
	pid_t pid;
	int st;
	char *args[] = {"prog", "again", NULL}, **e;
	unsigned long *auxv;

	for (e = environ; *e; e++)
		;
	for (auxv = (unsigned long *)(e + 1); auxv[0]; auxv += 2) /* as Go's run-time system looks for it */
		if (auxv[0] == 6)
			printf("page size %lu\n", auxv[1]);
	printf("%d args, name %s\n", argc, strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0]);
	if (readlink("/proc/self/exe", path, sizeof(path) - 1) > 0)
		printf("exe %s\n", strrchr(path, '/'));
	fflush(stdout);
	if (argc > 1)
		return 42;
	if (posix_spawn(&pid, "./prog", NULL, NULL, args, environ) == 0 && waitpid(pid, &st, 0) == pid)
		printf("spawned: %d\n", WEXITSTATUS(st));
	if ((pid = vfork()) == 0)
		_exit(execl("./prog", "prog", "vforked", (char *)NULL));
	waitpid(pid, &st, 0);
	printf("vforked: %d\n", WEXITSTATUS(st));
	return 7;
}
EOT
gcc -o prog c.c && ./prog; echo "status $?"; LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6 ./prog x; LD_LIBRARY_PATH=/nonexistent ./prog x; (cd bin; ../prog x); cp prog /tmp/sc-e2e-prog.$$; /tmp/sc-e2e-prog.$$ x | grep page; rm /tmp/sc-e2e-prog.$$
exec 7>out; bash -c 'exec ./bin/myecho through seven >&7'; exec 7>&-; cat out; ./bin/mycat < out; (cd bin && ./myecho in bin && ../prog x)
python3 - <<'EOT'
import os, subprocess
print(subprocess.run(["./prog", "x"], stdout=subprocess.PIPE).stdout, subprocess.run(["myecho", "y"], stdout=subprocess.PIPE, cwd="bin").stdout)
fd = os.open("bin/myecho", os.O_RDONLY)
pid = os.fork()
if pid == 0:
    os.execve(fd, ["myecho", "by descriptor"], os.environ)
print(os.waitpid(pid, 0)[1])
pid = os.fork()
if pid == 0:
    os.setuid(65534)
    try:
        os.execv("./bin/secret", ["secret"])
    except OSError as e:
        print("refused", e.errno, flush=True)
    os._exit(1)
os.waitpid(pid, 0)
EOT
cp -p bin/mycat bin/secret; chmod 700 bin/secret; bin/secret out; find . -name s.sh -exec ./bin/mycat {} \; ; ls bin | xargs -n 1 ./bin/myecho; type -p myecho | sed "s,$D,D,"
ln -s bin/myecho link; ./link by link; ln bin/myecho hard; ./hard by hard link; rm -f hard link prog
