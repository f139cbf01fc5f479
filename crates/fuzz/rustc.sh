#!/bin/sh
# What Cargo runs instead of rustc for the crates of the workspace (RUSTC_WORKSPACE_WRAPPER): our own code is compiled with
# LLVM's coverage counters, which tell libFuzzer what an input reached; dependencies are the ones that the tests have
# built already. Works with the stable compiler. One codegen unit and little optimization: quick to build, and an edge
# stays an edge. The later of two flags of a kind counts.
for argument; do
  case $previous in
  --crate-name)
    case $argument in
    # Consensus and the log run on threads of their own, whose counters would be noise.
    claviger_node | claviger_log) exec "$@" -C opt-level=1 ;;
    claviger_*)
      exec "$@" -C opt-level=1 -C codegen-units=1 -C debug-assertions=on \
        -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares
      ;;
    esac
    ;;
  esac
  previous=$argument
done
exec "$@"
