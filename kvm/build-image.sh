#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# build-image.sh - makes the guest image of a service domain.
#
# The image is a distribution's stock kernel, byte for byte, and an initramfs with sc-init, the agent, the driver
# virtio_sc.ko and the stock modules that the role needs (roles/ROLE.modules). mkinitramfs.py packs it and says what the
# files in OUT are; manifest.json there records the origin and the SHA-256 of everything.
#
# How it works: the kernel, header and kbuild packages that linux-image-amd64 and linux-headers-amd64 stand for are
# downloaded with apt-get (which checks them against the archive's signatures) and unpacked below the cache
# directory. Nothing is installed on this host. Every step's result is kept in the cache under a name made of what went
# into it, so that a second run does only what changed.
#
# --debug-shell needs a static busybox (package busybox-static) and makes an image that is not for production.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)

usage() {
	cat <<END
usage: build-image.sh --agent PATH --out DIR [options]

  --agent PATH        sc-agent as built for this machine; static, or dynamic with its libraries found by ldd
  --out DIR           where the image goes (created if absent)
  --role ROLE         storage (default) or network
  --role-list FILE    list of modules instead of kvm/roles/ROLE.modules
  --debug-shell       put a shell into the image, for sc.shell=1
  --program FILE      put this program into the image, too, as /bin/NAME, with its libraries; may be repeated
  --package NAME      kernel package (default: what linux-image-amd64 depends on)
  --kernel FILE       a kernel of your own (bzImage or ELF with PVH) instead of a package, with what there is of
  --modules DIR       its lib/modules/VERSION; without, what the guest needs has to be built in
  --headers DIR       its build directory, for which the driver virtio_sc is built (default: DIR/build of --modules);
                      without, the driver has to be built in, or among the modules
  --cache DIR         cache (default: \$SC_CACHE, or .cache/kvm in the source tree)
END
}

say() {
	printf 'build-image: %s\n' "$*"
}

die() {
	printf 'build-image: %s\n' "$*" >&2
	exit 1
}

# Stops with the package to install if a program is missing.
need() {
	command -v "$1" >/dev/null 2>&1 || die "$1 not found: install package $2 (apt-get install $2)"
}

# Hash of files (by content) and words: names cache entries.
key() {
	{
		for word; do
			if [ -f "$word" ]; then sha256sum <"$word"; else printf '%s\n' "$word"; fi
		done
	} | sha256sum | cut -c1-16
}

# A list, one a line: paths may hold blanks.
programs=''
agent='' out='' role=storage role_list='' shell='' package='' kernel='' modules='' headers=''
cache=${SC_CACHE:-$root/.cache/kvm}
while [ $# -gt 0 ]; do
	case $1 in
	--debug-shell)
		shell=yes
		shift
		continue
		;;
	-h | --help)
		usage
		exit 0
		;;
	esac
	[ $# -ge 2 ] || die "$1: unknown option, or its value is missing (see --help)"
	case $1 in
	--agent) agent=$2 ;;
	--out) out=$2 ;;
	--role) role=$2 ;;
	--role-list) role_list=$2 ;;
	--package) package=$2 ;;
	--kernel) kernel=$2 ;;
	--modules) modules=$2 ;;
	--headers) headers=$2 ;;
	--program)
		[ -x "$2" ] || die "$2: no such program"
		programs="$programs$2
"
		;;
	--cache) cache=$2 ;;
	*) die "$1: unknown option (see --help)" ;;
	esac
	shift 2
done

[ -n "$agent" ] || die "--agent is missing (see --help)"
[ -n "$out" ] || die "--out is missing (see --help)"
[ -x "$agent" ] || die "$agent: no such program; build the agent first"
role_list=${role_list:-$here/roles/$role.modules}
[ -f "$role_list" ] || die "$role: no such role (no $role_list)"
if [ -n "$kernel$modules$headers" ]; then
	[ -n "$kernel" ] || die "--modules and --headers are a kernel's: name it with --kernel"
	[ -z "$package" ] || die "--package and --kernel exclude each other"
	if [ -z "$headers" ] && [ -n "$modules" ] && [ -f "$modules/build/Makefile" ] && [ -z "$(find "$modules" -name 'virtio_sc.ko*')" ]; then
		headers=$modules/build
	fi
fi
need gcc gcc
need make make
need python3 python3-minimal
mkdir -p "$cache/debs"
cache=$(cd "$cache" && pwd)
need flock util-linux
# Two builds at once would unpack into each other's directories.
exec 9>"$cache/lock"
flock 9

# ---- kernel and headers ----

# A field of what apt knows of a package: `field PACKAGE NAME`.
field() {
	apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n1
}

# The package among a package's dependencies whose name matches a pattern.
dependency() {
	field "$1" Depends | tr '|,' '\n' | sed -n "s/^ *\($2\)\( .*\)\{0,1\}\$/\1/p" | head -n1
}

# Writes the four packages needed, as lines NAME VERSION ARCHITECTURE: image, headers, headers' common part, kbuild.
resolve() {
	image=${package:-$(dependency linux-image-amd64 'linux-image-[0-9][^ ]*')}
	[ -n "$image" ] || die "apt does not know linux-image-amd64: run apt-get update as root, or give --kernel"
	amd64=linux-headers-${image#linux-image-}
	amd64=${amd64%-unsigned}
	common=$(dependency "$amd64" 'linux-headers-[^ ]*-common')
	kbuild=$(dependency "$amd64" 'linux-kbuild-[^ ]*')
	if [ -z "$common" ] || [ -z "$kbuild" ]; then
		die "$amd64: not known to apt: run apt-get update as root"
	fi
	for name in "$image" "$amd64" "$common" "$kbuild"; do
		version=$(field "$name" Version)
		[ -n "$version" ] || die "$name: apt does not know this package: run apt-get update as root"
		printf '%s %s %s\n' "$name" "$version" "$(field "$name" Architecture)"
	done
}

# Downloads a package into the cache unless it is there. Prints the file's path.
fetch() {
	# apt-get download writes the epoch's colon as %3a.
	file=$cache/debs/${1}_$(printf %s "$2" | sed 's/:/%3a/')_$3.deb
	if [ ! -f "$file" ]; then
		say "downloading $1 $2" >&2
		tmp=$cache/debs/download.$$
		mkdir -p "$tmp"
		(cd "$tmp" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$1=$2") >&2 ||
			die "$1: download failed: is there a network, and are apt's lists up to date (apt-get update)?"
		mv "$tmp"/*.deb "$file"
		rmdir "$tmp"
	fi
	printf '%s\n' "$file"
}

# Unpacks packages into one tree, once. Prints the tree's path.
unpack() {
	names=
	for deb; do
		names="$names ${deb##*/}"
	done
	tree=$cache/trees/$(key "$names")
	if [ ! -d "$tree" ]; then
		rm -rf "$tree.tmp"
		mkdir -p "$tree.tmp"
		for deb; do
			say "unpacking ${deb##*/}" >&2
			dpkg-deb -x "$deb" "$tree.tmp"
		done
		mv "$tree.tmp" "$tree"
	fi
	printf '%s\n' "$tree"
}

package_version='' package_sha256=''
if [ -z "$kernel" ]; then
	need apt-get apt
	need dpkg-deb dpkg
	# apt takes a second for each question; its answers hold until its lists change.
	packages=$cache/packages/$(key "$package" "$(stat -c %Y /var/lib/apt/lists 2>/dev/null || echo 0)")
	if [ ! -s "$packages" ]; then
		mkdir -p "${packages%/*}"
		resolve >"$packages.tmp"
		mv "$packages.tmp" "$packages"
	fi
	set --
	while read -r name version arch; do
		deb=$(fetch "$name" "$version" "$arch")
		if [ $# = 0 ]; then
			package=$name
			package_version=$version
			package_sha256=$(sha256sum "$deb" | cut -d' ' -f1)
			say "kernel package $package $package_version"
			say "  sha256 $package_sha256"
		fi
		set -- "$@" "$deb"
	done <"$packages"
	tree=$(unpack "$@")
	set -- "$tree"/boot/vmlinuz-*
	kernel=$1
	modules=$tree/lib/modules/${kernel##*/vmlinuz-}
	headers=$tree/usr/src/linux-headers-${kernel##*/vmlinuz-}
	# The packaged Makefile names its other half by the path where it would be installed.
	sed -i "s|^include .*/usr/src/|include $tree/usr/src/|" "$headers/Makefile"
fi
[ -f "$kernel" ] || die "$kernel: no such kernel image"
[ -z "$modules" ] || [ -d "$modules" ] || die "$modules: no such directory of modules"
[ -z "$headers" ] || [ -f "$headers/Makefile" ] || die "$headers: no kernel headers there"
config=''
for file in "${headers:-/nowhere}/.config" "${modules:-/nowhere}/build/.config" "${modules:-/nowhere}/config"; do
	if [ -f "$file" ]; then
		config=$file
		break
	fi
done

# ---- driver ----

# Builds virtio_sc.ko for $headers unless the cache has it; sets driver.
build_driver() {
	driver_src=$root/guest-agent/driver
	contract=$root/include/vhost-sc/virtio_sc.h
	kernel_cc=$(sed -n 's/^CC *=.*)\(gcc-[0-9]*\).*/\1/p' "$headers/.kernelvariables" 2>/dev/null || true)
	need "${kernel_cc:-gcc}" "${kernel_cc:-gcc}"
	driver_key=$(key "$0" "$driver_src/virtio_sc.c" "$driver_src/Kbuild" "$contract" "$headers/.config" \
		"$headers/Module.symvers" "$("${kernel_cc:-gcc}" --version | head -n1)")
	driver=$cache/driver/$driver_key/virtio_sc.ko
	if [ ! -f "$driver" ]; then
		say "building virtio_sc.ko for ${kernel##*/}"
		work=$cache/driver/$driver_key.tmp
		rm -rf "$work"
		# The same depth as in the source tree, for Kbuild names the header by a relative path.
		mkdir -p "$work/guest-agent/driver" "$work/include/vhost-sc"
		cp "$driver_src/virtio_sc.c" "$driver_src/Kbuild" "$work/guest-agent/driver/"
		cp "$contract" "$work/include/vhost-sc/"
		# Without type information for BPF: that would take pahole and the kernel with its symbols.
		make -s -C "$headers" M="$work/guest-agent/driver" CONFIG_DEBUG_INFO_BTF_MODULES= modules >"$work/log" 2>&1 ||
			die "virtio_sc.ko does not build, see $work/log: $(tail -n5 "$work/log")"
		# The build id is a hash over debug information too, which names directories.
		strip --strip-debug --remove-section=.note.gnu.build-id "$work/guest-agent/driver/virtio_sc.ko"
		mkdir -p "${driver%/*}"
		mv "$work/guest-agent/driver/virtio_sc.ko" "$driver"
		rm -rf "$work"
	fi
}

driver=''
if [ -n "$headers" ]; then
	build_driver
fi

# ---- sc-init ----

init_src=$root/guest-agent/init/sc-init.c
init=$cache/init/$(key "$0" "$init_src" "$(gcc --version | head -n1)")/sc-init
if [ ! -f "$init" ]; then
	say "building sc-init"
	mkdir -p "${init%/*}"
	gcc -std=gnu17 -O2 -Wall -Wextra -static -s -Wl,--build-id=none -o "$init.tmp" "$init_src" ||
		die "sc-init does not build; a static C library is needed (package libc6-dev)"
	mv "$init.tmp" "$init"
fi

# ---- image ----

busybox=''
if [ -n "$shell" ]; then
	need busybox busybox-static
	busybox=$(command -v busybox)
	! ldd "$busybox" >/dev/null 2>&1 || die "$busybox is not static: install package busybox-static"
fi

vmlinux=$cache/vmlinux/$(key "$kernel")
mkdir -p "${vmlinux%/*}"
say "packing $out"
set --
while read -r program; do
	[ -z "$program" ] || set -- "$@" --program "$program"
done <<END
$programs
END
exec python3 "$here/mkinitramfs.py" "$@" --kernel "$kernel" --vmlinux "$vmlinux" --modules "$modules" --driver "$driver" --config "$config" \
	--init "$init" --agent "$agent" ${busybox:+--shell "$busybox"} --role "$role" --role-list "$role_list" \
	--package "$package" --package-version "$package_version" --package-sha256 "$package_sha256" --out "$out"
