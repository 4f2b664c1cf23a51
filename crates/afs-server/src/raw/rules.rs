//! What a conditional or partial request gets (RFC 9110 §13, §14). Pure.

use afs_proto::rest::Etags;
use afs_types::{Error, Reason, Result};

/// The headers that decide.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<Etags>,
    pub(crate) if_none_match: Option<Etags>,
    pub(crate) range: Option<String>,
    /// A date, and an etag that the file does not have, switch the range off.
    pub(crate) if_range: Option<String>,
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
pub(crate) fn serve(conditions: &Conditions, etag: &str, size: u64) -> Result<Served> {
    if conditions.if_match.as_ref().is_some_and(|wanted| !wanted.has(etag)) {
        return Err(Error::new(Reason::EtagMismatch, format!("if-match: the file has etag {etag}"))
            .with("field", "if-match")
            .with("etag", etag));
    }
    if conditions.if_none_match.as_ref().is_some_and(|known| known.has_weakly(etag)) {
        return Ok(Served::NotModified);
    }
    // Strong: a weak tag promises nothing about single bytes.
    let same = conditions.if_range.as_ref().is_none_or(|wanted| wanted.trim() == format!("\"{etag}\""));
    Ok(conditions.range.as_ref().filter(|_| same).map_or(Served::Whole, |range| part(range, size)))
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
            let conditions = Conditions { range: Some(range.into()), ..Conditions::default() };
            assert_eq!(serve(&conditions, "e", 10).unwrap(), want, "{range}");
        }
        let empty = Conditions { range: Some("bytes=0-".into()), ..Conditions::default() };
        assert_eq!(serve(&empty, "e", 0).unwrap(), Served::OutOfRange);
    }

    fn etags(text: &str) -> Option<Etags> {
        let mut headers = http::HeaderMap::new();
        headers.insert("etag", text.parse().unwrap());
        Etags::of(&headers, &http::header::ETAG).unwrap()
    }

    #[test]
    fn conditions() {
        let with = |if_match: &str, if_none_match: &str| Conditions {
            if_match: (!if_match.is_empty()).then(|| etags(if_match)).flatten(),
            if_none_match: (!if_none_match.is_empty()).then(|| etags(if_none_match)).flatten(),
            ..Conditions::default()
        };
        for (if_match, if_none_match, want) in [
            ("", "\"a\", W/\"e\"", Ok(Served::NotModified)),
            ("", "*", Ok(Served::NotModified)),
            ("\"e\"", "\"x\"", Ok(Served::Whole)),
            ("\"x\", \"e\"", "", Ok(Served::Whole)),
            ("*", "", Ok(Served::Whole)),
            ("\"x\"", "", Err(Reason::EtagMismatch)),
            // For a change of what is there, the same meaning is not enough.
            ("W/\"e\"", "", Err(Reason::EtagMismatch)),
            ("\"x\"", "*", Err(Reason::EtagMismatch)),
        ] {
            let served = serve(&with(if_match, if_none_match), "e", 1).map_err(|e| e.reason);
            assert_eq!(served, want, "{if_match} {if_none_match}");
        }
        for (if_range, want) in [
            ("\"e\"", Served::Part { start: 0, len: 1 }),
            ("\"x\"", Served::Whole),
            ("W/\"e\"", Served::Whole),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Served::Whole),
            ("*", Served::Whole),
        ] {
            let (range, if_range) = (Some("bytes=0-0".into()), Some(if_range.into()));
            let conditions = Conditions { range, if_range, ..Conditions::default() };
            assert_eq!(serve(&conditions, "e", 5).unwrap(), want);
        }
    }

    #[test]
    fn modes() {
        assert_eq!(octal("0755").unwrap(), 0o755);
        for bad in ["", "8", "rwx", "77777", "+7"] {
            assert!(octal(bad).is_err(), "{bad}");
        }
    }
}
