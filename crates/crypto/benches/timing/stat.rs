//! Welch's t test on times of classes, in the manner of dudect (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant
//! time?", DATE 2017).

use std::hint::black_box;
use std::time::Instant;

use claviger_crypto::random;

use super::cases::{Class, Input};

/// Different inputs of a class, used in turn.
const INPUTS: usize = 256;

/// Above this a difference is more than chance, says dudect.
const T_MAX: f64 = 4.5;

/// Times of one class, in nanoseconds.
pub(crate) struct Times {
    name: &'static str,
    samples: Vec<f64>,
}

/// Times of `operation` for each class.
pub(crate) fn measure(classes: &[Class], calls: usize, operation: impl Fn(&Input) -> bool) -> Vec<Times> {
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

/// Prints the greatest |t| and the median of each class.
pub(crate) fn report(title: &str, times: &[Times]) {
    let (t, one, other) = greatest_t(times);
    let verdict = if t > T_MAX { "  <-- look closer" } else { "" };
    println!("{title}: greatest |t| {t:.1} ({one} / {other}){verdict}");
    for class in times {
        println!("    {:<26} {:>10.0} ns", class.name, median(class));
    }
}

fn shuffled(count: usize) -> Vec<usize> {
    let draws: [u8; 16] = random::bytes().expect("the system has randomness");
    let mut order: Vec<usize> = (0..count).collect();
    for (i, draw) in (1..count).rev().zip(draws) {
        order.swap(i, usize::from(draw) % (i + 1));
    }
    order
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

/// Welch's t of two samples.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let moments = |samples: &[f64]| {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

/// The greatest |t| of all pairs of classes and of several crops, with the names of the pair.
///
/// A crop leaves out times above a percentile of all classes together: what an interrupt took says nothing of the code
/// (dudect, section III, "cropping").
fn greatest_t(classes: &[Times]) -> (f64, &'static str, &'static str) {
    let all = sorted(classes.iter().flat_map(|class| class.samples.iter().copied()).collect());
    let mut greatest = (0.0f64, "", "");
    for percent in [50, 75, 90, 99, 100] {
        let limit = percentile(&all, percent);
        let cropped: Vec<Vec<f64>> =
            classes.iter().map(|class| class.samples.iter().copied().filter(|x| *x <= limit).collect()).collect();
        for (i, a) in cropped.iter().enumerate() {
            for (j, b) in cropped.iter().enumerate().skip(i + 1) {
                // Too few to have a variance: all of one class are slower, which another crop shows.
                if a.len() < 100 || b.len() < 100 {
                    continue;
                }
                let t = welch(a, b).abs();
                if t > greatest.0 {
                    greatest = (t, classes[i].name, classes[j].name);
                }
            }
        }
    }
    greatest
}

/// The median, in nanoseconds.
fn median(class: &Times) -> f64 {
    percentile(&sorted(class.samples.clone()), 50)
}
