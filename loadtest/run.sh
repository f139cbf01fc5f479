#!/usr/bin/env bash
# Measures requests per second and latency of the whole path, on servers that it starts and stops itself, on loopback.
#
#   loadtest/run.sh                      # one node, then three: every operation, 16 users, 10 s each
#   SECONDS_EACH=5 VUS=64 OPS="sign-es256 secret-set" NODES=1 loadtest/run.sh
#   NODES=3 READ_MODES="lease read_index lease" loadtest/run.sh    # ways to read, side by side on one cluster
#
# Load and servers share this machine's cores: read the figures as ratios, and see README.md beside this file.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${SECONDS_EACH:-10}"
vus="${VUS:-16}"
ops="${OPS:-secret-get sign-es256 sign-rs256 secret-set}"
nodes="${NODES:-1 3}"
modes="${READ_MODES:-}"
claviger="${CLAVIGER_BIN:-$PWD/target/release/claviger}"
[ -x "$claviger" ] || { echo "run 'make build' first" >&2; exit 1; }

k6="${XDG_CACHE_HOME:-$HOME/.cache}/claviger/bin/k6"
if [ ! -x "$k6" ]; then
  echo "loadtest: building k6 with go (once, a few minutes)" >&2
  command -v go >/dev/null || { echo "loadtest: install Go first (Debian package golang-go)" >&2; exit 1; }
  GOBIN="$(dirname "$k6")" go install go.k6.io/k6@latest
fi

work=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

# Waits for a line in a file: the server says when it is ready.
await() {
  for _ in $(seq 1 300); do grep -q "$2" "$1" 2>/dev/null && return 0; read -rt 0.1 <> <(:) || true; done
  echo "loadtest: '$2' did not come" >&2
  cat "$1" >&2
  return 1
}

measure() { for op in $ops; do OP=$op VUS=$vus SECONDS=$seconds "$k6" run --quiet --no-usage-report loadtest/operations.js; done; }

for count in $nodes; do
  if [ "$count" = 1 ]; then
    "$claviger" dev --data-dir "$work/dev" --listen 127.0.0.1:18443 >"$work/dev.out" 2>"$work/dev.err" &
    pids+=($!)
    await "$work/dev.out" '^ready'
    eval "$("$claviger" exec --data-dir "$work/dev" -- sh -c 'export -p' | grep -E ' (AZURE_TENANT_ID|AZURE_CLIENT_ID|AZURE_CLIENT_SECRET)=')"
    export TARGETS=127.0.0.1:18443 SSL_CERT_FILE="$work/dev/ca.pem"
    measure
    kill "${pids[-1]}"
    wait "${pids[-1]}" 2>/dev/null || true
    unset 'pids[-1]'
  else
    cp cluster-config/three-nodes/*.toml "$work/"
    "$claviger" world init --out "$work/secrets" --domain kms.localhost --node node1 --node node2 --node node3 >/dev/null
    for n in 1 2 3; do
      "$claviger" server --config "$work/node$n.toml" >"$work/node$n.out" 2>"$work/node$n.err" &
      pids+=($!)
      await "$work/node$n.out" '^ready'
    done
    made=$("$claviger" cluster init --config "$work/node1.toml")
    "$claviger" cluster join --config "$work/node2.toml" >/dev/null
    "$claviger" cluster join --config "$work/node3.toml" >/dev/null
    field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$made"; }
    AZURE_TENANT_ID=$(field tenant_id) AZURE_CLIENT_ID=$(field client_id) AZURE_CLIENT_SECRET=$(field client_secret)
    export AZURE_TENANT_ID AZURE_CLIENT_ID AZURE_CLIENT_SECRET
    export TARGETS=127.0.0.1:9443,127.0.0.1:9543,127.0.0.1:9643
    export HOST_HEADER=demo.vault.kms.localhost LOGIN_HOST_HEADER=login.kms.localhost
    if [ -z "$modes" ]; then measure; fi
    for mode in $modes; do
      "$claviger" cluster read-mode --config "$work/node1.toml" "$mode"
      measure
    done
  fi
done
