#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-3-Clause
#
# peer-agent.sh - stands in the agent's place in the VM that scbench compares with (scbench_peer.py): exports the disk, which sc-init
# has mounted on /export, by SFTP over TCP port 2049, and lets scbench-work be asked at port 2050. Neither asks who calls: the only
# other machine on this network is the host that made it.

busybox=/bin/busybox
for word; do
	case $word in
	--address=*) address=${word#--address=} ;;
	esac
done

# sftp-server wants to know who it is.
$busybox mkdir -p /etc
echo 'root:x:0:0:root:/:/bin/sh' >/etc/passwd

$busybox ip link set lo up
$busybox ip address add "$address/30" dev eth0 || exit 1
$busybox ip link set eth0 up || exit 1
$busybox chmod 1777 /export
$busybox nc -ll -p 2049 -e /bin/sftp-server &
exec $busybox nc -ll -p 2050 -e /bin/scbench-work
