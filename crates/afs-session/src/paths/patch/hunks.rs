//! Hunks of unified diffs: pure.
//!
//! A hunk fits where all its old lines are, nearest to where it says it is; hunks do not overlap and stay in order. Lines must be
//! equal, but for one thing: a hunk written with LF fits a text with CR LF, and what it adds gets CR LF then.

use super::text_lines::Lines;
use afs_types::{Error, Name, Reason, Result};
use std::cell::Cell;

/// What a line of a hunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// In both texts.
    Same,
    /// In the old one only.
    Gone,
    /// In the new one only.
    New,
}

/// One hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// The first old line, from 1; the line before, if there are no old lines.
    pub(crate) start: usize,
    /// Lines with their ends.
    pub(crate) lines: Vec<(Sign, Vec<u8>)>,
}

/// Lines that came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Counts {
    /// Counts lines by their signs.
    pub(crate) fn of(signs: impl Iterator<Item = Sign>) -> Self {
        let mut counts = Self::default();
        signs.for_each(|s| match s {
            Sign::Same => {}
            Sign::Gone => counts.removed += 1,
            Sign::New => counts.added += 1,
        });
        counts
    }
}

/// Comparisons of lines that finding all places of one file may take (seconds); texts of equal lines would take for ever.
const MAX_COMPARISONS: u64 = 500_000_000;

/// What is left of them.
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(MAX_COMPARISONS))
    }
    /// One comparison. False when there are no more.
    pub(crate) fn spend(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
    pub(crate) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

impl Hunk {
    fn side(&self, without: Sign) -> Vec<&[u8]> {
        self.lines.iter().filter(|(s, _)| *s != without).map(|(_, l)| l.as_slice()).collect()
    }
}

/// The text after all hunks.
pub(crate) fn apply(old: &[u8], hunks: &[Hunk]) -> Result<Vec<u8>> {
    let lines = Lines::of(old)?;
    // What comes at most; a line end may become CR LF.
    let new = hunks.iter().flat_map(|h| &h.lines).filter(|(sign, _)| *sign == Sign::New);
    let mut out = Vec::with_capacity(old.len() + new.map(|(_, line)| line.len() + 1).sum::<usize>());
    let (mut at, mut drift) = (0, 0_isize);
    let budget = Budget::new();
    for (n, hunk) in hunks.iter().enumerate() {
        let want = hunk.side(Sign::New);
        let nominal = if want.is_empty() { hunk.start } else { hunk.start.saturating_sub(1) };
        let near = nominal.saturating_add_signed(drift).clamp(at, lines.len());
        let place = find(&lines, &want, at, near, &budget).ok_or_else(|| conflict(&lines, hunk, n, near))?;
        drift = place as isize - nominal as isize;
        out.extend_from_slice(lines.span(at..place));
        put(&mut out, lines.from(place).take(want.len()), hunk);
        at = place + want.len();
    }
    out.extend_from_slice(lines.span(at..lines.len()));
    Ok(out)
}

/// The place nearest to `near` and not before `from` where `want` is.
fn find(lines: &Lines<'_, [u8]>, want: &[&[u8]], from: usize, near: usize, budget: &Budget) -> Option<usize> {
    let last = lines.len().checked_sub(want.len())?;
    let fits =
        |at: &usize| want.iter().zip(lines.from(*at)).all(|(w, have)| budget.spend() && equal(have, w));
    if want.is_empty() {
        return Some(near);
    }
    let reach = near.saturating_sub(from).max(last.saturating_sub(near));
    let places = (0..=reach).flat_map(|by| [near.checked_sub(by), (by > 0).then_some(near + by)]);
    places.flatten().take_while(|_| !budget.is_spent()).filter(|at| (from..=last).contains(at)).find(fits)
}

/// Whether a line of the text is a line of a hunk.
fn equal(have: &[u8], want: &[u8]) -> bool {
    have == want || have.strip_suffix(b"\r\n").is_some_and(|h| want.strip_suffix(b"\n") == Some(h))
}

fn put<'t>(out: &mut Vec<u8>, mut have: impl Iterator<Item = &'t [u8]>, hunk: &Hunk) {
    let mut crlf = false;
    for (sign, line) in &hunk.lines {
        match sign {
            Sign::New => match line.strip_suffix(b"\n").filter(|l| crlf && !l.ends_with(b"\r")) {
                Some(text) => out.extend_from_slice(&[text, b"\r\n"].concat()),
                None => out.extend_from_slice(line),
            },
            Sign::Same | Sign::Gone => {
                let old: &[u8] = have.next().unwrap_or(&[]);
                crlf = old.ends_with(b"\r\n") && !line.ends_with(b"\r\n");
                if *sign == Sign::Same {
                    out.extend_from_slice(old);
                }
            }
        }
    }
}

fn conflict(lines: &Lines<'_, [u8]>, hunk: &Hunk, n: usize, near: usize) -> Error {
    let want = hunk.side(Sign::New);
    let differs = want.iter().zip(lines.from(near)).take_while(|(w, have)| equal(have, w)).count();
    let line = near + differs + 1;
    let there = match lines.get(near + differs) {
        Some(have) => format!("the file has {}", shown(have)),
        None => "the file ends before".to_owned(),
    };
    let wanted = want.get(differs).map_or_else(String::new, |w| format!("want {}, ", shown(w)));
    let done = !hunk.side(Sign::Gone).is_empty()
        && find(lines, &hunk.side(Sign::Gone), 0, near, &Budget::new()).is_some();
    let hint = if done { " (the change seems to be there already)" } else { "" };
    Error::new(
        Reason::PatchConflict,
        format!("hunk {} does not fit: line {line}: {wanted}{there}{hint}", n + 1),
    )
    .with("hunk", (n + 1).to_string())
    .with("line", line.to_string())
}

/// A line for an error: not too long, without control characters.
pub(crate) fn shown(line: &[u8]) -> String {
    let text: String = Name::lossy(line.trim_ascii_end()).chars().take(120).collect();
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunk(start: usize, text: &str) -> Hunk {
        let line = |l: &str| {
            let sign = match l.as_bytes()[0] {
                b'+' => Sign::New,
                b'-' => Sign::Gone,
                _ => Sign::Same,
            };
            (sign, l.as_bytes()[1..].to_vec())
        };
        Hunk { start, lines: text.split_inclusive('\n').map(line).collect() }
    }

    fn check(old: &str, hunks: &[Hunk], want: &str) {
        assert_eq!(String::from_utf8(apply(old.as_bytes(), hunks).unwrap()).unwrap(), want);
    }

    #[test]
    fn hunks_fit_where_their_lines_are() {
        check("a\nb\nc\n", &[hunk(2, "-b\n+x\n+y\n")], "a\nx\ny\nc\n");
        check("0\n0\n0\na\nb\nc\n", &[hunk(1, " a\n-b\n c\n")], "0\n0\n0\na\nc\n");
        check("a\nb\nc\nb\n", &[hunk(4, "-b\n+x\n")], "a\nb\nc\nx\n");
        check("b\n1\n2\nb\n1\n2\n", &[hunk(1, "-b\n+x\n"), hunk(4, "-b\n+y\n")], "x\n1\n2\ny\n1\n2\n");
        check("", &[hunk(0, "+a\n")], "a\n");
        check("a\nb\n", &[hunk(1, "+x\n")], "a\nx\nb\n");
        check("a\nb\n", &[hunk(9, "+x\n")], "a\nb\nx\n");
        check(
            "a\nb",
            &[hunk(2, "-b\n+b\n").clone()].map(|mut h| {
                h.lines[0].1 = b"b".to_vec();
                h
            }),
            "a\nb\n",
        );
    }

    #[test]
    fn line_ends_of_the_text_win() {
        check("a\r\nb\r\nc\r\n", &[hunk(1, " a\n-b\n+x\n c\n")], "a\r\nx\r\nc\r\n");
        check("a\nb\n", &[hunk(1, " a\n-b\n+x\r\n")], "a\nx\r\n");
    }

    #[test]
    fn conflicts_name_hunk_and_line() {
        let error = apply(b"a\nb\nc\n", &[hunk(1, "-a\n+A\n"), hunk(2, " b\n-d\n+D\n")]).unwrap_err();
        assert_eq!(error.message(), "hunk 2 does not fit: line 3: want \"d\", the file has \"c\"");
        let error = apply(b"a\n", &[hunk(1, " a\n-b\n")]).unwrap_err();
        assert!(
            error.message().starts_with("hunk 1 does not fit: line 2: want \"b\", the file ends before"),
            "{error}"
        );
        let error = apply(b"a\nB\n", &[hunk(1, " a\n-b\n+B\n")]).unwrap_err();
        assert!(error.message().contains("there already"), "{error}");
        // A later hunk does not fit before an earlier one.
        assert!(apply(b"a\nb\n", &[hunk(2, "-b\n"), hunk(1, "-a\n")]).is_err());
    }
}
