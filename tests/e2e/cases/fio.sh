# SPDX-License-Identifier: BSD-3-Clause
# what: fio writes and verifies with psync, vsync, buffered and O_DIRECT, several jobs
# needs: fio
# timeout: 120
# exclude: j* *.state
# filter: /verify|error|err=/I!d; s/: pid=.*//; s/: .*err=/ err=/
set -u
cd "$D" || exit 1
common="--size=4M --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$SEED --group_reporting --thread=0"
fio --name=j1 --rw=randwrite --bs=4k --ioengine=psync $common 2>&1
fio --name=j2 --rw=randrw --bsrange=512-64k --bs_unaligned=1 --ioengine=vsync --numjobs=2 $common 2>&1
fio --name=j3 --rw=randwrite --bs=4k --direct=1 --ioengine=psync $common 2>&1
fio --name=j4 --rw=write --bs=256k --ioengine=pvsync --fsync=4 --thread=1 --numjobs=2 $common --thread=1 2>&1
echo "done $?"
