#!/usr/bin/env bash
# run.sh [options of pause.py]: stops nodes in the middle of requests. CLAVIGER_BIN names a server with `pause-points`; without
# it one is built, in a folder of its own, so that no other test gets it by accident.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${CLAVIGER_BIN:-}" ]; then
  target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pause
  CARGO_TARGET_DIR=$target cargo build --release --locked -p claviger-server --features pause-points
  export CLAVIGER_BIN=$target/release/claviger
fi
tests/python/venv.sh
exec timeout 3600 .venv/bin/python -B tests/pause/pause.py "$@"
