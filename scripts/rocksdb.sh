#!/usr/bin/env bash
# Makes one static RocksDB library for this machine and points cargo at it.
#
# RocksDB is about 340 C++ files, a quarter of an hour on two cores, and cargo would compile them again for every
# profile, target directory and clean. So the library is built once per (version, features, architecture), kept in the user's
# cache, and handed to librocksdb-sys' build script through ROCKSDB_LIB_DIR. In this order:
#   1. ROCKSDB_LIB_DIR in the environment: yours, used as it is.
#   2. the cache: ${XDG_CACHE_HOME:-~/.cache}/aetherfs/rocksdb-<version>-<features>-<arch>/librocksdb.a
#   3. a library that an ordinary cargo build has already left in the target directory: copied into the cache.
#   4. built from source in a temporary directory, with progress.
# Then .cargo/rocksdb.toml (ignored by git, included by .cargo/config.toml) is written, so that plain cargo uses it too.
#
# Usage: scripts/rocksdb.sh [--print-dir]
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'rocksdb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

locked_version() { # of a package in Cargo.lock
  awk -v want="name = \"$1\"" '$0 == want { getline; gsub(/version = |"/, ""); print; exit }' Cargo.lock
}

# The workspace's own line for the rocksdb crate is the only place that names version and features.
dependency_line() { grep -E '^rocksdb *= *\{' Cargo.toml || die 'no "rocksdb = { ... }" line in Cargo.toml'; }

# Features that change the C++ code; how bindgen finds libclang does not.
features() {
  dependency_line | sed -E 's/.*features *= *\[([^]]*)\].*/\1/' | tr -d '" ' | tr ',' '\n' |
    { grep -v '^bindgen-' || true; } | sort | paste -sd+ -
}

# A library fits when it refers to exactly the compressors asked for; a build with other features is refused.
fits() {
  local name prefix undefined wanted found
  undefined=$(nm -u "$1" 2>/dev/null || true)
  for name in zstd:ZSTD_ lz4:LZ4_ snappy:snappy zlib:inflateInit2_ bzip2:BZ2_; do
    prefix=${name#*:} name=${name%%:*} wanted=no found=no
    case "+$FEATURES+" in *"+$name+"*) wanted=yes ;; esac
    grep -q "$prefix" <<<"$undefined" && found=yes
    [ "$wanted" = "$found" ] || return 1
  done
}

write_cargo_config() { # DIR
  local text
  text=$(printf '%s\n' '# Written by scripts/rocksdb.sh; the environment wins over it.' '[env]' "ROCKSDB_LIB_DIR = \"$1\"" 'ROCKSDB_STATIC = "1"')
  # Unchanged text keeps its time stamp, so that cargo sees nothing new.
  if [ "$(cat .cargo/rocksdb.toml 2>/dev/null)" != "$text" ]; then
    mkdir -p .cargo
    printf '%s\n' "$text" >.cargo/rocksdb.toml.new
    mv .cargo/rocksdb.toml.new .cargo/rocksdb.toml
    say "cargo now links $1/librocksdb.a"
  fi
}

keep() { # LIBRARY: into the cache, atomically
  mkdir -p "$DIR"
  cp "$1" "$DIR/librocksdb.a.new"
  mv "$DIR/librocksdb.a.new" "$DIR/librocksdb.a"
}

# cargo writes `output` beside `out` when a build script has finished: before that the library may be half written.
adopt() {
  local build
  for build in "${CARGO_TARGET_DIR:-target}"/release/build/librocksdb-sys-*; do
    [ -f "$build/output" ] && [ -f "$build/out/librocksdb.a" ] || continue
    grep -q "librocksdb-sys-$VERSION\$" "$build/output" && fits "$build/out/librocksdb.a" || continue
    say "taking the library that cargo built in $build"
    keep "$build/out/librocksdb.a"
    return 0
  done
  return 1
}

show_progress() { # PID BUILD_DIR TOTAL STARTED
  local objects=0 next=0 now
  while kill -0 "$1" 2>/dev/null; do
    now=$(date +%s)
    if [ "$now" -ge "$next" ]; then
      # At first there is no target directory, and find fails; that is no reason to end.
      objects=$( (find "$2" -path '*librocksdb-sys-*/out/*' -name '*.o' 2>/dev/null || true) | wc -l)
      if [ -t 2 ]; then
        printf '\rrocksdb: compiled %d of %d files, %d s ' "$objects" "$3" $((now - $4)) >&2
        next=$((now + 1))
      else
        say "compiled $objects of $3 files, $((now - $4)) s"
        next=$((now + 30))
      fi
    fi
    sleep 1
  done
  if [ -t 2 ]; then printf '\n' >&2; fi
}

# A package of its own outside of the workspace: exactly our line, our lock file, and no crate of ours needs to compile.
build() {
  local work="$DIR.build" log started
  log="$work/log" started=$(date +%s)
  rm -rf "$work"
  mkdir -p "$work"
  printf '%s\n' '[package]' 'name = "rocksdb-prebuild"' 'version = "0.0.0"' 'edition = "2024"' '[lib]' 'path = "lib.rs"' \
    '[workspace]' '[dependencies]' "$(dependency_line)" >"$work/Cargo.toml"
  : >"$work/lib.rs"
  cp Cargo.lock rust-toolchain.toml "$work/"
  say "building RocksDB $VERSION ($FEATURES) once, about 340 C++ files, into $DIR"
  (cd "$work" && exec env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$work/target" \
    cargo build --release -p librocksdb-sys >"$log" 2>&1 </dev/null) &
  BUILDER=$! # global: the trap outlives this function's locals
  trap 'kill "$BUILDER" 2>/dev/null || true' EXIT
  show_progress "$BUILDER" "$work/target" 343 "$started" # about: the crate's own list is not there before cargo has fetched it
  trap - EXIT
  wait "$BUILDER" || { tail -n 40 "$log" >&2; die "building RocksDB failed; the whole log is $log"; }
  CARGO_TARGET_DIR="$work/target" adopt || die "cargo built no library with the features \"$FEATURES\"; see $log"
  rm -rf "$work"
  say "done in $(($(date +%s) - started)) s"
}

VERSION=$(locked_version librocksdb-sys)
[ -n "$VERSION" ] || die 'librocksdb-sys is not in Cargo.lock; run "cargo generate-lockfile"'
FEATURES=$(features)
DIR="${XDG_CACHE_HOME:-$HOME/.cache}/aetherfs/rocksdb-$VERSION-${FEATURES:-plain}-$(uname -m)"

if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
  [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] || die "ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR holds no librocksdb.a; unset it to have one built"
  DIR=$ROCKSDB_LIB_DIR
else
  mkdir -p "$(dirname "$DIR")"
  exec 9>"$DIR.lock" # two checkouts, or make -j: the second waits and finds the first one's library
  flock 9
  [ -f "$DIR/librocksdb.a" ] || adopt || build 9>&-
fi
write_cargo_config "$DIR"
if [ "${1:-}" = --print-dir ]; then printf '%s\n' "$DIR"; fi
