#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# setup.sh - make a fresh Debian 12 machine ready for vhost-sc: packages, build, patched QEMU, guest image.
#
#   kvm/setup.sh [packages] [build] [qemu] [image]      default: all four, in this order
#
# Every step is skipped when its inputs have not changed since it last succeeded, so a second run takes seconds. An
# interrupted run is simply repeated. Progress and timings go to standard error, full logs to .cache/log/.
# Run as root (packages are installed; the later steps do not need it).
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=$top/.cache
log=$cache/log
build=$top/build
mkdir -p "$log"

# What each purpose needs. One list for ./demo and ./check, so that both prepare the same machine.
PACKAGES_BUILD="dpkg-dev libdpdk-dev libnuma-dev libbsd-dev gcc gcc-12 make libelf1 meson ninja-build pkg-config liburing-dev libzydis-dev libcmocka-dev libseccomp-dev python3 git"
PACKAGES_RUN="libvirt-daemon-system libvirt-clients e2fsprogs util-linux iproute2 procps acl attr curl"
PACKAGES_TEST="sqlite3 lmdb-utils liblmdb-dev tar gzip xz-utils coreutils findutils rsync fio openssl libclang-rt-14-dev strace make perl patch binutils bc busybox-static groff-base qemu-system-x86 gdb nginx-light nodejs postgresql procps redis-server vim-tiny xfsprogs btrfs-progs apache2-utils bind9-dnsutils dnsmasq-base iperf3 iputils-ping memcached netcat-openbsd openssh-client openssh-server socat tshark wrk"
# What scbench compares with: a file system exported by a VM, mounted by FUSE.
PACKAGES_BENCH="fio sshfs fuse3 openssh-sftp-server"
PACKAGES_LINT="clang-format clang-tidy cppcheck shellcheck"

say()
{
	printf '%s\n' "setup: $*" >&2
}

die()
{
	say "$*"
	exit 1
}

# run NAME COMMAND...: runs a long step with its output in a log; on failure shows the log's end.
run()
{
	name=$1
	shift
	start=$(date +%s)
	if ! "$@" >"$log/$name.log" 2>&1; then
		tail -n 30 "$log/$name.log" >&2
		die "$name failed (whole log: $log/$name.log)"
	fi
	say "$name: done in $(($(date +%s) - start)) s"
}

# missing_packages LIST: those of it that are not installed.
missing_packages()
{
	for p in $1; do
		dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$p"
	done
}

install_packages()
{
	apt-get -o DPkg::Lock::Timeout=300 update
	# shellcheck disable=SC2086 # a list
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $1
}

# Programs for tests that would start as services: they are installed without that, on hosts that have a way to say so.
install_quietly()
{
	policy=/usr/sbin/policy-rc.d
	[ -e "$policy" ] && { install_packages "$1"; return; }
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	trap 'exit 1' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	failed=0
	install_packages "$1" || failed=1
	rm -f "$policy"
	trap - EXIT INT TERM
	return $failed
}

step_packages()
{
	need=$(missing_packages "$PACKAGES_BUILD $PACKAGES_RUN $PACKAGES_BENCH $PACKAGES_LINT")
	tests=$(missing_packages "$PACKAGES_TEST")
	if [ -z "$need$tests" ]; then
		say "packages: all installed"
		return
	fi
	[ "$(id -u)" = 0 ] || die "packages missing: $need$tests- install them, or run this as root"
	say "packages: installing $need$tests"
	[ -z "$need" ] || run packages install_packages "$need"
	[ -z "$tests" ] || run packages-test install_quietly "$tests"
}

step_build()
{
	if [ ! -f "$build/build.ninja" ]; then
		run configure meson setup "$build" "$top"
	fi
	if ninja -C "$build" -n 2>/dev/null | grep -q 'no work to do'; then
		say "build: up to date"
		return
	fi
	say "build: compiling"
	run build ninja -C "$build"
}

step_qemu()
{
	say "qemu: patched QEMU (some minutes the first time; kept in .cache/qemu)"
	start=$(date +%s)
	path=$("$top/qemu-patches/build-qemu.sh" | tail -n 1) || die "the patched QEMU could not be built (see above)"
	[ -x "$path" ] || die "build-qemu.sh named '$path', which is not a program"
	say "qemu: $path ($(($(date +%s) - start)) s)"
}

step_image()
{
	start=$(date +%s)
	"$top/kvm/build-image.sh" --role storage --agent "$build/guest-agent/sc-agent-static" --out "$cache/image/storage" ||
		die "the guest image could not be made (see above)"
	say "image: .cache/image/storage ($(($(date +%s) - start)) s)"
	start=$(date +%s)
	"$top/kvm/build-image.sh" --role network --agent "$build/guest-agent/sc-agent-net-static" --out "$cache/image/network" ||
		die "the guest image for network domains could not be made (see above)"
	say "image: .cache/image/network ($(($(date +%s) - start)) s)"
}

[ $# -gt 0 ] || set -- packages build qemu image
for step in "$@"; do
	case $step in
	packages | build | qemu | image) "step_$step" ;;
	--help | -h)
		sed -n '3,11s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*) die "unknown step '$step' (packages, build, qemu, image)" ;;
	esac
done
