#!/bin/bash
# Installs what a target of the Makefile needs, and says so before it does. Does nothing, and needs no root, where
# everything is there already.
#
#   scripts/setup.sh build   Go, git, make, the driver's modules
#   scripts/setup.sh lint    and: the linter's modules
#   scripts/setup.sh cluster and: Prometheus, the modules of the control plane
#   scripts/setup.sh test    and: a C compiler for the race detector, QEMU, the file-system tools, the guest's kernel
#   scripts/setup.sh demo    as test, without the compiler
set -euo pipefail
cd "$(dirname "$0")/.."

go_version=1.26.8 # fetched when the machine's Go is older than go.mod asks for
local_bin=$PWD/.cache/bin # the Makefile has it on PATH
export PATH=$local_bin:$PATH:/usr/sbin:/sbin

say() { echo "setup: $*"; }

die() {
	echo "setup: $*" >&2
	exit 1
}

# retry COMMAND... : a mirror or a proxy that fails now and then is asked again, and it is said.
retry() {
	local pause
	for pause in 5 15 45; do
		if "$@"; then return; fi
		say "failed: $*; again in $pause s"
		sleep "$pause"
	done
	"$@"
}

# refresh_packages renews apt's lists. Another apt at work (a fresh machine's daily one) is waited for. A list that cannot be
# had may be one that is not needed.
apt=(-o Acquire::Retries=3 -o DPkg::Lock::Timeout=600)
refresh_packages() {
	retry "${sudo[@]}" apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update -qq ||
		say "not all package lists could be renewed; going on with those there are"
}

# become_root or say what an administrator is to do. sudo is used where it needs no password or somebody can type one.
become_root() {
	if [ "$(id -u)" = 0 ]; then
		sudo=()
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo=(sudo)
	else
		die "this needs root, once: $*"
	fi
}

# package_of TOOL : the Debian package that brings a program.
package_of() {
	case $1 in
	qemu-system-x86_64) echo qemu-system-x86 ;;
	mkfs.ext4 | e2fsck | dumpe2fs) echo e2fsprogs ;;
	mkfs.xfs | xfs_db | xfs_repair | xfs_io) echo xfsprogs ;;
	mkfs.btrfs) echo btrfs-progs ;;
	mount | umount) echo mount ;;
	blkid) echo util-linux ;;
	xz) echo xz-utils ;;
	ldd) echo libc-bin ;;
	dpkg-deb) echo dpkg ;;
	*) echo "$1" ;;
	esac
}

# missing_packages TOOL... : the packages of those programs that are not there.
missing_packages() {
	for tool in "$@"; do
		command -v "$tool" >/dev/null || package_of "$tool"
	done | sort -u
}

install_packages() {
	[ $# -gt 0 ] || return 0
	command -v apt-get >/dev/null || die "this is no Debian or Ubuntu; please install by hand: $*"
	become_root "apt-get install --no-install-recommends $*"
	say "installing Debian packages: $*"
	refresh_packages
	retry "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${apt[@]}" install -y -qq --no-install-recommends "$@" >/dev/null
}

go_is_new_enough() {
	local have want
	have=$(go env GOVERSION 2>/dev/null) || return 1 # an old go may refuse our go.mod; GOTOOLCHAIN=auto fetches a new one
	want=go$(sed -n 's/^go //p' go.mod)
	[ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]
}

# A Go toolchain is a Go module. From 1.21 on the go command fetches it itself; an older one can be asked to download
# it like any other module, with its checksum verified, and lacks only the knowledge which files are programs.
install_go() {
	export GOTOOLCHAIN=auto
	if go_is_new_enough; then return; fi
	local arch platform answer dir root
	arch=$(dpkg --print-architecture 2>/dev/null || uname -m)
	case $arch in
	amd64 | x86_64) platform=linux-amd64 ;;
	arm64 | aarch64) platform=linux-arm64 ;;
	*) die "no Go $go_version for $arch: please install it by hand" ;;
	esac
	command -v go >/dev/null || install_packages golang-go ca-certificates
	if go_is_new_enough; then return; fi
	say "fetching Go $go_version as a Go module (this machine has $(cd / && go version | cut -d' ' -f3))"
	if ! answer=$(cd / && GOFLAGS=-modcacherw retry go mod download -json "golang.org/toolchain@v0.0.1-go$go_version.$platform"); then
		die "$answer"$'\n'"Go $go_version could not be fetched; please install it or a newer one by hand"
	fi
	dir=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$answer")
	root=$PWD/.cache/go-$go_version
	mkdir -p "$local_bin"
	rm -rf "$root" && cp -r "$dir" "$root" # a copy: the module cache is read-only and may be cleaned
	chmod -R u+w "$root" && chmod +x "$root"/bin/* "$root"/pkg/tool/*/*
	ln -sf "$root"/bin/* "$local_bin/"
	go_is_new_enough || die "Go $go_version was fetched to $root but does not run here"
}

# The kernel is a package too, but it is unpacked into a cache, not installed. Old package lists are the usual reason
# for a failure, and only root can renew them.
fetch_kernel() {
	if go run ./test/guest fetch; then return; fi
	become_root "apt-get update"
	say "renewing the package lists"
	refresh_packages
	retry go run ./test/guest fetch
}

# Prometheus and promtool, for the tests of metrics and alerts. Unpacked, not installed: the package would start a server.
fetch_prometheus() {
	local root=$PWD/.cache/prometheus work
	if [ -x "$root/usr/bin/promtool" ] || { command -v prometheus && command -v promtool; } >/dev/null; then return; fi
	command -v apt-get >/dev/null || die "this is no Debian or Ubuntu; please install by hand: prometheus, promtool"
	say "fetching the package prometheus (unpacked into $root, not installed)"
	mkdir -p .cache && work=$(mktemp -d "$PWD/.cache/fetch.XXXXXX")
	if ! (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root prometheus 2>/dev/null); then
		become_root "apt-get update"
		say "renewing the package lists"
		refresh_packages
		(cd "$work" && retry apt-get "${apt[@]}" download -qq -o APT::Sandbox::User=root prometheus)
	fi
	dpkg-deb -x "$work"/prometheus_*.deb "$work/root"
	rm -rf "$root" && mv "$work/root" "$root"
	rm -rf "$work"
}

# fetch_modules DIR... : what the builds need, so that they find it there.
fetch_modules() {
	local dir
	for dir in "$@"; do
		(cd "$dir" && retry go mod download)
	done
}

guest_tools=(qemu-system-x86_64 mkfs.ext4 e2fsck dumpe2fs mkfs.xfs xfs_db xfs_repair xfs_io mkfs.btrfs blkid mount umount xz ldd dpkg-deb)
case ${1:-test} in
build | lint) tools=(git make) ;;
cluster) tools=(git make dpkg-deb) ;;
demo) tools=(git make "${guest_tools[@]}") ;;
test) tools=(git make gcc "${guest_tools[@]}") ;;
*) die "usage: scripts/setup.sh build|lint|cluster|demo|test" ;;
esac
mapfile -t packages < <(missing_packages "${tools[@]}")
if [ "${1:-test}" = test ] && ! [ -e /usr/include/stdlib.h ]; then packages+=(libc6-dev); fi
if grep -qs '^ID=ubuntu' /etc/os-release && ! command -v zstd >/dev/null; then packages+=(zstd); fi # its modules' form
if ! [ -e /etc/ssl/certs/ca-certificates.crt ] && command -v apt-get >/dev/null; then packages+=(ca-certificates); fi
install_packages "${packages[@]}"
install_go
case ${1:-test} in
test) fetch_modules . tools/helm ;;
cluster) fetch_modules . test/cluster/tools ;;
lint) fetch_modules . tools ;;
*) fetch_modules . ;;
esac
case ${1:-test} in demo | test) fetch_kernel ;; esac
case ${1:-test} in cluster | demo | test) fetch_prometheus ;; esac
