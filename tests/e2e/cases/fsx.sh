# SPDX-License-Identifier: BSD-3-Clause
# what: scfsx: random file operations against a model, seed printed by the runner
# timeout: 120
set -u
cd "$D" || exit 1
"$TOOLS/scfsx" --seed "$SEED" --ops 3000 --dir "$D" --max-size 300000; echo "status $?"
"$TOOLS/scfsx" --seed "$((SEED + 1))" --ops 3000 --dir "$D" --processes 3 --max-size 100000; echo "status $?"
