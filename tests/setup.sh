#!/usr/bin/env bash
# Installs what the build needs, says so, and is quick when nothing is missing.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v make >/dev/null || missing+=(make)
command -v openssl >/dev/null || missing+=(openssl)
# bindgen (RocksDB's bindings) loads libclang and needs clang's own headers.
ls /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-*.so* 2>/dev/null | grep -qv cpp || missing+=(libclang-dev)
command -v clang >/dev/null || missing+=(clang)
# The end-to-end tests run the real SDKs in a virtual environment (tests/python/venv.sh). Debian ships venv apart.
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing Debian packages: ${missing[*]}"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
  echo "setup: installing Rust's tools from Debian's rustup package"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq rustup >/dev/null || {
    echo "setup: this Debian has no package rustup (13 has): install Rust's tools yourself, then try again" >&2
    exit 1
  }
  rustup default stable
fi
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" != "$needed" ]; then
  echo "setup: cargo $found is there, and $needed or later is needed: \`rustup update stable\`" >&2
  exit 1
fi
