# SPDX-License-Identifier: BSD-3-Clause
# what: dd with sizes from 1 byte to 4 MiB, seek and skip, conv=notrunc/sparse/fsync, O_DIRECT, O_APPEND, O_SYNC
# filter: s/copied, .*/copied/
set -u
cd "$D" || exit 1
openssl enc -aes-128-ctr -pass pass:x -nosalt -pbkdf2 < /dev/zero 2>/dev/null | head -c 9000001 > r
for bs in 1 511 4096 65536 65537 262144 1048576 4194304; do
	n=$((bs < 100 ? 5000 : 2000000 / bs + 2)); dd if=r of=o$bs bs=$bs count=$n; dd if=o$bs bs=$bs status=none | md5sum
done
dd if=r of=s bs=1000 skip=3 seek=7 count=11; md5sum s; dd if=r of=s bs=333 seek=2 count=5 conv=notrunc; md5sum s
dd if=/dev/zero of=z bs=64k count=20 conv=sparse; stat -c '%s' z; dd if=r of=f bs=100k count=5 conv=fsync,fdatasync
dd if=r of=d bs=1M count=4 oflag=direct; dd if=d of=/dev/null bs=256k iflag=direct; md5sum d
dd if=r of=a bs=10 count=3 oflag=append conv=notrunc; dd if=r of=a bs=10 count=3 oflag=append conv=notrunc; md5sum a
dd if=r of=y bs=4k count=10 oflag=sync; dd if=r of=y2 bs=4k count=10 oflag=dsync; dd if=r of=e oflag=excl bs=1 count=1; dd if=r of=e oflag=excl conv=excl bs=1 count=1
dd if=missing of=q; dd if=r of=nodir/q bs=1 count=1; dd if=r bs=5M count=1 2>/dev/null | md5sum; dd if=r of=n bs=1M oflag=nofollow count=1
cat r r r > big; md5sum big; fallocate -l 5M big; fallocate -p -o 4096 -l 1M r; md5sum r; fallocate -l 2M alloc; stat -c '%s %b' alloc
fallocate -z -o 0 -l 8192 r; md5sum r; fallocate -c -o 4096 -l 4096 r; md5sum r; fallocate -d big; md5sum big
