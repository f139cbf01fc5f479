//! Whether decryption takes the same time for every reason to fail (docs/keys.md, "Failures take the same time").
//!
//! `cargo bench -p claviger-crypto --bench timing` measures everything for some minutes, `-- RSA 20000` the rows that
//! contain `RSA`, with 20,000 calls for each class. A row is a provider and an algorithm, with the median of each class and
//! the greatest |t| of any two of them. Nothing is asserted: a figure on a busy machine is no verdict. Above 4.5 look closer:
//! a difference grows with the number of calls, chance does not.
//!
//! Classes take turns in random order, each call has an input of its own that is copied to the same place first, and the
//! last row is a control: two classes that are the same.

#![allow(missing_docs)]

mod cases;
mod stat;

use cases::{cases, control, Input};
use claviger_crypto::provider::{AwsLc, CipherParams, CryptoProvider, RustCrypto};
use stat::{measure, report};

/// Calls for each class.
const CALLS: usize = 20_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this too, and must not take minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let mut words = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let filter = words.next().cloned().unwrap_or_default();
    let calls = words.next().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    for case in cases() {
        for provider in [&AwsLc as &dyn CryptoProvider, &RustCrypto] {
            let title = format!("{} by {}", case.alg, provider.name());
            if !title.contains(&filter) {
                continue;
            }
            let key = provider.load(case.spec, &case.private).expect("a good key");
            report(
                &title,
                &measure(&case.classes, calls, |input| {
                    key.decrypt(case.alg, &input.ciphertext, &params(input)).is_err()
                }),
            );
        }
    }
    let sum = |input: &Input| input.ciphertext.iter().fold(0u8, |sum, byte| sum ^ byte) == 0;
    report("control", &measure(&control(), calls, sum));
}

fn params(input: &Input) -> CipherParams<'_> {
    CipherParams { iv: input.iv.as_deref(), aad: input.aad.as_deref(), tag: input.tag.as_deref() }
}
