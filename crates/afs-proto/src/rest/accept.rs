//! The form in which a client takes a stream (RFC 9110 §12.5.1).
//!
//! Guarantees: names are compared without regard to case, the closest range that fits decides, and `q=0` is a no. Who takes both forms alike
//! gets lines when they are named, else events. Who takes neither gets events: an answer is better than a refusal.

use super::lists::{pair, parts};
use axum::http::{HeaderMap, header};

/// What lines are called; we call them as the first.
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
const EVENTS: &str = "text/event-stream";

/// A media range and its weight in thousandths.
struct Range<'t>(&'t str, u16);

/// Whether a stream is sent as lines.
pub(super) fn wants_lines(headers: &HeaderMap) -> bool {
    // What cannot be read says nothing.
    let texts: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let ranges: Vec<Range<'_>> = texts.iter().flat_map(|text| parts(text, b',')).map(Range::of).collect();
    let named = |kind: &str| ranges.iter().filter(|r| r.0.eq_ignore_ascii_case(kind)).map(|r| r.1).max();
    let weight = |kind: &str| {
        let (of_type, _) = kind.split_once('/').unwrap_or((kind, ""));
        named(kind).or_else(|| named(&format!("{of_type}/*"))).or_else(|| named("*/*")).unwrap_or(0)
    };
    let by_name = LINES.into_iter().filter_map(named).max();
    let (lines, events) = (weight(LINES[0]).max(by_name.unwrap_or(0)), weight(EVENTS));
    lines > events || (lines > 0 && lines == events && by_name == Some(lines))
}

impl<'t> Range<'t> {
    fn of(text: &'t str) -> Self {
        let mut parts = parts(text, b';').into_iter();
        let kind = parts.next().unwrap_or("");
        let quality = parts.filter_map(pair).find(|(name, _)| name.eq_ignore_ascii_case("q"));
        // A weight that is none is as good as not given.
        Self(kind, quality.and_then(|(_, text)| thousandths(text)).unwrap_or(1000))
    }
}

/// `0` to `1` with at most three digits after the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    match whole {
        "0" if is_number => format!("{part:0<3}").parse().ok(),
        "1" if is_number && part.bytes().all(|b| b == b'0') => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_decides() {
        for (lines, want) in [
            (&["*/*"][..], false),
            (&[], false),
            (&["application/json"], false),
            (&["application/x-ndjson"], true),
            (&["Application/X-NDJSON"], true),
            (&["application/jsonl; charset=utf-8"], true),
            (&["application/x-ndjson;q=0"], false),
            (&["application/x-ndjson; Q=0.000, */*"], false),
            (&["application/x-ndjson;q=0.001"], true),
            (&["application/x-ndjson, */*"], true),
            (&["application/x-ndjson, text/event-stream"], true),
            (&["application/x-ndjson;q=0.5, text/event-stream"], false),
            (&["application/x-ndjson;q=0.5, text/event-stream;q=0.4"], true),
            (&["text/event-stream;q=0, */*"], true),
            (&["application/*"], true),
            (&["application/*, application/x-ndjson;q=0"], false),
            (&["text/html", "application/ndjson"], true),
            (&["text/plain;note=\"application/x-ndjson, application/x-ndjson\""], false),
            (&["application/x-ndjson-seq"], false),
            (&["application/x-ndjson;q=2, text/event-stream;q=0.9"], true),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, line.parse().unwrap());
            }
            assert_eq!(wants_lines(&headers), want, "{lines:?}");
        }
    }

    #[test]
    fn weights() {
        for (text, want) in [("0", Some(0)), ("0.", Some(0)), ("0.7", Some(700)), ("0.123", Some(123))] {
            assert_eq!(thousandths(text), want, "{text}");
        }
        assert_eq!((thousandths("1"), thousandths("1.000")), (Some(1000), Some(1000)));
        for bad in ["", "2", "1.1", "0.1234", "-0", "nan", ".5", "0.+1"] {
            assert_eq!(thousandths(bad), None, "{bad}");
        }
    }
}
