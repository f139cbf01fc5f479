//! Welch's t test on times of classes, in the manner of dudect (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant
//! time?", DATE 2017).

/// Above this a difference is more than chance, says dudect.
pub(crate) const T_MAX: f64 = 4.5;

/// Times of one class, in nanoseconds.
pub(crate) struct Times {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<f64>,
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

/// The greatest |t| of all pairs of classes and of several crops, with the names of the pair, and how many pairs there were.
///
/// A crop leaves out times above a percentile of all classes together: what an interrupt took says nothing of the code
/// (dudect, section III, "cropping").
pub(crate) fn greatest_t(classes: &[Times]) -> (f64, &'static str, &'static str) {
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
pub(crate) fn median(class: &Times) -> f64 {
    percentile(&sorted(class.samples.clone()), 50)
}
