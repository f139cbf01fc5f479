//! Coverage-guided fuzzing of everything that reads bytes from outside, with libFuzzer.
//!
//! One program for all targets, because linking takes longer than a smoke run: `CLAVIGER_FUZZ_TARGET` names the target,
//! the arguments are libFuzzer's. `tests/fuzz.sh` builds and runs it; `corpus/` holds seeds and what runs have found.
//!
//! A target fails by a panic, by running out of time or memory, and by what it asserts: the HTTP targets want every answer
//! to be a success or a refusal with its envelope, never a fault of the service.

#![no_main]

mod mutate;
mod scene;
mod targets;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(init: leave_at_once(), |data: &[u8]| {
    (targets::chosen())(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, seed)
});

extern "C" {
    fn atexit(handler: extern "C" fn()) -> i32;
    fn _exit(status: i32) -> !;
}

/// Makes the end of a run the end of the process. libFuzzer calls `exit` then, which takes RocksDB's globals away from
/// threads that still use them. A finding never comes here: it ends the process by itself, with a status of its own.
fn leave_at_once() {
    extern "C" fn leave() {
        // SAFETY: `_exit` may be called at any time, and nothing is left to be written.
        unsafe { _exit(0) }
    }
    // SAFETY: the handler takes nothing and captures nothing.
    unsafe { atexit(leave) };
}
