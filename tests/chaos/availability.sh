#!/usr/bin/env bash
# availability.sh [options of availability.py]: how long what fails is felt, on real processes in namespaces of their own.
# It measures and judges nothing but that everything comes back: figures belong to the machine they were taken on.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${CLAVIGER_BIN:-target/release/claviger}
python=${CHAOS_PYTHON:-.venv/bin/python}
case $python in /*) ;; *) python=$PWD/$python ;; esac
[ -x "$binary" ] || { echo "chaos: $binary is not there: \`make build\` makes it, CLAVIGER_BIN names another one" >&2; exit 1; }
tests/chaos/setup.sh
[ -n "${CHAOS_PYTHON:-}" ] || tests/python/venv.sh
exec tests/chaos/spaces.sh "${LIMIT:-7200}" \
  "$python" -B tests/chaos/availability.py --binary "$(realpath "$binary")" \
  --directory "$PWD/target/chaos/availability-$$" "$@"
