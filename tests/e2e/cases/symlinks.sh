# SPDX-License-Identifier: BSD-3-Clause
# what: symbolic links inside, out of and into the remote tree, loops, long chains
set -u
L=$(mktemp -d /tmp/sc-e2e-local.XXXXXX); trap 'rm -rf "$L"' EXIT
ln -sfn "$L" /tmp/sc-e2e-fixed-"$(id -u)"; L=/tmp/sc-e2e-fixed-$(id -u); trap 'rm -rf "$(readlink "$L")" "$L"' EXIT
cd "$D" || exit 1
echo inside > f; mkdir d; echo deep > d/g; echo local > "$L/l"; mkdir "$L/ld"
ln -s f rel; ln -s "$D/f" abs; ln -s "$L/l" out; ln -s "$L" outdir; ln -s ../../../../../../../../../etc/hostname up
ln -s "$D/d" "$L/in"; ln -s "$D/f" "$L/inf"; ln -s loop1 loop2; ln -s loop2 loop1
for p in rel abs out outdir/l up outdir/in/g outdir/inf "$L/in/g" "$L/inf" "$L/in/../f" loop1 loop1/x; do
	echo "== ${p#"$L"}"; cat "$p" 2>&1; stat -L -c '%F %s' "$p" 2>&1
done
echo more >> abs; echo more >> out; echo more >> "$L/inf"; cat f "$L/l"
echo new > outdir/created; cat "$L/created"; echo new2 > "$L/in/created"; cat d/created
ln -s "$D/made-by-link" "$L/dangle"; echo via > "$L/dangle"; cat made-by-link
ln -s "$L/made-outside" dangle2; echo via2 > dangle2; cat "$L/made-outside"
cd "$L/in" && /bin/pwd -P; cat g; cd ..; /bin/pwd -P | sed "s,$(readlink "$L"),LOCAL,"
cd "$D/outdir" && /bin/pwd -P | sed "s,$(readlink "$L"),LOCAL,"; cat l; cd "$D"
i=0; ln -s f chain0; while [ $i -lt 39 ]; do ln -s chain$i chain$((i+1)); i=$((i+1)); done; cat chain38 chain39 2>&1
i=0; ln -s "$D/f" hop0; while [ $i -lt 50 ]; do ln -s "$D/hop$i" hop$((i+1)); i=$((i+1)); done; cat hop20; cat hop50
mv "$L/l" "$D/moved" && cat moved; mv moved "$L/back" && cat "$L/back"
rm out outdir up; ls; readlink -f abs; realpath -s abs
rm -f dangle2
