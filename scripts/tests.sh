#!/usr/bin/env bash
# Runs every test of the workspace: with cargo-nextest when it is installed (each test in a process of its own, a time limit, slow
# ones named), else with plain cargo test. Documentation examples are run by cargo in both cases.
#
# Usage: scripts/tests.sh [arguments for nextest or cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."

# Mounts, loop devices and servers that mount need root: the test programs get it from sudo, cargo does not.
if [ "$(id -u)" != 0 ] && sudo -n true 2>/dev/null; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -n -E env PATH=$PATH"
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
fi

# The command line, mount and crash tests start the real programs. Built together with all tests, because what the tests depend on
# switches on features of shared crates: built alone, the programs' dependencies would compile twice.
if [ "$#" -eq 0 ]; then
  cargo build --release --workspace --bins --tests
else
  cargo build --release --workspace --bins
fi
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --release --workspace ${CI:+--profile ci} "$@"
else
  echo 'tests: cargo-nextest is not installed; using cargo test' >&2
  cargo test --release --workspace --lib --bins --tests "$@"
fi
cargo test --release --workspace --doc --quiet
