#!/usr/bin/env bash
# Installs the Debian packages that building, running or testing AetherFS needs and that this machine lacks. Asks nothing;
# needs root or sudo only when something is missing. Prints what it installs and why.
#
# Usage: scripts/setup.sh [run|test]      test adds what only the tests use
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
# The names that bindgen looks for; libclang-cpp.so, which LLVM alone brings, is another library.
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang[.-][s0-9]*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]; }

missing=()
need() { # PACKAGE WHY
  missing+=("$1")
  say "missing: $1 ($2)"
}

has cargo || { say 'cargo is missing: install Rust with rustup, then run this again'; exit 1; }
has git || need git 'imports and promotes git repositories'
has g++ || need g++ 'compiles RocksDB and zstd, links programs'
has_libclang || need libclang-dev 'bindgen reads the RocksDB header'
has fusermount3 || need fuse3 'mounts sessions without root'
# Something must know the certificate authorities, for crates and for repositories over https.
[ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates 'downloads over https'
if [ "${1:-run}" = test ]; then
  has mkfs.ext4 || need e2fsprogs 'the power-cut test runs on an ext4 of its own'
  has losetup || need mount 'the power-cut test attaches a loop device'
  has rg || need ripgrep 'the mount test searches with it'
  has npm || need npm 'the mount test installs npm packages; the corpus is made of them'
fi

if [ "${#missing[@]}" -gt 0 ]; then
  has apt-get || { say "this machine has no apt-get; install these, or what your system calls them: ${missing[*]}"; exit 1; }
  root=()
  if [ "$(id -u)" != 0 ]; then
    has sudo || { say "installing needs root or sudo; as root, run: apt-get install ${missing[*]}"; exit 1; }
    root=(sudo)
  fi
  say "installing: ${missing[*]}"
  "${root[@]}" apt-get update -q >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
fi

[ -e /dev/fuse ] || say 'warning: /dev/fuse does not exist, so mounts will fail; "modprobe fuse" on the host makes it'
say 'everything needed is installed'
