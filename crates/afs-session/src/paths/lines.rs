//! A window of lines of a text.

use afs_types::{Error, Reason, Result};

/// Lines of a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesWindow {
    /// The lines with their ends, as they are in the file.
    pub content: String,
    /// Number of the first line, from 1.
    pub start_line: u64,
    /// Number of the last line in `content`; `start_line - 1` when there is none.
    pub end_line: u64,
    /// Lines of the file.
    pub total_lines: u64,
    /// There is more after `content`.
    pub truncated: bool,
    /// Of the file.
    pub etag: String,
    /// `us-ascii` or `utf-8`.
    pub encoding: &'static str,
}

/// Lines when the caller does not say how many.
const DEFAULT_LINES: u64 = 2000;
/// Bytes when the caller does not say how many.
const DEFAULT_BYTES: u64 = 1 << 20;

/// Up to `limit` lines (0: 2000) and `max_bytes` (0: 1 MiB) from line `start` (0: 1) on. A line that is longer than
/// `max_bytes` by itself is cut, so that a reader always gets on.
pub(super) fn window(
    bytes: &[u8],
    etag: String,
    start: u64,
    limit: u64,
    max_bytes: u64,
) -> Result<LinesWindow> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::bare(Reason::NotText))?;
    if bytes.contains(&0) {
        return Err(Reason::NotText.into());
    }
    let (start, limit) = (start.max(1), if limit == 0 { DEFAULT_LINES } else { limit });
    let room = usize::try_from(if max_bytes == 0 { DEFAULT_BYTES } else { max_bytes }).unwrap_or(usize::MAX);
    let (mut content, mut total, mut taken) = (String::new(), 0, 0);
    let (mut cut, mut full) = (false, false);
    for line in text.split_inclusive('\n') {
        total += 1;
        if total < start || taken >= limit || full {
            continue;
        }
        if content.len() + line.len() <= room {
            content.push_str(line);
            taken += 1;
            continue;
        }
        full = true;
        if taken == 0 {
            content.push_str(&line[..line.floor_char_boundary(room)]);
            taken = 1;
            cut = true;
        }
    }
    let end_line = start + taken - 1;
    Ok(LinesWindow {
        content,
        start_line: start,
        end_line,
        total_lines: total,
        truncated: cut || end_line < total,
        etag,
        encoding: if text.is_ascii() { "us-ascii" } else { "utf-8" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, (start, limit, max): (u64, u64, u64), want: (&str, u64, u64, u64, bool)) {
        let w = window(text.as_bytes(), String::new(), start, limit, max).unwrap();
        let got = (w.content.as_str(), w.start_line, w.end_line, w.total_lines, w.truncated);
        assert_eq!(got, want, "{text:?} {start} {limit} {max}");
    }

    #[test]
    fn windows() {
        check("", (0, 0, 0), ("", 1, 0, 0, false));
        check("a\nb\nc", (0, 0, 0), ("a\nb\nc", 1, 3, 3, false));
        check("a\r\nb\n", (1, 1, 0), ("a\r\n", 1, 1, 2, true));
        check("a\nb\nc\n", (2, 1, 0), ("b\n", 2, 2, 3, true));
        check("a\nb\nc\n", (3, 9, 0), ("c\n", 3, 3, 3, false));
        check("a\nb\n", (9, 0, 0), ("", 9, 8, 2, false));
        check("aa\nbb\ncc\n", (1, 0, 6), ("aa\nbb\n", 1, 2, 3, true));
        check("aa\nbb\ncc\n", (1, 0, 5), ("aa\n", 1, 1, 3, true));
        check("äöü\nx", (1, 0, 3), ("ä", 1, 1, 2, true));
        check("abc", (1, 0, 2), ("ab", 1, 1, 1, true));
    }

    #[test]
    fn only_text() {
        for bad in [&b"\xff"[..], b"a\0b"] {
            assert_eq!(window(bad, String::new(), 0, 0, 0).unwrap_err().reason, Reason::NotText);
        }
        assert_eq!(window("é".as_bytes(), String::new(), 0, 0, 0).unwrap().encoding, "utf-8");
    }
}
