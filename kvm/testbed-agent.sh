#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-3-Clause
#
# testbed-agent.sh - stands in the agent's place in the KVM test bed (testbed.py): makes the host's root directory, under
# a layer in memory that takes all writes, the root of a command. Started by sc-init with --command=FILE, a shell script on
# the host. The last line is "testbed: exit STATUS".

for word; do
	case $word in
	--command=*) command=${word#--command=} ;;
	esac
done

busybox=/bin/busybox
die() {
	echo "testbed: $*"
	echo "testbed: exit 125"
	exit 0
}

$busybox mkdir -p /run/host /run/layer /run/root
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /run/host ||
	die "the host's root directory cannot be mounted"
$busybox mount -t tmpfs -o size=75% layer /run/layer || die "no tmpfs"
$busybox mkdir /run/layer/upper /run/layer/work
$busybox mount -t overlay -o lowerdir=/run/host,upperdir=/run/layer/upper,workdir=/run/layer/work root /run/root ||
	die "no overlay"
for dir in proc sys dev; do
	$busybox mount --bind /$dir /run/root/$dir || die "no /$dir"
done
for dir in run tmp dev/shm; do
	$busybox mkdir -p /run/root/$dir
	$busybox mount -t tmpfs -o mode=1777 tmpfs /run/root/$dir || die "no /$dir"
done
$busybox mkdir -p /run/root/dev/pts
$busybox mount -t devpts -o mode=620,ptmxmode=666 devpts /run/root/dev/pts || die "no /dev/pts"
# Where the command script is: the layer above hides the host's /tmp and /run.
$busybox cp "/run/host$command" /run/root/run/command || die "$command is not on the host"
$busybox ip link set lo up 2>/dev/null
# As udev would: libvirt runs QEMU as a user of its own.
$busybox chmod 666 /dev/kvm
$busybox chroot /run/root /bin/sh /run/command
echo "testbed: exit $?"
exit 0
