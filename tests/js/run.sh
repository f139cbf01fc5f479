#!/usr/bin/env bash
# Runs the JavaScript tests against a throw-away server of the release binary (CLAVIGER_BIN names another one).
set -euo pipefail
cd "$(dirname "$0")"
./setup.sh
target=${CARGO_TARGET_DIR:-../../target}
bin=${CLAVIGER_BIN:-$target/release/claviger}
exec "$bin" exec -- node --test
