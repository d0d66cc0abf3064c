# SPDX-License-Identifier: BSD-3-Clause
# what: shared mappings: coherence between processes and with read and write, truncation, SIGBUS, protections, kill -9
# timeout: 120
set -u
cd "$D" || exit 1
"$TOOLS/scmmap"; echo "status $?"
rm -f two count
