#!/usr/bin/env bash
# Runs every test of the workspace: with cargo-nextest when it is installed (each test in a process of its own, a time limit, slow
# ones named), else with plain cargo test. Documentation examples are run by cargo in both cases.
#
# Usage: scripts/tests.sh [arguments for nextest or cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."

# The command line and mount tests start the real programs.
cargo build --release --workspace --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --release --workspace ${CI:+--profile ci} "$@"
else
  echo 'tests: cargo-nextest is not installed; using cargo test' >&2
  cargo test --release --workspace --lib --bins --tests "$@"
fi
cargo test --release --workspace --doc --quiet
