//! A window of lines of a text, which comes in pieces: memory is for what is shown, not for the text. Pure.

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

/// A window while the text comes, piece by piece. It holds what it shows, and a character that is cut between two pieces.
pub(super) struct Windowed {
    start: u64,
    limit: u64,
    room: usize,
    /// Most bytes that it holds: no more than the text has.
    most: usize,
    /// Text of the lines that are taken, and of one that may not fit.
    content: Vec<u8>,
    /// Where in `content` the line begins that is being taken, if one is.
    open: Option<usize>,
    /// Lines that have begun, and lines taken.
    lines: u64,
    taken: u64,
    /// The last byte was not the end of a line.
    is_inside: bool,
    /// No more lines are taken; the last one is not whole.
    full: bool,
    cut: bool,
    is_ascii: bool,
    /// The begin of a character that has not come whole.
    half: Vec<u8>,
}

impl Windowed {
    /// Up to `limit` lines (0: 2000) and `max_bytes` (0: 1 MiB) from line `start` (0: 1) on, of a text of `size` bytes. A line that is
    /// longer than `max_bytes` by itself is cut, so that a reader always gets on.
    pub(super) fn new((start, limit, max_bytes): (u64, u64, u64), size: u64) -> Self {
        let room = if max_bytes == 0 { DEFAULT_BYTES } else { max_bytes };
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            start: start.max(1),
            limit: if limit == 0 { DEFAULT_LINES } else { limit },
            room: bytes(room),
            most: bytes(room.min(size)),
            content: Vec::new(),
            open: None,
            lines: 0,
            taken: 0,
            is_inside: false,
            full: false,
            cut: false,
            is_ascii: true,
            half: Vec::new(),
        }
    }

    /// Most bytes that it holds.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Takes the memory for all of them: growing would take more, and up to three times as much while it copies.
    pub(super) fn reserve(&mut self) {
        self.content.reserve_exact(self.most);
    }

    /// The next piece of the text.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<()> {
        self.check(piece)?;
        for part in piece.split_inclusive(|b| *b == b'\n') {
            if !self.is_inside {
                self.begin_line();
            }
            self.is_inside = part.last() != Some(&b'\n');
            if self.open.is_some() {
                self.take(part);
            }
        }
        Ok(())
    }

    fn begin_line(&mut self) {
        self.lines += 1;
        let is_wanted = self.lines >= self.start && self.taken < self.limit && !self.full;
        self.taken += u64::from(is_wanted);
        self.open = is_wanted.then_some(self.content.len());
    }

    /// A part of the line that is being taken.
    fn take(&mut self, part: &[u8]) {
        let Some(begin) = self.open else { return };
        if self.content.len() + part.len() <= self.room {
            self.content.extend_from_slice(part);
            return;
        }
        (self.full, self.open) = (true, None);
        if self.taken > 1 {
            self.content.truncate(begin);
            self.taken -= 1;
            return;
        }
        self.content.extend_from_slice(&part[..self.room - self.content.len()]);
        self.cut = true;
    }

    /// Refuses what is no text, however characters are cut.
    fn check(&mut self, piece: &[u8]) -> Result<()> {
        if piece.contains(&0) {
            return Err(Reason::NotText.into());
        }
        self.is_ascii &= piece.is_ascii();
        let mut rest = piece;
        while let (false, [next, more @ ..]) = (self.half.is_empty(), rest) {
            self.half.push(*next);
            rest = more;
            match std::str::from_utf8(&self.half) {
                Ok(_) => self.half.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Reason::NotText.into()),
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.half = rest[error.valid_up_to()..].to_vec();
                Ok(())
            }
            Err(_) => Err(Reason::NotText.into()),
        }
    }

    /// The window, when the whole text has come.
    pub(super) fn finish(mut self, etag: String) -> Result<LinesWindow> {
        if !self.half.is_empty() {
            return Err(Reason::NotText.into());
        }
        if self.cut {
            // A character may have been cut with its line.
            let whole = std::str::from_utf8(&self.content).err().map(|e| e.valid_up_to());
            self.content.truncate(whole.unwrap_or(self.content.len()));
        }
        // The answer lives longer than the room for it.
        self.content.shrink_to_fit();
        let end_line = self.start + self.taken - 1;
        Ok(LinesWindow {
            content: String::from_utf8(self.content).map_err(|_| Error::bare(Reason::NotText))?,
            start_line: self.start,
            end_line,
            total_lines: self.lines,
            truncated: self.cut || end_line < self.lines,
            etag,
            encoding: if self.is_ascii { "us-ascii" } else { "utf-8" },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same however the text is cut into pieces.
    fn window(text: &[u8], (start, limit, max): (u64, u64, u64)) -> Result<LinesWindow> {
        let cut = |size: usize| {
            let mut window = Windowed::new((start, limit, max), text.len() as u64);
            window.reserve();
            let reserved = window.content.capacity();
            assert!(reserved <= window.most(), "{reserved}");
            text.chunks(size).try_for_each(|piece| {
                window.push(piece)?;
                assert!(max == 0 || window.content.len() as u64 <= max, "it holds more than it shows");
                assert_eq!(window.content.capacity(), reserved, "it holds more than was asked for");
                Ok::<_, Error>(())
            })?;
            window.finish(String::new())
        };
        let whole = cut(text.len().max(1));
        for size in 1..text.len() {
            let (one, other) = (cut(size), &whole);
            assert_eq!(one.map_err(|e| e.reason), other.as_ref().map_err(|e| e.reason).cloned(), "{size}");
        }
        whole
    }

    fn check(text: &str, (start, limit, max): (u64, u64, u64), want: (&str, u64, u64, u64, bool)) {
        let w = window(text.as_bytes(), (start, limit, max)).unwrap();
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
        for bad in [&b"\xff"[..], b"a\0b", b"ab\xc3", b"\xc3a", b"\xe2\x82\n"] {
            assert_eq!(window(bad, (0, 0, 0)).unwrap_err().reason, Reason::NotText);
        }
        assert_eq!(window("é".as_bytes(), (0, 0, 0)).unwrap().encoding, "utf-8");
        assert_eq!(window("a\n€b€\n".as_bytes(), (2, 0, 0)).unwrap().content, "€b€\n");
    }
}
