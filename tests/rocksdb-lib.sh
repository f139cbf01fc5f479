#!/usr/bin/env bash
# Builds RocksDB's C++ once per machine, from the sources of the locked `librocksdb-sys` crate, as a static library in a
# cache folder outside the checkout, and points `.cache/rocksdb` at it, where .cargo/config.toml tells Cargo to look.
#
# Why: the crate's own build takes eight CPU-minutes and is repeated whenever Cargo's choice of profile or features
# changes; the C++ never does.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(grep -A1 '^name = "librocksdb-sys"' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')
cache="${XDG_CACHE_HOME:-$HOME/.cache}/claviger/rocksdb-${version%%+*}"
link() {
  mkdir -p .cache
  ln -sfn "$cache" .cache/rocksdb
}
if [ -f "$cache/librocksdb.a" ]; then
  link
  exit 0
fi

say() { echo "setup: $*" >&2; }
say "building RocksDB once into $cache (about five minutes on two cores)"
cargo fetch --locked >&2
registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
source=$(find "$registry" -maxdepth 2 -type d -name "librocksdb-sys-$version" | head -n 1)
[ -n "$source" ] || { say "the sources of librocksdb-sys $version are not in $registry"; exit 1; }
lz4=$(find "$registry" -maxdepth 2 -type d -name 'lz4-sys-*' | sort | tail -n 1)

checkout=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c++20 -O2 -fPIC -w -include cstdint -DNDEBUG -DLZ4=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX
  -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
  -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT -Irocksdb/include -Irocksdb -I. "-I$lz4/liblz4/lib")
# CRC32C in hardware, where the machine that builds is the kind that runs.
[ "$(uname -m)" = x86_64 ] && flags+=(-msse4.2 -mpclmul)
cd "$source"
{
  grep -v '^util/build_version.cc$' rocksdb_lib_sources.txt | sed 's|^|rocksdb/|'
  echo build_version.cc
} | xargs -P "$(nproc)" -I{} sh -c 'out=$1/$(echo "$2" | tr / _).o; shift; f=$1; shift; exec c++ "$@" -c "$f" -o "$out"' _ "$work" {} "${flags[@]}"
ar crs "$work/librocksdb.a" "$work"/*.o
mkdir -p "$cache"
mv "$work/librocksdb.a" "$cache/librocksdb.a.new"
mv "$cache/librocksdb.a.new" "$cache/librocksdb.a"
cd "$checkout"
link
