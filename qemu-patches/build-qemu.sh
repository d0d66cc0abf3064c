#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# build-qemu.sh - builds the QEMU that has vhost-user-sc-pci.
#
#   qemu-patches/build-qemu.sh [--prefix DIR] [--jobs N] [--keep]
#
# Takes Debian's source package of QEMU at the version that this machine would install, applies the series, and builds
# qemu-system-x86_64 with what service domains use (KVM, TCG, vhost-user, vhost-net, seccomp, io_uring, NUMA), and qemu-img.
# The last line on stdout is the path of qemu-system-x86_64; everything else goes to stderr.
#
#   --prefix DIR   install there; default: .cache/qemu/<key> at the top of the tree, with .cache/qemu/current naming it
#   --jobs N       parallel compilations; default: one for each processor
#   --keep         keep source and object files (about 1 GB) when done
#
# How it works:
#
# - <key> is a hash of this script, the series and the source version. If what is installed has this key, nothing is
#   done. So a change of any of them, a security update of Debian's package included, makes a new build.
# - The source is fetched by apt, with the signatures checked, from the machine's own package sources: a private copy
#   of their configuration says deb-src where the original says deb. Neither the machine's configuration nor its package
#   lists are touched.
# - Work goes on in .cache/qemu/work-<key>. Each step leaves its result under its final name only when complete, so
#   after an interruption the next run continues where this one stopped.
# - Root is needed only if packages are missing.
#
# Firmware: Debian's source package comes without binary blobs. The option ROMs that start a kernel given with -kernel
# are built from it (they are 16-bit code; the plain compiler makes them). BIOS and network boot ROMs are those of the
# packages seabios and ipxe-qemu, found where these install them.

set -eu
umask 022

# What a fresh Debian 12 needs to build this QEMU, and to run it.
packages="
dpkg-dev gcc libc6-dev libfdt-dev libglib2.0-dev libnuma-dev libpixman-1-dev libseccomp-dev liburing-dev make meson ninja-build
patch perl pkg-config python3 xz-utils zlib1g-dev
ipxe-qemu seabios"

# What of QEMU is built. Everything else is off.
features="
--enable-system --target-list=x86_64-softmmu --enable-kvm --enable-tcg --enable-tools --enable-fdt=system
--enable-vhost-user --enable-vhost-kernel --enable-vhost-net --enable-seccomp --enable-linux-io-uring
--enable-numa --enable-avx2 --enable-coroutine-pool --enable-malloc-trim --enable-membarrier --enable-pie --enable-stack-protector"

# Prefix of commands: Meson and its Python are Debian's, whatever else is in the caller's PATH; and no flags from there.
clean="env -u CC -u CFLAGS -u CPPFLAGS -u LDFLAGS PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=$(dirname -- "$here")/.cache/qemu
prefix=
jobs=$(nproc)
keep=false
background=

say()
{
	echo "build-qemu: $*" >&2
}

die()
{
	say "$*"
	exit 1
}

usage()
{
	sed -n 's/^# \{0,1\}//; 3,14p' "$0" >&2
	exit 2
}

# run LOG COMMAND...: runs the command with its output in LOG; if it fails, shows the end of LOG and ends.
run()
{
	log=$1
	shift
	"$@" >"$log" 2>&1 && return
	tail -n 30 "$log" >&2
	die "failed: $1 (the whole output is in $log)"
}

stop_background()
{
	[ -z "$background" ] || kill "$background" 2>/dev/null || :
}

# The version of the source package that the machine's package lists offer, or nothing.
candidate()
{
	apt-cache show --no-all-versions qemu-system-x86 2>/dev/null |
		sed -n 's/^Source: qemu (\(.*\))$/\1/p; s/^Version: \(.*\)$/\1/p' | head -n 1
}

need_root()
{
	[ "$(id -u)" -eq 0 ] || die "$1; run this as root once"
}

update_lists()
{
	need_root "apt's package lists do not offer qemu-system-x86"
	say "updating the package lists"
	run "$cache/apt-update.log" apt-get update
}

install_packages()
{
	missing=
	for package in $packages; do
		dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	need_root "packages are missing:$missing"
	say "installing packages:$missing"
	# shellcheck disable=SC2086 # a list of words
	run "$cache/apt-install.log" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends $missing
}

# deb_src_list FILE...: one-line sources, made to say deb-src.
deb_src_list()
{
	sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}/deb-src /p' "$@" | grep -v 'cdrom:' || :
}

# deb_src_stanzas FILE...: deb822 sources, made to say deb-src; those that are disabled or have no deb are dropped.
deb_src_stanzas()
{
	awk '
	function flush() {
		if (stanza != "" && types ~ /(^|[ \t])deb([ \t]|$)/ && !disabled)
			printf "Types: deb-src\n%s\n", stanza
		stanza = types = ""
		disabled = 0
	}
	FNR == 1 || /^[ \t]*$/ { flush() }
	/^[ \t]*$/ || /^#/ { next }
	tolower($1) == "types:" { sub(/^[^:]*:[ \t]*/, ""); types = $0; next }
	tolower($1) == "enabled:" { disabled = tolower($2) == "no" || tolower($2) == "false"; next }
	{ stanza = stanza $0 "\n" }
	END { flush() }' "$@"
}

# private_apt DIRECTORY: prepares it for apt_in.
private_apt()
{
	mkdir -p "$1/parts" "$1/lists/partial" "$1/cache/archives/partial"
	list=/etc/apt/sources.list
	parts=/etc/apt/sources.list.d
	eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
	parts=${parts%/}
	: >"$1/parts/machine.list"
	: >"$1/parts/machine.sources"
	for file in "$list" "$parts"/*.list; do
		[ ! -f "$file" ] || deb_src_list "$file" >>"$1/parts/machine.list"
	done
	for file in "$parts"/*.sources; do
		[ ! -f "$file" ] || deb_src_stanzas "$file" >>"$1/parts/machine.sources"
	done
}

# apt_in DIRECTORY ARGUMENTS...: apt-get with configuration and state of its own there.
apt_in()
{
	directory=$1
	shift
	apt-get -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$directory/parts" \
		-o Dir::State::lists="$directory/lists" -o Dir::Cache="$directory/cache" \
		-o APT::Sandbox::User=root "$@"
}

# What QEMU's own checkpatch says of the series goes to $work/checkpatch, which should stay empty; tests/qemu looks at it
# where it is installed.
check_patches()
{
	cd "$work/fetch/source"
	sed '/^#/d; /^$/d' "$here/series" | while read -r name; do
		$clean perl scripts/checkpatch.pl --strict -q "$here/$name" 2>&1 || :
	done >"$work/checkpatch"
}

# Leaves the patched source in $work/source.
get_source()
{
	[ ! -d "$work/source" ] || return 0
	say "fetching the source of QEMU $version"
	rm -rf "$work/fetch"
	mkdir -p "$work/fetch"
	private_apt "$work/fetch/apt"
	# A third party's repository may have no sources. What counts is whether QEMU's can be had.
	apt_in "$work/fetch/apt" update >"$work/update.log" 2>&1 || :
	(cd "$work/fetch" && run "$work/source.log" apt_in "$work/fetch/apt" source --download-only "qemu=$version") ||
		die "the source of QEMU $version cannot be had from this machine's package sources; try apt-get update"
	run "$work/unpack.log" dpkg-source --no-check -x "$work"/fetch/qemu_*.dsc "$work/fetch/source"
	(check_patches)
	say "applying the series"
	while read -r name; do
		case $name in '' | '#'*) continue ;; esac
		run "$work/patch.log" patch -d "$work/fetch/source" -p1 -F0 --no-backup-if-mismatch -i "$here/$name"
	done <"$here/series"
	rm -rf "$work/fetch/apt"
	mv "$work/fetch/source" "$work/source"
}

configure_in_build()
{
	cd "$work/build"
	# shellcheck disable=SC2086 # lists of words
	$clean ../source/configure --without-default-features $features \
		--disable-user --disable-docs --disable-install-blobs --disable-debug-info --disable-werror \
		--audio-drv-list= --with-git-submodules=ignore --meson=meson \
		--with-pkgversion="$version with vhost-sc $key" \
		--firmwarepath=/usr/share/seabios:/usr/lib/ipxe/qemu
}

configure()
{
	[ ! -e "$work/build/configured" ] || return 0
	say "configuring"
	rm -rf "$work/build"
	mkdir -p "$work/build"
	(run "$work/configure.log" configure_in_build)
	touch "$work/build/configured"
}

# Tells, from the last line that ninja wrote, how far it is.
show_progress()
{
	percent=$(tail -c 2000 "$work/ninja.log" | tr '\r' '\n' | sed -n 's/^\[ *\([0-9]*\)%.*/\1/p' | tail -n 1)
	percent=$((${percent:-0} / 10 * 10))
	[ "$percent" -gt "$shown" ] || return 0
	shown=$percent
	say "compiling: $shown %"
}

compile()
{
	say "compiling with $jobs jobs (a few minutes)"
	shown=0
	# With exec, $! is ninja's, which stops the compilers when it is stopped.
	(exec $clean NINJA_STATUS='[%p] ' nice ninja -C "$work/build" -j "$jobs" qemu-system-x86_64 qemu-img \
		>"$work/ninja.log" 2>&1) &
	background=$!
	while kill -0 "$background" 2>/dev/null; do
		sleep 1
		show_progress
	done
	if ! wait "$background"; then
		background=
		sed -n '/^FAILED:/,$p' "$work/ninja.log" | head -n 40 >&2
		tail -n 5 "$work/ninja.log" >&2
		die "compilation failed (the whole output is in $work/ninja.log)"
	fi
	background=
	mkdir -p "$work/rom"
	# shellcheck disable=SC2086 # a list of words
	run "$work/rom.log" $clean make -C "$work/rom" -f "$work/source/debian/optionrom.mak" \
		SRC_PATH="$work/source" all
}

install_files()
{
	say "installing to $prefix"
	new=$prefix.new
	rm -rf "$new"
	mkdir -p "$new/bin" "$new/share/qemu"
	cp "$work/build/qemu-system-x86_64" "$work/build/qemu-img" "$new/bin/"
	cp "$work"/rom/*.bin "$new/share/qemu/"
	"$new/bin/qemu-system-x86_64" -device vhost-user-sc-pci,help >/dev/null ||
		die "the new QEMU does not know vhost-user-sc-pci"
	cp "$work/checkpatch" "$new/share/qemu/vhost-sc-checkpatch"
	echo "$key" >"$new/share/qemu/vhost-sc-key"
	rm -rf "$prefix.old"
	[ ! -e "$prefix" ] || mv "$prefix" "$prefix.old"
	mv "$new" "$prefix"
	rm -rf "$prefix.old"
}

finish()
{
	if [ "$prefix" = "$cache/$key" ]; then
		ln -sfn "$key" "$cache/current.new"
		mv -T "$cache/current.new" "$cache/current"
	fi
	echo "$prefix/bin/qemu-system-x86_64"
}

installed()
{
	[ -x "$prefix/bin/qemu-system-x86_64" ] && [ "$(cat "$prefix/share/qemu/vhost-sc-key" 2>/dev/null)" = "$key" ]
}

while [ $# -gt 0 ]; do
	case $1 in
	--prefix | --jobs)
		[ $# -ge 2 ] || usage
		[ "$1" = --prefix ] && prefix=$(realpath -m -- "$2") || jobs=$2
		shift
		;;
	--keep) keep=true ;;
	*) usage ;;
	esac
	shift
done
case $jobs in '' | 0 | *[!0-9]*) die "--jobs wants a number, not '$jobs'" ;; esac
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "this needs Debian 12 on amd64"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || {
	say "waiting for another build to end"
	flock 9
}
trap stop_background EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

version=$(candidate)
if [ -z "$version" ]; then
	update_lists
	version=$(candidate)
	[ -n "$version" ] || die "this machine's package sources have no qemu-system-x86; this needs Debian 12"
fi
case $version in
1:7.2+*) ;;
*) die "the series is for QEMU 7.2 of Debian 12, this machine has $version; see README.md about rebasing" ;;
esac

# shellcheck disable=SC2046 # a list of file names of ours, without blanks
key=$(cd "$here" && {
	echo "$version"
	cat build-qemu.sh series $(grep -v -e '^#' -e '^$' series)
} | sha256sum | cut -c 1-16)
prefix=${prefix:-$cache/$key}
work=$cache/work-$key

if installed; then
	say "up to date"
	finish
	exit
fi
start=$(date +%s)
install_packages
mkdir -p "$work"
get_source
configure
compile
install_files
$keep || rm -rf "$work"
say "done in $(($(date +%s) - start)) s"
finish
