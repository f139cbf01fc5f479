#!/usr/bin/env bash
# run.sh smoke: every target for a fixed number of runs from a fixed seed, on the corpus in the tree; about fifteen seconds.
# run.sh long TARGET SECONDS: one target for a time. What it finds on the way stays in target/fuzz, for the next time.
# run.sh keep TARGET: adds to the corpus in the tree what long runs have found and reaches something new.
# run.sh try TARGET FILE...: these inputs, once each.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Runs of the smoke test: about a second each.
declare -A runs=(
  [create]=3000 [import]=3000 [byok]=2000 [pkcs8]=30000 [policy]=50000 [restore]=3000 [use]=4000 [release]=3000
  [rotation]=4000 [change]=2000 [request]=5000 [codec]=50000 [apply]=15000 [rsa]=400 [curves]=3000 [ciphers]=20000 [token]=5000
)
known() {
  [ -n "${runs[$1]:-}" ] || { echo "fuzz: no target '$1'; there are: $(printf '%s\n' "${!runs[@]}" | sort | xargs)" >&2; exit 2; }
}

build() {
  RUSTC_WORKSPACE_WRAPPER=$PWD/crates/fuzz/rustc.sh \
    cargo build --quiet --release --locked --package claviger-fuzz --features fuzzing
}
binary=${CARGO_TARGET_DIR:-target}/release/claviger-fuzz
found=$PWD/target/fuzz
mkdir -p "$found"

# The service under test keeps its state here: in memory, because what a sync costs is no matter.
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$memory/claviger-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

fuzz() {
  local target=$1
  shift
  CLAVIGER_FUZZ_TARGET=$target "$binary" -timeout=60 -artifact_prefix="$found/$target-" "$@"
}

case ${1:-} in
smoke)
  build
  for target in $(printf '%s\n' "${!runs[@]}" | sort); do
    mkdir "$TMPDIR/new"
    if ! fuzz "$target" -seed=1 -runs="${runs[$target]}" "$TMPDIR/new" "crates/fuzz/corpus/$target" >"$TMPDIR/log" 2>&1; then
      cat "$TMPDIR/log"
      echo "fuzz: target '$target' failed; the input is in $found, \`crates/fuzz/run.sh try $target FILE\` repeats it" >&2
      exit 1
    fi
    echo "fuzz: $target: $(grep -a -o 'DONE.*corp' "$TMPDIR/log" | sed 's/ corp$//'), ${runs[$target]} runs"
    rm -rf "$TMPDIR/new"
  done
  ;;
long)
  known "$2"
  build
  mkdir -p "$found/$2"
  fuzz "$2" -max_total_time="${3:-60}" "$found/$2" "crates/fuzz/corpus/$2"
  ;;
keep)
  known "$2"
  build
  fuzz "$2" -merge=1 "crates/fuzz/corpus/$2" "$found/$2"
  ;;
try)
  known "$2"
  build
  fuzz "$2" "${@:3}"
  ;;
*)
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
  ;;
esac
