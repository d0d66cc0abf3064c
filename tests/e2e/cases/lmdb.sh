# SPDX-License-Identifier: BSD-3-Clause
# what: lmdb: mdb_load, mdb_dump, mdb_stat, mdb_copy; two writers and two readers at once, by pwrite and through the mapping
# needs: mdb_load mdb_dump mdb_stat mdb_copy
# timeout: 120
# exclude: *.mdb
set -u
cd "$D" || exit 1
mkdir env db copy compact
{
	printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=33554432\nmaxreaders=126\nHEADER=END\n'
	seq 1 5000 | while read -r i; do printf ' key%05d\n value %d of many\n' "$i" "$i"; done
	echo DATA=END
} >dump
mdb_load -f dump db; echo "load $?"
mdb_stat db; echo "stat $?"
mdb_dump db | sha256sum
mdb_copy db copy; mdb_copy -c db compact; echo "copy $?"
mdb_dump copy | sha256sum; mdb_dump compact | sha256sum
"$TOOLS/sclmdb"; echo "status $?"
mdb_stat env | grep Entries; mdb_stat -rr env; rm -f env/*
"$TOOLS/sclmdb" --writemap; echo "status $?"
mdb_stat env | grep Entries
