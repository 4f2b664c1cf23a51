//! Times between nanoseconds and protobuf's two numbers.

use afs_types::{Error, Result};
use pbjson_types::{Duration, Timestamp};

const NS: i64 = 1_000_000_000;

/// Nanoseconds since 1970 as a timestamp.
pub fn timestamp(ns: i64) -> Timestamp {
    Timestamp { seconds: ns.div_euclid(NS), nanos: ns.rem_euclid(NS) as i32 }
}

/// A timestamp as nanoseconds since 1970.
pub fn timestamp_ns(field: &'static str, time: &Timestamp) -> Result<i64> {
    let whole = time.seconds.checked_mul(NS).and_then(|s| s.checked_add(time.nanos.into()));
    match whole {
        Some(ns) if (0..NS as i32).contains(&time.nanos) => Ok(ns),
        _ => Err(Error::invalid(field, "a time between the years 1678 and 2261")),
    }
}

/// Nanoseconds as a duration.
pub fn to_duration(ns: i64) -> Duration {
    Duration { seconds: ns / NS, nanos: (ns % NS) as i32 }
}

/// A duration of at least zero as nanoseconds.
pub fn duration_ns(field: &'static str, duration: &Duration) -> Result<i64> {
    let whole = duration.seconds.checked_mul(NS).and_then(|s| s.checked_add(duration.nanos.into()));
    whole
        .filter(|ns| *ns >= 0 && duration.nanos.abs() < NS as i32)
        .ok_or_else(|| Error::invalid(field, "a duration from 0s to 292 years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive() {
        for ns in [0, 1, -1, i64::MAX, -1_500_000_000, 1_763_000_000_123_456_789] {
            assert_eq!(timestamp_ns("t", &timestamp(ns)).unwrap(), ns);
        }
        assert!(timestamp_ns("t", &Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
        assert!(timestamp_ns("t", &Timestamp { seconds: 0, nanos: -1 }).is_err());
        assert_eq!(duration_ns("d", &to_duration(1_500_000_000)).unwrap(), 1_500_000_000);
        assert!(duration_ns("d", &Duration { seconds: -1, nanos: 0 }).is_err());
    }
}
