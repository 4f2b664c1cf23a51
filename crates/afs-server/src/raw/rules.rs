//! What a conditional or partial request gets (RFC 9110 §13, §14). Pure.

use afs_types::{Error, Reason, Result};

/// The headers that decide.
#[derive(Clone, Copy, Default)]
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a str>,
    pub(crate) if_none_match: Option<&'a str>,
    pub(crate) range: Option<&'a str>,
    pub(crate) if_range: Option<&'a str>,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    Whole,
    Part { start: u64, len: u64 },
    NotModified,
    OutOfRange,
}

/// What a request for a file of `size` bytes with this etag gets.
pub(crate) fn serve(conditions: &Conditions<'_>, etag: &str, size: u64) -> Result<Served> {
    if let Some(wanted) = conditions.if_match
        && !names(wanted, etag)
    {
        return Err(Error::new(Reason::EtagMismatch, format!("if-match: the file has etag {etag}"))
            .with("field", "if-match")
            .with("etag", etag));
    }
    if conditions.if_none_match.is_some_and(|known| names(known, etag)) {
        return Ok(Served::NotModified);
    }
    let same = conditions.if_range.is_none_or(|wanted| names(wanted, etag) && wanted != "*");
    Ok(conditions.range.filter(|_| same).map_or(Served::Whole, |range| part(range, size)))
}

/// Whether a list of etags names this one.
fn names(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|one| {
        let one = one.strip_prefix("W/").unwrap_or(one);
        one == "*" || one.trim_matches('"') == etag
    })
}

/// A range that cannot be understood, or is several, is ignored, as the RFC asks.
fn part(range: &str, size: u64) -> Served {
    let Some(spec) = range.trim().strip_prefix("bytes=").map(str::trim) else { return Served::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Served::Whole };
    let (first, last) = (first.trim(), last.trim());
    if spec.contains(',') || !(first.bytes().chain(last.bytes()).all(|b| b.is_ascii_digit())) {
        return Served::Whole;
    }
    // Numbers too large for us are beyond every file.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (start, end) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Served::Whole,
        (true, false) if number(last) == 0 => return Served::OutOfRange,
        (true, false) => (size.saturating_sub(number(last)), size),
        (false, true) => (number(first), size),
        (false, false) if number(last) < number(first) => return Served::Whole,
        (false, false) => (number(first), number(last).saturating_add(1).min(size)),
    };
    if start >= size { Served::OutOfRange } else { Served::Part { start, len: end - start } }
}

/// Permission bits in octal.
pub(crate) fn octal(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|m| *m <= 0o7777).ok_or_else(|| Error::invalid("mode", "permission bits in octal, e.g. 755"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |start, len| Served::Part { start, len };
        for (range, want) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-4", part(2, 3)),
            ("bytes=2-", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=5-99999999999999999999999", part(5, 5)),
            ("bytes=10-", Served::OutOfRange),
            ("bytes=99999999999999999999-", Served::OutOfRange),
            ("bytes=-0", Served::OutOfRange),
            ("bytes=4-2", Served::Whole),
            ("bytes=0-1,3-4", Served::Whole),
            ("bytes=a-b", Served::Whole),
            ("bytes=-", Served::Whole),
            ("lines=1-2", Served::Whole),
            ("bytes=+1-2", Served::Whole),
        ] {
            let conditions = Conditions { range: Some(range), ..Conditions::default() };
            assert_eq!(serve(&conditions, "e", 10).unwrap(), want, "{range}");
        }
        let empty = Conditions { range: Some("bytes=0-"), ..Conditions::default() };
        assert_eq!(serve(&empty, "e", 0).unwrap(), Served::OutOfRange);
    }

    #[test]
    fn conditions() {
        let none = Conditions::default();
        let with = |if_match, if_none_match| Conditions { if_match, if_none_match, ..none };
        assert_eq!(serve(&with(None, Some("\"a\", W/\"e\"")), "e", 1).unwrap(), Served::NotModified);
        assert_eq!(serve(&with(None, Some("*")), "e", 1).unwrap(), Served::NotModified);
        assert_eq!(serve(&with(Some("\"e\""), Some("\"x\"")), "e", 1).unwrap(), Served::Whole);
        assert_eq!(serve(&with(Some("\"x\""), None), "e", 1).unwrap_err().reason, Reason::EtagMismatch);
        let ranged = |if_range| Conditions { range: Some("bytes=0-0"), if_range: Some(if_range), ..none };
        assert_eq!(serve(&ranged("\"e\""), "e", 5).unwrap(), Served::Part { start: 0, len: 1 });
        assert_eq!(serve(&ranged("\"x\""), "e", 5).unwrap(), Served::Whole);
    }

    #[test]
    fn modes() {
        assert_eq!(octal("0755").unwrap(), 0o755);
        for bad in ["", "8", "rwx", "77777", "+7"] {
            assert!(octal(bad).is_err(), "{bad}");
        }
    }
}
