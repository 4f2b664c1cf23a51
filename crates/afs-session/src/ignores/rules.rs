//! The lines of one `.gitignore`, and what they match: pure, and as git does it (`dir.c`, `wildmatch.c`), byte by byte. The patterns of a
//! `.gitattributes` are the same ones.
//!
//! Guarantees: every line that git takes as a pattern is one, and a pattern that git can never match (an open bracket, a backslash at
//! its end) matches nothing and harms no other; rules take the memory of their text and a few bytes for each line; matching takes no
//! memory, and time that grows with the pattern times the path, which is why a pattern has at most
//! [`limits::MAX_IGNORE_PATTERN_BYTES`]: a longer one is an error, as all limits are.

use afs_types::{Error, Reason, Result, limits};

/// The rules of one file.
#[derive(Debug)]
pub(super) struct Rules {
    text: Vec<u8>,
    patterns: Vec<Pattern>,
}

/// A line, as git splits it. Offsets are into the text: [`limits::MAX_IGNORE_FILE_BYTES`] of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    start: u32,
    end: u32,
    /// `!`: takes back.
    pub(crate) negative: bool,
    /// A slash at its end.
    pub(crate) only_dirs: bool,
    /// No slash elsewhere: it is for names, not for paths.
    name_only: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No special characters.
    Plain,
    /// A star, then no special characters.
    Ending,
    Wild,
}

/// What a path is matched by.
pub(super) struct Subject<'a> {
    /// Relative to the directory of the rules.
    pub(super) path: &'a [u8],
    pub(super) is_dir: bool,
}

impl Rules {
    /// Reads a file that has at most [`limits::MAX_IGNORE_FILE_BYTES`]. An error names the limit.
    pub(super) fn parse(text: Vec<u8>) -> Result<Self> {
        let mut patterns = Vec::new();
        let mut start = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        while start < text.len() {
            let end = text[start..].iter().position(|b| *b == b'\n').map_or(text.len(), |n| start + n);
            if let Some(pattern) = pattern(&text, start, end) {
                if patterns.len() == limits::MAX_IGNORE_FILE_PATTERNS {
                    return Err(too_many("patterns", limits::MAX_IGNORE_FILE_PATTERNS));
                }
                if pattern.len() > limits::MAX_IGNORE_PATTERN_BYTES {
                    return Err(too_many("bytes in one pattern", limits::MAX_IGNORE_PATTERN_BYTES));
                }
                patterns.push(pattern);
            }
            start = end + 1;
        }
        patterns.shrink_to_fit();
        Ok(Self { text, patterns })
    }

    /// Lines that are patterns.
    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Bytes of memory that they take.
    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.patterns.capacity() * size_of::<Pattern>()
    }

    /// Whether the last line that matches leaves the path out; none if no line matches.
    pub(super) fn verdict(&self, subject: &Subject<'_>) -> Option<bool> {
        let name = subject.path.rsplit(|b| *b == b'/').next().unwrap_or(subject.path);
        let fits = |pattern: &&Pattern| {
            (subject.is_dir || !pattern.only_dirs) && pattern.fits(&self.text, subject.path, name)
        };
        self.patterns.iter().rev().find(fits).map(|pattern| !pattern.negative)
    }
}

/// Memory that rules of a text of so many bytes take beside it while it is parsed, at most: every line of two bytes can be one, and a list
/// that grows has the old one beside it, and place for more.
pub(super) fn memory_of(text: usize) -> usize {
    3 * (text / 2 + 1).min(limits::MAX_IGNORE_FILE_PATTERNS) * size_of::<Pattern>()
}

pub(super) fn too_many(what: &str, limit: usize) -> Error {
    Error::new(Reason::FileTooLarge, format!("rules to ignore files have at most {limit} {what}"))
        .with("limit", limit.to_string())
        .next("make the ignore file smaller, or search without respect_gitignore")
}

fn pattern(text: &[u8], start: usize, end: usize) -> Option<Pattern> {
    let line = &text[start..end];
    if line.is_empty() || line[0] == b'#' {
        return None;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // To git a line is a C string.
    let line = line.split(|b| *b == 0).next().unwrap_or(line);
    Pattern::new(start, without_spaces(line))
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// A line without the spaces at its end that no backslash protects.
fn without_spaces(line: &[u8]) -> &[u8] {
    let (mut at, mut kept) = (0, 0);
    while at < line.len() {
        at += match line[at] {
            b' ' => {
                at += 1;
                continue;
            }
            b'\\' => 2,
            _ => 1,
        };
        kept = at;
    }
    &line[..kept.min(line.len())]
}

impl Pattern {
    /// The pattern in `line`, which begins at `start` of the text; none if it can match nothing.
    pub(crate) fn new(mut start: usize, mut line: &[u8]) -> Option<Self> {
        let negative = line.first() == Some(&b'!');
        if negative {
            (line, start) = (&line[1..], start + 1);
        }
        let only_dirs = line.last() == Some(&b'/');
        if only_dirs {
            line = &line[..line.len() - 1];
        }
        if line.is_empty() {
            return None;
        }
        let name_only = !line.contains(&b'/');
        if line[0] == b'/' {
            (line, start) = (&line[1..], start + 1);
        }
        let plain = |part: &[u8]| !part.iter().any(|b| is_special(*b));
        let kind = match line.strip_prefix(b"*") {
            _ if plain(line) => Kind::Plain,
            Some(rest) if name_only && plain(rest) => Kind::Ending,
            _ => Kind::Wild,
        };
        let place = |at: usize| u32::try_from(at).ok();
        let (start, end) = (place(start)?, place(start + line.len())?);
        Some(Self { start, end, negative, only_dirs, name_only, kind })
    }

    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it matches a path below the directory of its file, and a name, the last of the path. Not what it says of directories.
    pub(crate) fn fits(&self, text: &[u8], path: &[u8], name: &[u8]) -> bool {
        let pattern = &text[self.start as usize..self.end as usize];
        let subject = if self.name_only { name } else { path };
        match self.kind {
            Kind::Plain => pattern == subject,
            Kind::Ending => subject.ends_with(&pattern[1..]),
            Kind::Wild if self.name_only => wild(pattern, subject, false),
            Kind::Wild => {
                // Git compares what is in front of the first special character apart, so that `b**/c` is `b`, then `**/c`.
                let special = pattern.iter().position(|b| is_special(*b)).unwrap_or(pattern.len());
                let (head, rest) = pattern.split_at(special);
                subject.strip_prefix(head).is_some_and(|subject| wild(rest, subject, true))
            }
        }
    }
}

/// Where to go on when what follows a star does not fit.
#[derive(Clone, Copy)]
struct Retry {
    pattern: usize,
    text: usize,
    /// Only after a slash: `**/`.
    whole_names: bool,
}

/// Whether a pattern matches a whole text. With `is_path`, only `**` between slashes matches slashes.
///
/// Two places to go back to are enough: a shorter match of an earlier `*` in the same name, or of an earlier `**`, leaves less to
/// those after it, which could have taken the rest themselves.
fn wild(pattern: &[u8], text: &[u8], is_path: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let (mut star, mut stars): (Option<Retry>, Option<Retry>) = (None, None);
    loop {
        if pattern.get(p) == Some(&b'*') {
            let end = p + pattern[p..].iter().take_while(|b| **b == b'*').count();
            let rest = &pattern[end..];
            let is_whole = (p == 0 || pattern[p - 1] == b'/')
                && (rest.is_empty() || rest[0] == b'/' || rest.starts_with(b"\\/"));
            let crosses = !is_path || (end - p > 1 && is_whole);
            let whole_names = is_path && crosses && rest.first() == Some(&b'/');
            p = if whole_names { end + 1 } else { end };
            let retry = Some(Retry { pattern: p, text: t, whole_names });
            (star, stars) = if crosses { (None, retry) } else { (retry, stars) };
            continue;
        }
        match (text.get(t), p < pattern.len()) {
            (None, false) => return true,
            (Some(byte), true) => match one(pattern, p, *byte, is_path) {
                One::Fits { next } => {
                    (p, t) = (next, t + 1);
                    continue;
                }
                One::Differs => {}
                One::Malformed => return false,
            },
            _ => {}
        }
        if let Some(retry) = star.as_mut().filter(|s| text.get(s.text).is_some_and(|b| *b != b'/')) {
            retry.text += 1;
            (p, t) = (retry.pattern, retry.text);
            continue;
        }
        let Some(retry) = stars.as_mut().filter(|s| s.text < text.len()) else { return false };
        let step = match retry.whole_names {
            false => Some(1),
            true => text[retry.text..].iter().position(|b| *b == b'/').map(|n| n + 1),
        };
        let Some(step) = step else { return false };
        retry.text += step;
        (p, t, star) = (retry.pattern, retry.text, None);
    }
}

/// What one element of a pattern, not a star, says to a byte.
enum One {
    Fits {
        next: usize,
    },
    Differs,
    /// To git this pattern never matches.
    Malformed,
}

fn one(pattern: &[u8], at: usize, byte: u8, is_path: bool) -> One {
    let fits = |yes: bool, next: usize| if yes { One::Fits { next } } else { One::Differs };
    match pattern[at] {
        b'?' => fits(!is_path || byte != b'/', at + 1),
        b'\\' => match pattern.get(at + 1) {
            Some(escaped) => fits(*escaped == byte, at + 2),
            None => One::Malformed,
        },
        b'[' => match set(pattern, at + 1, byte) {
            Some((is_in, next)) => fits(is_in && (!is_path || byte != b'/'), next),
            None => One::Malformed,
        },
        plain => fits(plain == byte, at + 1),
    }
}

/// Whether a byte is in the set that begins after a bracket, and where the set ends; none if it does not, or names no class.
fn set(pattern: &[u8], mut at: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(at)?, b'!' | b'^');
    at += usize::from(negated);
    let (mut is_in, mut previous) = (false, None);
    let mut first = true;
    // The next closing bracket, as far as one was looked for: looking for it at every `[:` would take the square of the set.
    let mut closing = 0;
    loop {
        count(1);
        let now = *pattern.get(at)?;
        if now == b']' && !first {
            return Some((is_in != negated, at + 1));
        }
        first = false;
        let after = pattern.get(at + 1).copied();
        match (now, previous) {
            (b'\\', _) => {
                is_in |= after? == byte;
                previous = after;
                at += 2;
            }
            (b'-', Some(low)) if after.is_some_and(|b| b != b']') => {
                let is_escaped = after == Some(b'\\');
                let high = if is_escaped { *pattern.get(at + 2)? } else { after? };
                is_in |= (low..=high).contains(&byte);
                previous = None;
                at += if is_escaped { 3 } else { 2 };
            }
            (b'[', _) if after == Some(b':') => {
                if closing < at + 2 {
                    let rest = &pattern[at + 2..];
                    let found = rest.iter().position(|b| *b == b']');
                    count(found.unwrap_or(rest.len()));
                    closing = at + 2 + found?;
                }
                match pattern[at + 2..closing].strip_suffix(b":") {
                    Some(name) => {
                        is_in |= class(name, byte)?;
                        previous = None;
                        at = closing + 1;
                    }
                    // No class after all: a bracket like any other character.
                    None => {
                        is_in |= byte == b'[';
                        previous = Some(b'[');
                        at += 1;
                    }
                }
            }
            _ => {
                is_in |= now == byte;
                previous = Some(now);
                at += 1;
            }
        }
    }
}

/// For a test that counts the bytes that a set looks at.
#[cfg(not(test))]
fn count(_: usize) {}

fn class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}

#[cfg(test)]
use tests::count;

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
