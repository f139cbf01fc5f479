# Two commands do all the set-up on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: build run test test-rust test-loom test-sim test-fuzz fuzz test-python test-js test-rust-sdk test-chaos test-chaos-short test-availability test-availability-short test-pause lint fmt deny load setup clean

# In CI the build cache lies outside the clone, so that RocksDB's C++ is compiled once per machine, not once per run.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/claviger/target
endif
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

## build: the release binary at target/release/claviger
build: setup
	cargo build --release --locked
	@mkdir -p target/release
	@if [ "$(abspath $(TARGET_DIR))" != "$(abspath target)" ]; then cp -f $(TARGET_DIR)/release/claviger target/release/claviger; fi

## run: one node, nothing to configure
run: build
	target/release/claviger dev

## test: everything
test: lint test-rust test-loom test-sim test-fuzz test-python test-js test-rust-sdk test-chaos-short test-availability-short

## lint: formatting and clippy without warnings (writes nothing)
lint: setup
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets --features claviger-fuzz/fuzzing -- -D warnings

test-rust: setup
	cargo test --release --locked --workspace

# The lock-free part of reads in every order of its threads. In a folder of its own: the flag would rebuild everything.
test-loom: setup
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET_DIR)/loom cargo test --release --locked -p claviger-lease --test loom

# The real code in a world that a seed decides. In a folder of its own, for the same reason.
test-sim: setup
	RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=$(TARGET_DIR)/sim \
	  cargo test --release --locked -p claviger-node --features sim --lib sim::

# Every fuzz target for a second, from a fixed seed (docs/fuzzing.md).
test-fuzz: setup
	crates/fuzz/run.sh smoke

## fuzz: one fuzz target for a time (TARGET=import SECONDS=60; docs/fuzzing.md)
fuzz: setup
	crates/fuzz/run.sh long "$(TARGET)" $(SECONDS)

# The real SDKs, over real HTTPS, against `claviger dev` and clusters of three processes.
test-python: build
	@tests/python/venv.sh
	.venv/bin/python -m pytest -c tests/python/pytest.ini tests/python

# The JavaScript and Rust SDKs, each against a throw-away server.
test-js: build
	tests/js/run.sh

test-rust-sdk: build
	tests/rust-sdk/run.sh

## test-chaos: faults on real processes under load, and the history judged (SECONDS=60 SEED=1 NODES=3; needs root)
SECONDS ?= 60
SEED ?= 1
NODES ?= 3
test-chaos: build
	tests/chaos/run.sh $(SECONDS) $(SEED) $(NODES)

# The same in half a minute, for every run of the tests.
test-chaos-short: build
	tests/chaos/run.sh 30 1 3

## test-availability: how long failures are felt, twenty minutes (tests/chaos/README.md)
test-availability: build
	tests/chaos/availability.sh

# A few of them: does everything come back?
test-availability-short: build
	tests/chaos/availability.sh --short

## test-pause: nodes stopped in the middle of a request while its authority is revoked, twenty minutes (tests/chaos/README.md)
test-pause: setup
	CARGO_TARGET_DIR=$(TARGET_DIR) tests/pause/run.sh

## deny: advisories, licences and sources of dependencies (installs cargo-deny once; needs the advisory database)
deny:
	@command -v cargo-deny >/dev/null || { echo "setup: installing cargo-deny"; cargo install --locked cargo-deny; }
	cargo deny check

## load: requests per second and latency on one node and on three (loadtest/README.md)
load: build
	loadtest/run.sh

## fmt: formats the tree
fmt:
	cargo fmt --all

## setup: what the build needs from Debian and rustup; quick when it is there
setup:
	@tests/setup.sh
	@tests/rocksdb-lib.sh

clean:
	rm -rf target .venv .venv-az tests/js/node_modules
