//! The lines of one `.gitattributes`, and what they say of a path: pure, and as git does it (`attr.c`), byte by byte.
//!
//! Guarantees: a line that git drops (a name it does not allow, a pattern with `!`, more than [`MAX_LINE`] bytes, a macro where none may
//! be) is dropped and harms no other; lines take the memory of their text and a few bytes each; no macro is expanded twice for one path,
//! and never by recursion, so that asking takes time that grows with the text, whatever macros say of each other, and with its patterns
//! times the path.

use crate::ignores::rules::Pattern;
use afs_types::{Error, Reason, Result, limits};
use std::collections::HashMap;

/// A line of more bytes is none to git.
const MAX_LINE: usize = 2047;

const MACRO: &[u8] = b"[attr]";

/// The lines of one file.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Patterns, unquoted, and what the lines assign.
    text: Vec<u8>,
    patterns: Vec<(Pattern, Range)>,
    /// What each macro assigns: its last line.
    macros: HashMap<Box<[u8]>, Range>,
    len: usize,
}

/// Bytes of the text.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u32,
    end: u32,
}

/// What a line says of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State<'a> {
    /// `name`.
    Set,
    /// `-name`.
    Unset,
    /// `!name`: as if no line had said anything.
    Unspecified,
    /// `name=value`.
    Value(&'a [u8]),
}

impl Lines {
    /// Reads a file that has at most [`limits::MAX_ATTRIBUTES_FILE_BYTES`]. An error names the limit.
    pub(super) fn parse(file: &[u8], with_macros: bool) -> Result<Self> {
        let mut lines = Self::default();
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        for line in file.split(|b| *b == b'\n') {
            lines.line(line, with_macros);
            if lines.len > limits::MAX_ATTRIBUTES_FILE_LINES {
                return Err(too_many("lines", limits::MAX_ATTRIBUTES_FILE_LINES));
            }
        }
        lines.text.shrink_to_fit();
        lines.patterns.shrink_to_fit();
        Ok(lines)
    }

    /// Lines that say something.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn line(&mut self, line: &[u8], with_macros: bool) -> Option<()> {
        // To git a line is a C string.
        let line = line.strip_suffix(b"\r").unwrap_or(line).split(|b| *b == 0).next()?;
        let rest = &line[line.iter().position(|b| !is_blank(*b))?..];
        if rest[0] == b'#' || line.len() > MAX_LINE {
            return None;
        }
        let quoted = rest.strip_prefix(b"\"").and_then(unquote);
        let (name, states) = match &quoted {
            Some((name, states)) => (name.as_slice(), *states),
            None => rest.split_at(rest.iter().position(|b| is_blank(*b)).unwrap_or(rest.len())),
        };
        if !assignments(states).all(|one| is_name(assigned(one).0)) {
            return None;
        }
        match name.strip_prefix(MACRO).filter(|name| !name.is_empty()) {
            Some(name) => {
                let name = assignments(name).next().filter(|name| with_macros && is_name(name))?;
                let range = self.put(states)?;
                self.macros.insert(name.into(), range);
            }
            None => {
                let start = self.put(name)?.start;
                let pattern = Pattern::new(start as usize, name).filter(|p| !p.negative)?;
                let range = self.put(states)?;
                self.patterns.push((pattern, range));
            }
        }
        self.len += 1;
        Some(())
    }

    fn put(&mut self, bytes: &[u8]) -> Option<Range> {
        let start = u32::try_from(self.text.len()).ok()?;
        self.text.extend_from_slice(bytes);
        Some(Range { start, end: u32::try_from(self.text.len()).ok()? })
    }

    fn of(&self, range: Range) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }
}

/// What lines say of one path, taken from those that count most on.
pub(super) struct Found<'a> {
    /// The first word on each name.
    states: HashMap<&'a [u8], State<'a>>,
    /// Names that somebody wants to know, and how many of them have a word.
    wanted: &'a [&'a [u8]],
    known: usize,
    /// Where macros come from, those that count most first.
    macros: &'a [&'a Lines],
}

impl<'a> Found<'a> {
    pub(super) fn new(wanted: &'a [&'a [u8]], macros: &'a [&'a Lines]) -> Self {
        Self { states: HashMap::new(), wanted, known: 0, macros }
    }

    /// Takes in what a file says of a path below its directory.
    pub(super) fn take(&mut self, lines: &'a Lines, path: &[u8]) {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        for (pattern, range) in lines.patterns.iter().rev() {
            if self.known == self.wanted.len() {
                return;
            }
            if !pattern.only_dirs && pattern.fits(&lines.text, path, name) {
                self.assign(lines.of(*range));
            }
        }
    }

    /// The last assignment of a line counts most; what a macro assigns comes before those that stand in front of it.
    fn assign(&mut self, states: &'a [u8]) {
        let mut todo: Vec<&'a [u8]> = assignments(states).collect();
        while let Some(one) = todo.pop() {
            let (name, state) = assigned(one);
            if self.states.contains_key(name) {
                continue;
            }
            self.states.insert(name, state);
            self.known += usize::from(self.wanted.contains(&name));
            if state == State::Set
                && let Some(states) =
                    self.macros.iter().find_map(|lines| lines.macros.get(name).map(|range| lines.of(*range)))
            {
                todo.extend(assignments(states));
            }
        }
    }

    /// The word on an attribute.
    pub(super) fn state(&self, name: &[u8]) -> State<'a> {
        self.states.get(name).copied().unwrap_or(State::Unspecified)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

fn assignments(states: &[u8]) -> impl Iterator<Item = &[u8]> {
    states.split(|b| is_blank(*b)).filter(|one| !one.is_empty())
}

fn assigned(one: &[u8]) -> (&[u8], State<'_>) {
    let (name, value) = match one.iter().position(|b| *b == b'=') {
        Some(at) => (&one[..at], State::Value(&one[at + 1..])),
        None => (one, State::Set),
    };
    match name.first() {
        Some(b'-') => (&name[1..], State::Unset),
        Some(b'!') => (&name[1..], State::Unspecified),
        _ => (name, value),
    }
}

fn is_name(name: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !name.is_empty() && name[0] != b'-' && name.iter().all(allowed) && !name.starts_with(b"builtin_")
}

/// What stands between quotes, as in C, and what is behind them; none if that is not what it is.
fn unquote(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let (escaped, tail) = rest.split_first()?;
                rest = tail;
                out.push(match escaped {
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'\\' | b'"' => *escaped,
                    b'0'..=b'3' => {
                        let (digits, tail) = rest.split_at_checked(2)?;
                        let is_octal = |b: &u8| matches!(b, b'0'..=b'7');
                        digits.iter().all(is_octal).then_some(())?;
                        rest = tail;
                        ((escaped - b'0') << 6) | ((digits[0] - b'0') << 3) | (digits[1] - b'0')
                    }
                    _ => return None,
                });
            }
            _ => out.push(*byte),
        }
    }
    // A pattern is a C string, too.
    out.truncate(out.iter().position(|b| *b == 0).unwrap_or(out.len()));
    Some((out, rest))
}

pub(super) fn too_many(what: &str, limit: usize) -> Error {
    Error::new(Reason::FileTooLarge, format!("attributes of files have at most {limit} {what}"))
        .with("limit", limit.to_string())
        .next("make the attribute file smaller")
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
