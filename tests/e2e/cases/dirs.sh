# SPDX-License-Identifier: BSD-3-Clause
# what: large directories: 3,000 entries, seekdir/telldir, deleting while reading, long names, deep trees
# needs: python3 find
set -u
cd "$D" || exit 1
mkdir big; (cd big && seq -f 'file-with-a-longish-name-%05g' 1 3000 | xargs touch); ls big | wc -l; find big -type f | sort | md5sum
find big -name '*7' -delete; find big -type f | wc -l; ls -f big | wc -l
python3 - <<'EOT'
import os
n = 0
with os.scandir("big") as it:
    for e in it:
        if n % 2:
            os.unlink(e.path)
        n += 1
print(n, len(os.listdir("big")))
fd = os.open("big", os.O_RDONLY)
a = sorted(os.listdir(fd)); b = sorted(os.listdir(fd))
print(a == b, len(a))
p = "."
for i in range(60):
    p += "/deep%d" % i
    os.mkdir(p)
open(p + "/end", "w").close()
print(sum(len(f) for _, _, f in os.walk("deep0")))
name = "x" * 255
open(name, "w").close()
print(len(max(os.listdir("."), key=len)))
os.unlink(name)
EOT
rm -r big; rm -r deep0; ls
