# Two commands do all the set-up on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: build run test test-rust lint fmt setup clean

# In CI the build cache lies outside the clone, so that RocksDB's C++ is compiled once per machine, not once per run.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/claviger/target
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)

## build: the release binary at target/release/claviger
build: setup
	cargo build --release --locked
	@mkdir -p target/release
	@if [ "$(abspath $(TARGET))" != "$(abspath target)" ]; then cp -f $(TARGET)/release/claviger target/release/claviger; fi

## run: one node, nothing to configure
run: build
	target/release/claviger dev

## test: everything
test: lint test-rust

## lint: formatting and clippy without warnings (writes nothing)
lint: setup
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

test-rust: setup
	cargo test --release --locked --workspace

## fmt: formats the tree
fmt:
	cargo fmt --all

## setup: what the build needs from Debian and rustup; quick when it is there
setup:
	@tests/setup.sh
	@tests/rocksdb-lib.sh

clean:
	rm -rf target .venv
