#!/usr/bin/env bash
# Runs the Rust SDK tests against a throw-away server of the release binary (CLAVIGER_BIN names another one). They have a build
# folder of their own, so that they neither wait for the workspace's builds nor disturb its features.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-../../target}
bin=$(realpath "${CLAVIGER_BIN:-$target/release/claviger}")
export CARGO_TARGET_DIR=${RUST_SDK_TARGET_DIR:-$(realpath -m "$target")/rust-sdk}
# Built before the environment of `exec` is there: Cargo would take its proxy and its certificates for its own.
cargo test --locked --no-run
exec "$bin" exec -- cargo test --locked --offline
