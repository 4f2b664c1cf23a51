# The README's two commands are `make run` and `make test`. Everything else is a part of them, to be run alone.
# Arguments: REPO=path-or-url (demo and bench), KEEP=1 (leave the demo's server running), BENCH="names", JSON=file

.PHONY: help run test setup setup-test rocksdb build demo fmt lint tidy check deny unit bench corpus
.DEFAULT_GOAL := help

REPO  ?=
KEEP  ?=
BENCH ?=
JSON  ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/bench.json
CORPUS ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/corpus

help:            ## what can be made
	@awk -F ':.*## *' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup rocksdb build demo ## install what is missing, build, and run the guided demo

test: setup-test rocksdb check unit ## install what is missing, then format, lint, tidy and every test

setup:           ## install missing system packages
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

rocksdb:         ## the RocksDB library, once per version
	@scripts/rocksdb.sh

build: rocksdb   ## the server and the client, optimised
	cargo build --release --bin afs-server --bin aether

demo:            ## the guided demo alone, on what is built
	cargo xtask demo $(REPO) $(if $(KEEP),--keep)

check: fmt lint tidy deny ## format, lints, project rules

fmt:
	cargo fmt --all --check

lint: rocksdb
	cargo clippy --release --workspace --all-targets -- -D warnings

tidy:
	cargo xtask tidy

deny:            ## licences, banned crates and unknown registries, when cargo-deny is installed
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo 'deny: not checked, cargo-deny is not installed: cargo install --locked cargo-deny' >&2; fi

unit: rocksdb    ## every test
	scripts/tests.sh

bench: setup-test rocksdb build ## every figure the project promises, with its bar
	cargo xtask bench $(BENCH) --json $(JSON)

corpus: setup-test ## the standard corpus: about 60,000 files from pinned npm and cargo packages
	cargo xtask corpus $(CORPUS)
