#!/usr/bin/env bash
# run.sh SECONDS SEED NODES [options of chaos.py]: one chaos run, in namespaces of its own (spaces.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."

length=${1:-60} seed=${2:-1} nodes=${3:-3}
shift $(($# < 3 ? $# : 3))
binary=${CLAVIGER_BIN:-target/release/claviger}
python=${CHAOS_PYTHON:-.venv/bin/python}
case $python in /*) ;; *) python=$PWD/$python ;; esac
out=$PWD/target/chaos
[ -x "$binary" ] || { echo "chaos: $binary is not there: \`make build\` makes it, CLAVIGER_BIN names another one" >&2; exit 1; }

tests/chaos/setup.sh
[ -n "${CHAOS_PYTHON:-}" ] || tests/python/venv.sh
mkdir -p "$out"
(cd tests/chaos/checker && go build -o "$out/checker" .)

# Negative control, about a second: both judges find each lie in doctored histories.
if ! control=$(cd tests/chaos && (cd checker && go test ./...) 2>&1 && "$python" -B -m unittest -q test_checks 2>&1); then
  echo "$control" >&2
  echo "chaos: the judges fail their own tests" >&2
  exit 1
fi

# chaos.py has limits of its own below this one.
exec tests/chaos/spaces.sh $((2 * length + 420)) \
  "$python" -B tests/chaos/chaos.py --seconds "$length" --seed "$seed" --nodes "$nodes" \
  --binary "$(realpath "$binary")" --checker "$out/checker" --directory "$out/run-$nodes-$seed" "$@"
