//! The lines of a text, with four bytes for each besides the text.

use afs_types::{Error, Reason, Result, limits};
use std::ops::Range;

/// A text that can be cut after its line ends.
pub(super) trait Text {
    fn bytes(&self) -> &[u8];
    fn part(&self, range: Range<usize>) -> &Self;
}

impl Text for [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn part(&self, range: Range<usize>) -> &Self {
        &self[range]
    }
}

impl Text for str {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
    fn part(&self, range: Range<usize>) -> &Self {
        &self[range]
    }
}

/// Lines with their ends; the last may have none.
pub(super) struct Lines<'t, T: ?Sized> {
    text: &'t T,
    /// Where each line ends.
    ends: Vec<u32>,
}

impl<'t, T: Text + ?Sized> Lines<'t, T> {
    /// Finds the lines of a text, which may have [`limits::MAX_PATCHED_LINES`].
    pub(super) fn of(text: &'t T) -> Result<Self> {
        let bytes = text.bytes();
        let most = limits::MAX_PATCHED_LINES;
        // Counted first, so that nothing grows.
        let count = bytes.split_inclusive(|b| *b == b'\n').count();
        if count > most || u32::try_from(bytes.len()).is_err() {
            let message = format!("the file has {count} lines, a patch takes at most {most}");
            return Err(Error::new(Reason::FileTooLarge, message).with("limit", most.to_string()));
        }
        let mut ends = Vec::with_capacity(count);
        let mut at = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            at += line.len();
            ends.push(at as u32);
        }
        Ok(Self { text, ends })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One line, if there is one of this number, from 0.
    pub(super) fn get(&self, n: usize) -> Option<&'t T> {
        (n < self.len()).then(|| self.span(n..n + 1))
    }

    /// Lines as they stand in the text. The range is of numbers that there are.
    pub(super) fn span(&self, lines: Range<usize>) -> &'t T {
        let begin = |n: usize| n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.part(begin(lines.start)..begin(lines.end))
    }

    /// Lines one by one, from one on.
    pub(super) fn from(&self, n: usize) -> impl Iterator<Item = &'t T> + '_ {
        (n..self.len()).map(|n| self.span(n..n + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_where_they_are() {
        let lines = Lines::of("a\n\nbc").unwrap();
        assert_eq!(
            (lines.len(), lines.get(0), lines.get(2), lines.get(3)),
            (3, Some("a\n"), Some("bc"), None)
        );
        assert_eq!((lines.span(1..3), lines.span(3..3), lines.span(0..0)), ("\nbc", "", ""));
        assert_eq!(lines.from(1).collect::<Vec<_>>(), ["\n", "bc"]);
        assert_eq!(Lines::of("").unwrap().len(), 0);
    }

    #[test]
    fn too_many_lines_are_refused() {
        let text = vec![b'\n'; limits::MAX_PATCHED_LINES + 1];
        assert_eq!(Lines::of(&text[1..]).unwrap().len(), limits::MAX_PATCHED_LINES);
        let error = Lines::of(&text[..]).err().unwrap();
        assert_eq!((error.reason, error.metadata()[0].0), (Reason::FileTooLarge, "limit"));
    }
}
