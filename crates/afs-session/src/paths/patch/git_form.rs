//! Patches as git writes them: how a name is told, and the hunks of a text. Pure.
//!
//! Guarantees: `git apply` finds the file that is meant, whatever its name is, and so does our own reader (`unified`). A name is written as
//! with `core.quotePath`: in double quotes, with C's escapes and octal bytes, when it holds anything but printable ASCII. Lines end at LF
//! only, as they do for git: a CR inside of a line is a part of it. Only lines from the first to the last that differ, with those around
//! them, take memory; what is written ends soon after [`limits::MAX_DIFF_BYTES`], and is then of no use.

use afs_types::{SessionPath, limits};
use similar::{DiffOp, DiffTag, TextDiff, group_diff_ops};
use std::fmt::Write as _;
use std::time::Duration;

/// Lines that came, and lines that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HunkCounts {
    /// Came.
    pub added: u64,
    /// Went.
    pub removed: u64,
}

/// A path as git writes it in a patch, below `a`, `b`, or nothing (`rename from`, `rename to`).
pub fn patch_name(side: &str, path: &SessionPath) -> String {
    let bytes = path.to_bytes();
    let bare = bytes.strip_prefix(b"/").unwrap_or(&bytes);
    match side.is_empty() {
        true => quoted(bare),
        false => quoted(&[side.as_bytes(), b"/", bare].concat()),
    }
}

/// Writes the `---` and `+++` lines and the hunks of two texts that differ; nothing if they do not. `names` are of [`patch_name`], or
/// `/dev/null`. With a timeout the hunks may be larger than they need to be, and are right all the same.
pub fn write_hunks(
    out: &mut String,
    texts: (&str, &str),
    names: (&str, &str),
    context: usize,
    timeout: Option<Duration>,
) -> HunkCounts {
    let mut config = TextDiff::configure();
    if let Some(timeout) = timeout {
        config.timeout(timeout);
    }
    // What is in common is not compared: a change that could be told further up or down stays away from the ends of what is known.
    let (inner, outer) = (Window::of(texts, 0), Window::of(texts, context));
    let (old, new) = (lines(inner.old), lines(inner.new));
    let ops = config.diff_slices(&old, &new).ops().to_vec();
    let ahead = inner.before - outer.before;
    let (old_count, (old, new)) = (old.len(), (lines(outer.old), lines(outer.new)));
    let ops = surrounded(ops, ahead, old.len() - ahead - old_count);
    let mut counts = HunkCounts::default();
    for (n, hunk) in group_diff_ops(ops, context).iter().filter(|hunk| !hunk.is_empty()).enumerate() {
        // Writing to a String cannot fail.
        if n == 0 {
            let _ = writeln!(out, "--- {}{}\n+++ {}{}", names.0, end_of(names.0), names.1, end_of(names.1));
        }
        let _ = writeln!(out, "{}", outer.header(hunk));
        for op in hunk {
            let (gone, come) = (&old[op.old_range()], &new[op.new_range()]);
            if op.tag() == DiffTag::Equal {
                gone.iter().for_each(|line| write_line(out, ' ', line));
                continue;
            }
            gone.iter().for_each(|line| write_line(out, '-', line));
            come.iter().for_each(|line| write_line(out, '+', line));
            counts.removed += gone.len() as u64;
            counts.added += come.len() as u64;
        }
    }
    counts
}

/// The operations with common lines around them.
fn surrounded(ops: Vec<DiffOp>, ahead: usize, behind: usize) -> Vec<DiffOp> {
    let moved = |op: DiffOp| {
        let (tag, old, new) = op.as_tag_tuple();
        let (old_index, new_index, old_len, new_len) =
            (old.start + ahead, new.start + ahead, old.len(), new.len());
        match tag {
            DiffTag::Equal => DiffOp::Equal { old_index, new_index, len: old_len },
            DiffTag::Delete => DiffOp::Delete { old_index, old_len, new_index },
            DiffTag::Insert => DiffOp::Insert { old_index, new_index, new_len },
            DiffTag::Replace => DiffOp::Replace { old_index, old_len, new_index, new_len },
        }
    };
    let mut all: Vec<DiffOp> = Vec::with_capacity(ops.len() + 2);
    if ops.is_empty() {
        return all;
    }
    if ahead > 0 {
        all.push(DiffOp::Equal { old_index: 0, new_index: 0, len: ahead });
    }
    all.extend(ops.into_iter().map(moved));
    let end = all.last().map(|op| (op.old_range().end, op.new_range().end));
    match (all.last_mut(), end) {
        (Some(DiffOp::Equal { len, .. }), _) => *len += behind,
        (_, Some((old_index, new_index))) if behind > 0 => {
            all.push(DiffOp::Equal { old_index, new_index, len: behind });
        }
        _ => {}
    }
    all
}

fn write_line(out: &mut String, sign: char, line: &str) {
    out.push(sign);
    out.push_str(fitting(line, out.len()));
    if !line.ends_with('\n') {
        out.push_str("\n\\ No newline at end of file\n");
    }
}

/// As much of a line as is written; cut only where the whole is too large to be shown.
fn fitting(line: &str, written: usize) -> &str {
    let room = (limits::MAX_DIFF_BYTES + 4).saturating_sub(written);
    if line.len() <= room { line } else { &line[..line.floor_char_boundary(room)] }
}

/// How many lines, of both texts, are between the first and the last that differ.
pub fn differing_lines(texts: (&str, &str)) -> usize {
    let window = Window::of(texts, 0);
    let lines = |text: &str| text.bytes().filter(|b| *b == b'\n').count() + 1;
    lines(window.old) + lines(window.new)
}

/// What two texts do not have in common at their begins and ends, in whole lines.
struct Window<'t> {
    /// Lines in front of it.
    before: usize,
    old: &'t str,
    new: &'t str,
}

impl<'t> Window<'t> {
    /// With so many common lines around it, as far as there are.
    fn of((old, new): (&'t str, &'t str), context: usize) -> Self {
        let (a, b) = (old.as_bytes(), new.as_bytes());
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let begin = line_begin(a, same);
        let most = a.len().min(b.len()) - begin;
        let same = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
        // Of the common end, what begins with a line in both.
        let is_line = |text: &[u8]| same == text.len() || text[text.len() - same - 1] == b'\n';
        let first = a[a.len() - same..].iter().position(|b| *b == b'\n');
        let rest = if is_line(a) && is_line(b) { same } else { first.map_or(0, |at| same - at - 1) };
        let mut begin = begin;
        for _ in 0..context {
            if begin == 0 {
                break;
            }
            begin = line_begin(a, begin - 1);
        }
        let after: usize = old[a.len() - rest..].split_inclusive('\n').take(context).map(str::len).sum();
        Self {
            before: a[..begin].iter().filter(|b| **b == b'\n').count(),
            old: &old[begin..a.len() - rest + after],
            new: &new[begin..b.len() - rest + after],
        }
    }

    /// The first line of a hunk of it, with numbers of the whole texts.
    fn header(&self, ops: &[DiffOp]) -> String {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return String::new() };
        let range = |start: usize, end: usize| match end - start {
            1 => (start + self.before + 1).to_string(),
            // An empty one is told by the line in front of it.
            0 => format!("{},0", start + self.before),
            len => format!("{},{len}", start + self.before + 1),
        };
        let old = range(first.old_range().start, last.old_range().end);
        let new = range(first.new_range().start, last.new_range().end);
        format!("@@ -{old} +{new} @@")
    }
}

/// Where the line begins that an offset is in.
fn line_begin(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// A name with spaces needs an end, or other programs take a part of it for a date.
fn end_of(name: &str) -> &'static str {
    if name.contains(' ') { "\t" } else { "" }
}

fn quoted(name: &[u8]) -> String {
    let is_plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    if name.iter().all(is_plain) {
        return name.iter().copied().map(char::from).collect();
    }
    let mut out = String::from("\"");
    for b in name {
        let letter = match b {
            b'"' | b'\\' => char::from(*b),
            0x07 => 'a',
            0x08 => 'b',
            b'\t' => 't',
            b'\n' => 'n',
            0x0b => 'v',
            0x0c => 'f',
            b'\r' => 'r',
            b if is_plain(b) => {
                out.push(char::from(*b));
                continue;
            }
            b => {
                let _ = write!(out, "\\{b:03o}");
                continue;
            }
        };
        out.extend(['\\', letter]);
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "git_form_tests.rs"]
mod tests;
