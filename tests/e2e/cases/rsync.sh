# SPDX-License-Identifier: BSD-3-Clause
# what: rsync -aHX into, inside and out of the remote tree; deltas, --delete, --inplace
# needs: rsync
set -u
cd "$D" || exit 1
mkdir src; for i in $(seq 1 60); do mkdir -p src/d$((i % 6)); seq 1 $((i * 91)) > src/d$((i % 6))/f$i; done
ln src/d1/f1 src/hard; ln -s d1/f1 src/soft; chmod 751 src/d2; find src -exec touch -h -d '2019-01-01 01:01:01 UTC' {} +
L=$(mktemp -d /tmp/sc-e2e-rsync.XXXXXX); trap 'rm -rf "$L"' EXIT
rsync -aH src/ dst/; rsync -aH --itemize-changes src/ dst/; echo changed >> src/d3/f3; touch -d '2019-05-05 05:05:05 UTC' src/d3/f3; rm src/d4/f4
rsync -aH --itemize-changes --delete --no-whole-file src/ dst/ | sort
rsync -aH src "$L/"; rsync -aHc --itemize-changes "$L/src/" back/ | wc -l; diff -r src back && echo same
seq 1 200000 > big; cp big big2; echo tail >> big; rsync --inplace --no-whole-file -t big big2; cmp big big2 && echo equal
(cd dst && find . -printf '%p %y %m %n\n' | grep -v ' d ' | sort) | sha256sum; stat -c %Y dst/d1/f1 dst/soft
rsync -a nothing there 2>&1 | grep -c 'No such file'
