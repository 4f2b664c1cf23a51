//! Time, randomness and ids are given to the rules, never taken by them, so that a simulation can own them.

use std::sync::Arc;
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
    /// The next id; ids of one generator never repeat and grow.
    fn next_ulid(&self) -> u128;
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
    clock: Arc<dyn Clock>,
    node: u16,
    next: AtomicU64,
    last_ms: AtomicU64,
}

impl UlidGen {
    /// A generator for one node.
    pub fn new(clock: Arc<dyn Clock>, rng: &dyn Rng, node: u16) -> Self {
        let mut seed = [0; 8];
        rng.fill(&mut seed);
        Self { clock, node, next: AtomicU64::new(u64::from_le_bytes(seed) >> 1), last_ms: AtomicU64::new(0) }
    }
}

impl IdGen for UlidGen {
    fn next_ulid(&self) -> u128 {
        let now = (self.clock.now_ns() / 1_000_000) as u64;
        // A clock that steps back must not make ids go back.
        let ms = self.last_ms.fetch_max(now, Ordering::Relaxed).max(now);
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        (u128::from(ms & 0xffff_ffff_ffff) << 80) | (u128::from(self.node) << 64) | u128::from(count)
    }
}
