//! Timing: rounds of one thing, as percentiles.

use std::hint::black_box;
use std::time::Instant;

/// Durations in nanoseconds, sorted.
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    /// From measured durations in nanoseconds; there is at least one.
    pub(crate) fn new(mut nanoseconds: Vec<f64>) -> Self {
        nanoseconds.sort_by(f64::total_cmp);
        Self(nanoseconds)
    }

    /// Times each of `count` calls, after a tenth as many to warm up.
    pub(crate) fn of<T>(count: usize, mut call: impl FnMut(usize) -> T) -> Self {
        for round in 0..count / 10 {
            black_box(call(round));
        }
        let time = |round| {
            let started = Instant::now();
            black_box(call(round));
            started.elapsed().as_nanos() as f64
        };
        Self::new((0..count).map(time).collect())
    }

    /// For what is shorter than a clock reading: each round is the mean of `batch` calls.
    pub(crate) fn of_batches<T>(count: usize, batch: usize, mut call: impl FnMut(usize) -> T) -> Self {
        let outer = Self::of(count, |round| {
            for step in 0..batch {
                black_box(call(round * batch + step));
            }
        });
        Self(outer.0.into_iter().map(|time| time / batch as f64).collect())
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that a `share` (0 to 1) of the rounds does not exceed, in nanoseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let index = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(index.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The median, in nanoseconds.
    pub(crate) fn p50(&self) -> f64 {
        self.percentile(0.5)
    }

    /// In nanoseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.percentile(0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let rounds = Rounds::new((1..=100).rev().map(f64::from).collect());
        assert_eq!((rounds.p50(), rounds.p99(), rounds.percentile(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(Rounds::new(vec![7.0]).p99(), 7.0);
        assert!(Rounds::new(Vec::new()).p50().is_nan());
    }
}
