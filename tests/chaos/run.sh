#!/usr/bin/env bash
# run.sh SECONDS SEED NODES [options of chaos.py]: one chaos run. Everything it makes lives in network, mount and process
# namespaces that go with it, however it ends; nothing of the machine's own network is touched.
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

# Root makes namespaces as it is; anybody else needs a user namespace to be root in, which some systems forbid.
spaces=(--net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || spaces+=(--user --map-root-user)
if ! why=$(unshare "${spaces[@]}" sh -c 'mount -t tmpfs tmpfs /run && ip netns add probe && ip netns exec probe true' 2>&1); then
  echo "chaos: this machine does not permit network namespaces, which the run needs: $why" >&2
  echo "chaos: run as root, in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN if it is one" >&2
  exit 1
fi

# The time-out ends a run that hangs, with all its processes; chaos.py has limits of its own below it.
# /run is where \`ip netns\` keeps its names: an empty one of our own, so that they are ours alone.
CHAOS_OUTER_NET=$(readlink /proc/self/ns/net) exec timeout -k 5 $((2 * length + 420)) \
  unshare "${spaces[@]}" sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh \
  "$python" -B tests/chaos/chaos.py --seconds "$length" --seed "$seed" --nodes "$nodes" \
  --binary "$(realpath "$binary")" --checker "$out/checker" --directory "$out/run-$nodes-$seed" "$@"
