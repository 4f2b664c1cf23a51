//! How slow the other end of a transfer may be. Pure.
//!
//! Guarantees: who moves at least [`limits::MIN_TRANSFER_BYTES_PER_S`], counted at least once in the grace, never runs out; who does
//! not is let go after the grace in all, however the waiting is cut up: a byte just before the end of every pause buys nothing. Only
//! time spent waiting for the other end counts, and what was fast before is not saved up beyond the grace.
//!
//! Bytes of uploads are counted as they come. An item of a stream is counted when it is taken, and while it is not, a slow reader
//! looks like one that sleeps: each item has to be taken within what is left of the grace. That is the least rate for items of up to
//! 480 KiB (`WHOLE_BYTES`), and 70 KiB a second for the largest ones, a diff of [`limits::MAX_DIFF_BYTES`].

use afs_types::limits;
use std::time::Duration;

/// The largest item that is taken within the grace at the least rate.
#[cfg(test)]
const WHOLE_BYTES: u64 = limits::MIN_TRANSFER_BYTES_PER_S * limits::MAX_READER_PAUSE_MS / 1000;

/// What is left of one transfer's grace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    grace: Duration,
    left: Duration,
}

impl Pace {
    /// A transfer that begins.
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, left: grace }
    }

    /// The grace that it had at first.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// How long to wait for the other end now.
    pub(crate) fn patience(&self) -> Duration {
        self.left
    }

    /// The other end let us wait.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Bytes went over.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / limits::MIN_TRANSFER_BYTES_PER_S;
        self.left = self.left.saturating_add(Duration::from_nanos(nanos)).min(self.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    /// Seconds that a sender of `bytes` every `pause` lasts, at most `end`.
    fn lasts(bytes: usize, pause: Duration, end: Duration) -> Duration {
        let (mut pace, mut at) = (Pace::new(GRACE), Duration::ZERO);
        while at < end && pace.patience() >= pause {
            pace.waited(pause);
            pace.moved(bytes);
            at += pause;
        }
        at
    }

    #[test]
    fn a_byte_now_and_then_buys_nothing() {
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        assert!(lasts(1, Duration::from_secs(59), day) <= GRACE);
        assert!(lasts(1, second, day) <= GRACE + second);
        let rate = limits::MIN_TRANSFER_BYTES_PER_S as usize;
        assert!(lasts(rate / 2, second, day) <= 2 * GRACE + second, "half of the rate");
        assert_eq!(lasts(rate, second, day), day, "exactly the rate");
        assert_eq!(lasts(rate * 50, 50 * second, day), day, "the same in large pieces");
    }

    #[test]
    fn a_large_item_asks_for_more_than_the_least_rate() {
        let day = Duration::from_secs(86_400);
        let at =
            |bytes: u64, rate: u64| lasts(bytes as usize, Duration::from_secs(bytes.div_ceil(rate)), day);
        assert_eq!(WHOLE_BYTES, 480 << 10);
        assert!(at(WHOLE_BYTES, limits::MIN_TRANSFER_BYTES_PER_S) >= day, "the least rate is enough");
        let largest = limits::MAX_DIFF_BYTES as u64;
        assert!(at(largest, 70 << 10) >= day);
        assert!(at(largest, 60 << 10) < day, "the header says what it takes");
    }

    #[test]
    fn a_fast_beginning_is_not_saved_up() {
        let mut pace = Pace::new(GRACE);
        pace.moved(1 << 40);
        assert_eq!(pace.patience(), GRACE);
        pace.waited(GRACE * 2);
        assert_eq!(pace.patience(), Duration::ZERO);
    }
}
