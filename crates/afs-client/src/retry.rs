//! When a call is sent again, and with which name.

use afs_types::{Reason, Rng, SystemRng};
use std::time::Duration;

/// Whether a call may be sent twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It changes nothing, or carries a request id.
    Safe,
    /// A second one might have a second effect.
    Never,
}

/// Waits between attempts: a restarting server is back within seconds, and 1,000 clients must not arrive together.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Growing pauses, each somewhere between half and all of its length.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST_PAUSE)
    }
    pub(crate) async fn pause(&mut self) {
        let mut byte = [0];
        SystemRng.fill(&mut byte);
        let part = 0.5 + f64::from(byte[0]) / 512.0;
        tokio::time::sleep(self.0.mul_f64(part)).await;
        self.0 = (self.0 * 2).min(LAST_PAUSE);
    }
}

impl Retry {
    /// Only what a moment can mend: the server restarts, or asks for patience.
    pub(crate) fn allows(self, reason: Reason) -> bool {
        self == Self::Safe && matches!(reason, Reason::Unavailable | Reason::QueueFull)
    }
}

/// A name for one change: 128 random bits.
pub(crate) fn request_id() -> String {
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes);
    bytes.iter().fold(String::from("req-"), |text, b| text + &format!("{b:02x}"))
}
