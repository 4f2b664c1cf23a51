//! Numbers and times for people.

use afs_client::Timestamp;

/// `2026-11-21T10:00:00Z`; empty for none.
pub(crate) fn time(timestamp: Option<&Timestamp>) -> String {
    let whole = timestamp.map(|t| Timestamp { nanos: 0, ..*t });
    let text = whole.and_then(|t| serde_json::to_value(t).ok());
    text.and_then(|t| t.as_str().map(|t| t.replace("+00:00", "Z"))).unwrap_or_default()
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `rwxr-xr-x` with the type in front.
pub(crate) fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o020_000 => 'c',
        0o060_000 => 'b',
        _ => '-',
    };
    let triple = |shift: u32, special: bool, letter: char| {
        let bits = mode >> shift & 7;
        let exec = match (bits & 1 != 0, special) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
        [if bits & 4 != 0 { 'r' } else { '-' }, if bits & 2 != 0 { 'w' } else { '-' }, exec]
    };
    let parts = [
        triple(6, mode & 0o4000 != 0, 's'),
        triple(3, mode & 0o2000 != 0, 's'),
        triple(0, mode & 0o1000 != 0, 't'),
    ];
    std::iter::once(kind).chain(parts.into_iter().flatten()).collect()
}

/// `a=1, b=2`.
pub(crate) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    labels.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(
            [0, 1023, 1024, 1 << 20, 5 << 40].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "5.0 TiB"]
        );
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o106_654), "-rwSr-sr--");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
        assert_eq!(time(Some(&Timestamp { seconds: 1_763_719_200, nanos: 5 })), "2025-11-21T10:00:00Z");
        assert_eq!(time(None), "");
    }
}
