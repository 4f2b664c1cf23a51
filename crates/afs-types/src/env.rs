//! Time, randomness and ids are given to the rules, never taken by them, so that a simulation can own them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Wall-clock time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC.
    fn now_ns(&self) -> i64;
}

/// Unpredictable bytes.
pub trait Rng: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// A source of unique, time-ordered 128-bit ids.
pub trait IdGen: Send + Sync {
    /// The next id, made at a time that the caller has looked up, nanoseconds; ids of one generator never repeat and grow.
    fn next_ulid(&self, now_ns: i64) -> u128;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now_ns(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_nanos() as i64)
    }
}

/// The kernel's random bytes.
#[derive(Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, buffer: &mut [u8]) {
        use std::io::Read;
        let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(buffer));
        // Without randomness tenant keys and ids would be guessable: stop rather than go on.
        read.expect("read /dev/urandom");
    }
}

/// ULIDs: 48 bits of milliseconds, 16 bits of node (the birthplace), 64 bits that start random and count up.
pub struct UlidGen {
    node: u16,
    next: AtomicU64,
    last_ms: AtomicU64,
}

impl UlidGen {
    /// A generator for one node.
    pub fn new(rng: &dyn Rng, node: u16) -> Self {
        let mut seed = [0; 8];
        rng.fill(&mut seed);
        Self { node, next: AtomicU64::new(u64::from_le_bytes(seed) >> 1), last_ms: AtomicU64::new(0) }
    }
}

impl IdGen for UlidGen {
    fn next_ulid(&self, now_ns: i64) -> u128 {
        let now = (now_ns / 1_000_000) as u64;
        // A clock that steps back must not make ids go back. Most ids are made in the millisecond of the one before: that costs a look.
        let last = self.last_ms.load(Ordering::Relaxed);
        let ms = if last >= now { last } else { self.last_ms.fetch_max(now, Ordering::Relaxed).max(now) };
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        (u128::from(ms & 0xffff_ffff_ffff) << 80) | (u128::from(self.node) << 64) | u128::from(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Rng for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let ids = UlidGen::new(&Fixed, 5);
        let mut last = 0;
        for ms in [
            1_700_000_000_000i64,
            1_700_000_000_000,
            1_699_999_999_000,
            1_700_000_000_001,
            0,
            1_700_000_000_001,
        ] {
            let id = ids.next_ulid(ms * 1_000_000);
            assert!(id > last, "{ms}");
            assert_eq!((id >> 64) as u16, 5);
            last = id;
        }
        assert_eq!((last >> 80) as i64, 1_700_000_000_001);
    }
}
