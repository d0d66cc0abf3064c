# SPDX-License-Identifier: BSD-3-Clause
# what: shells: redirections, inherited descriptors, pipes, here-documents, subshells sharing offsets, exec
set -u
cd "$D" || exit 1
exec 3>log; echo a >&3; (echo b >&3); sh -c 'echo c >&3'; echo d >&3; exec 3>&-; cat log
exec 4<log; read -r x <&4; echo "$x"; (read -r y <&4; echo "$y"); read -r z <&4; echo "$z"; exec 4<&-
{ echo out; echo err >&2; } >o 2>e; cat o e; { echo out; ls /nonexistent; } >both 2>&1; cat both
cat <<EOT > here
$((6 * 7)) lines
EOT
cat here; sort <<< $'b\na' > s; cat s
seq 1 2000 | grep 7 | sort -rn | head -n 5 > p; cat p
for i in 1 2 3; do echo $i; done > loop; while read -r l; do echo "<$l>"; done < loop
echo x >> app; echo y >> app; (echo z; echo w) >> app; cat app
set -C; echo no > app; set +C
cat < app > app2; cat app2 >&2; cat missing < app; cat < missing
exec 5<>rw; echo hello >&5; exec 5>&-; cat rw; : > empty; cat empty; wc -c < rw
a=$(<app); echo "$a"; mapfile -t m < app; echo "${#m[@]}"
(exec > sub; echo one; exec 6>&1; echo two >&6; bash -c 'echo three; echo four >&6'); cat sub
printf '#!/bin/sh\necho script "$@"\n' > local.sh; sh ./local.sh 1 2
bash -c 'exec 1>r1; exec sh -c "echo after exec"'; cat r1
find . -type f | sort | xargs -n 3 wc -c | grep -v total
(sleep 0.2; echo late) > bg & wait; cat bg
trap 'echo trapped > trap' USR1; kill -USR1 $$; cat trap
exit 7
