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

use std::hint::black_box;
use std::time::Instant;

use cases::{cases, Class, Input};
use claviger_crypto::provider::{AwsLc, CryptoProvider, RustCrypto};
use claviger_crypto::random;
use stat::{greatest_t, median, Times, T_MAX};

/// Calls for each class.
const CALLS: usize = 20_000;

/// Different inputs of a class, used in turn.
const INPUTS: usize = 256;

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
                    key.decrypt(case.alg, &input.ciphertext, &input.params()).is_err()
                }),
            );
        }
    }
    let same = || Input { ciphertext: vec![7; 256], iv: None, tag: None, aad: None };
    let classes = ["the same", "the same again"].map(|name| Class { name, make: Box::new(same) });
    report("control", &measure(&classes, calls, |input| input.ciphertext.iter().fold(0u8, |sum, x| sum ^ x) == 0));
}

/// Times of `operation` for each class.
fn measure(classes: &[Class], calls: usize, operation: impl Fn(&Input) -> bool) -> Vec<Times> {
    let inputs: Vec<Vec<Input>> = classes.iter().map(|class| (0..INPUTS).map(|_| (class.make)()).collect()).collect();
    let mut times: Vec<Times> =
        classes.iter().map(|class| Times { name: class.name, samples: Vec::with_capacity(calls) }).collect();
    let mut slot = inputs[0][0].clone();
    let warm_up = calls / 10;
    for round in 0..calls + warm_up {
        // A fresh order in every round: whoever comes after whom must not matter.
        for class in shuffled(classes.len()) {
            slot.clone_from(&inputs[class][round % INPUTS]);
            let start = Instant::now();
            black_box(operation(black_box(&slot)));
            let elapsed = start.elapsed();
            if round >= warm_up {
                times[class].samples.push(elapsed.as_nanos() as f64);
            }
        }
    }
    times
}

fn shuffled(count: usize) -> Vec<usize> {
    let draws: [u8; 16] = random::bytes().expect("the system has randomness");
    let mut order: Vec<usize> = (0..count).collect();
    for (i, draw) in (1..count).rev().zip(draws) {
        order.swap(i, usize::from(draw) % (i + 1));
    }
    order
}

fn report(title: &str, times: &[Times]) {
    let (t, one, other) = greatest_t(times);
    let verdict = if t > T_MAX { "  <-- look closer" } else { "" };
    println!("{title}: greatest |t| {t:.1} ({one} / {other}){verdict}");
    for class in times {
        println!("    {:<26} {:>10.0} ns", class.name, median(class));
    }
}
