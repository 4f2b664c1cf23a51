//! Exact text replacement.
//!
//! Guarantees: every `old_text` is found exactly once unless all are to be replaced; edits apply in order, each to the text the
//! one before left; if one does not apply, nothing changes, and the error says where to look. At most the old text, the text before an
//! edit and the one after it are in memory, in room that was waited for ([`need`]). [`apply`] is pure.

use super::entry::{Entry, Precondition};
use super::error::{at, invalid};
use super::facts::{Facts, Note};
use super::patch::{differing_lines, patch_name, write_hunks};
use super::remembered::to_word;
use super::work::{Task, Work};
use super::write::replace;
use super::{By, Files};
use crate::memory::Room;
use crate::requests::Begin;
use crate::session::Stamp;
use afs_types::{Error, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use std::borrow::Cow;

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What is there.
    pub old: String,
    /// What shall be there.
    pub new: String,
    /// Everywhere; otherwise `old` must be there exactly once.
    pub replace_all: bool,
}

impl Replacement {
    /// What makes it what it is, for a fingerprint.
    pub(super) fn print(&self) -> [Cow<'_, [u8]>; 3] {
        let all: &[u8] = if self.replace_all { b"all" } else { b"one" };
        [self.old.as_bytes(), self.new.as_bytes(), all].map(Cow::Borrowed)
    }
}

/// A request to edit a file.
#[derive(Clone, Debug, Default)]
pub struct FileEdit {
    /// In order.
    pub edits: Vec<Replacement>,
    /// On the file.
    pub precondition: Precondition,
    /// Answer as if, change nothing.
    pub dry_run: bool,
}

/// What an edit did.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The file after it.
    pub entry: Option<Entry>,
    /// Places that were changed.
    pub replacements: u32,
    /// Unified diff; empty when the text is too large to compare (`limits::MAX_DIFF_LINES`), or the diff larger than
    /// `limits::MAX_DIFF_BYTES`, or memory is short.
    pub diff: String,
    /// The session's revision that holds the change.
    pub revision: u64,
    /// To wait for.
    pub stamp: Stamp,
}

/// Comparing takes lines of both texts times lines that differ; beyond this many steps (about a second) there is no diff.
const MAX_DIFF_STEPS: usize = 200_000_000;
/// Remembered diffs are cut away beyond this many bytes.
const MAX_REMEMBERED_DIFF: usize = 64 << 10;
/// Lines named in an error.
const MAX_SHOWN: usize = 10;

impl Files<'_> {
    /// Replaces pieces of a text file. Symbolic links are followed inside the session.
    pub fn edit_file(&self, path: &SessionPath, edit: &FileEdit, by: &By) -> Result<Edited> {
        check(&edit.edits)?;
        let mut step = |work: &mut Work<'_, '_, '_, '_>| {
            work.check(&edit.precondition, path, true)
                .and_then(|()| edit_step(work, 0, path, &edit.edits))
                .and_then(|note| Ok((note, work.entry(path, true)?)))
                .map_err(at(path))
        };
        if edit.dry_run {
            let (note, entry) = self.rehearse(&mut Facts::dry_once(self.session.shared()), &mut step)?;
            let stamp = self.session.stamp();
            let Note { replacements, diff, .. } = note;
            let entry = entry.map(Entry::untold);
            return Ok(Edited { entry, replacements, diff, revision: stamp.seq, stamp });
        }
        // Not printed: escapes would take several times the memory of the texts.
        let (at_path, rest) = (path.to_bytes(), format!("{:?}", edit.precondition));
        let print: Vec<_> = edit.edits.iter().flat_map(Replacement::print).collect();
        let parts: Vec<&[u8]> =
            [&at_path[..], rest.as_bytes()].into_iter().chain(print.iter().map(|part| &**part)).collect();
        let attempt = match self.begin("EditFile", by, &parts)? {
            Begin::Done(words) => return self.replayed_edit(&words, path),
            Begin::Go(attempt) => attempt,
        };
        let facts = &mut Facts::free(self.session.shared());
        // Reads and compares before the lock is taken.
        self.rehearse(facts, &mut step)?;
        let ((note, entry), stamp) = self.transact(&Task { by, attempt }, facts, step, |(note, entry)| {
            let diff = if note.diff.len() > MAX_REMEMBERED_DIFF { String::new() } else { note.diff.clone() };
            vec![note.replacements.to_string(), diff, to_word(entry.as_ref())]
        })?;
        let Note { replacements, diff, .. } = note;
        Ok(Edited { entry, replacements, diff, revision: stamp.seq, stamp })
    }

    fn replayed_edit(&self, words: &[String], path: &SessionPath) -> Result<Edited> {
        let stamp = self.replayed_stamp(words)?;
        let entry = self.replayed_entry(words.get(3), path, true)?;
        let replacements = words.get(1).and_then(|w| w.parse().ok()).unwrap_or(0);
        let diff = words.get(2).cloned().unwrap_or_default();
        Ok(Edited { entry, replacements, diff, revision: stamp.seq, stamp })
    }
}

/// Refuses edits that can never be right.
pub(super) fn check(edits: &[Replacement]) -> Result<()> {
    if edits.is_empty() {
        return Err(Error::invalid("edits", "at least one"));
    }
    for (n, edit) in edits.iter().enumerate() {
        if edit.old.is_empty() {
            return Err(invalid(&format!("edits[{n}].old_text"), "some text")
                .next("to make a file or replace all of it, write it"));
        }
        if edit.old == edit.new {
            return Err(invalid(&format!("edits[{n}].new_text"), "another text than old_text"));
        }
    }
    Ok(())
}

/// Edits a file as a step of a transaction; `key` tells this edit from others in it.
pub(super) fn edit_step(
    work: &mut Work<'_, '_, '_, '_>,
    key: usize,
    path: &SessionPath,
    edits: &[Replacement],
) -> Result<Note> {
    let (attr, _) = work.find(path, true)?;
    if !attr.is_file() {
        return Err(if attr.is_dir() { Reason::IsADirectory } else { Reason::WrongType }.into());
    }
    let (content, size) = work.tree().content(attr.ino).ok_or(Reason::Internal)?;
    let rewrite = work.facts.rewrite(key, (&content, size), need(size, edits), |old, room| {
        let old = std::str::from_utf8(old).map_err(|_| Error::bare(Reason::NotText))?;
        let (new, replacements) = apply(old, edits)?;
        let per_place = edits.iter().map(|e| lines_of(&e.old) + lines_of(&e.new)).max().unwrap_or(0);
        let diff = shown_diff(path, (old, &new), per_place * replacements as usize, room);
        Ok((Bytes::from(new), Note { replacements, diff, ..Note::default() }))
    })?;
    replace(work, attr.ino, &rewrite.content, rewrite.size)?;
    Ok(rewrite.note.clone())
}

/// Bytes of memory that editing a file of `size` bytes takes at most, but for the diff: the old text, and one or two newer ones, which can
/// be larger.
fn need(size: u64, edits: &[Replacement]) -> usize {
    let most = limits::MAX_TEXT_FILE_BYTES;
    let largest = edits.iter().try_fold((size, size), |(size, largest), edit| {
        let (old, new) = (edit.old.len() as u64, edit.new.len() as u64);
        let places = if edit.replace_all { size / old.max(1) } else { 1 };
        let after = size.checked_add(new.saturating_sub(old).checked_mul(places)?)?;
        (after <= most).then_some((after, largest.max(after)))
    });
    let largest = largest.map_or(most, |(_, largest)| largest);
    let newer = if edits.len() > 1 { 2 * largest } else { largest };
    usize::try_from(size.saturating_add(newer)).unwrap_or(usize::MAX)
}

/// The text after the edits, and how many places changed.
pub(super) fn apply(text: &str, edits: &[Replacement]) -> Result<(String, u32)> {
    let (mut text, mut count) = (Cow::Borrowed(text), 0);
    for (n, edit) in edits.iter().enumerate() {
        let places = text.matches(&edit.old).count();
        match places {
            0 => return Err(not_found(&text, edit, n)),
            1 => {}
            _ if edit.replace_all => {}
            _ => return Err(not_unique(&text, edit, places, n)),
        }
        let grown = edit.new.len().saturating_sub(edit.old.len()).saturating_mul(places);
        if text.len().saturating_add(grown) as u64 > limits::MAX_TEXT_FILE_BYTES {
            return Err(too_large(n));
        }
        count += places as u32;
        text = Cow::Owned(replaced(&text, edit, places));
    }
    Ok((text.into_owned(), count))
}

/// `str::replace`, into exactly the memory that it takes.
fn replaced(text: &str, edit: &Replacement, places: usize) -> String {
    let mut out = String::with_capacity(text.len() - places * edit.old.len() + places * edit.new.len());
    let mut last = 0;
    for (at, old) in text.match_indices(&edit.old) {
        out.push_str(&text[last..at]);
        out.push_str(&edit.new);
        last = at + old.len();
    }
    out.push_str(&text[last..]);
    out
}

/// Bytes of memory that comparing a line takes: the line in two lists, its place in a table, and two paths through it.
const DIFF_LINE_BYTES: usize = 128;

/// The diff of an edit, if there is memory for it now.
fn shown_diff(path: &SessionPath, texts: (&str, &str), differing: usize, room: &mut Room<'_>) -> String {
    let lines = differing_lines(texts).min(limits::MAX_DIFF_LINES);
    let has_room = room
        .try_grow(lines * DIFF_LINE_BYTES + 2 * limits::MAX_DIFF_BYTES.min(texts.0.len() + texts.1.len()));
    if has_room { unified(path, texts.0, texts.1, differing) } else { String::new() }
}

/// The unified diff of two texts that differ in at most `differing` lines, as git would head it. Empty when it would take too long
/// or be larger than an answer holds.
pub(super) fn unified(path: &SessionPath, old: &str, new: &str, differing: usize) -> String {
    let lines = differing_lines((old, new));
    if lines > limits::MAX_DIFF_LINES || lines.saturating_mul(differing) > MAX_DIFF_STEPS {
        return String::new();
    }
    let mut text = String::new();
    write_hunks(&mut text, (old, new), (&patch_name("a", path), &patch_name("b", path)), 3, None);
    if text.len() > limits::MAX_DIFF_BYTES { String::new() } else { text }
}

fn lines_of(text: &str) -> usize {
    line_of(text, text.len())
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
}

fn too_large(n: usize) -> Error {
    let (field, most) = (format!("edits[{n}]"), limits::MAX_TEXT_FILE_BYTES);
    Error::new(Reason::FileTooLarge, format!("{field} would make it larger than {most} bytes"))
        .with("field", field)
        .with("limit", most.to_string())
}

fn not_unique(text: &str, edit: &Replacement, places: usize, n: usize) -> Error {
    let first = text.match_indices(&edit.old).take(MAX_SHOWN);
    let lines: Vec<String> = first.map(|(at, _)| line_of(text, at).to_string()).collect();
    let more = if places > MAX_SHOWN { ", ..." } else { "" };
    let (field, lines) = (format!("edits[{n}].old_text"), lines.join(", ") + more);
    Error::new(Reason::EditNotUnique, format!("{field} is there {places} times, at lines {lines}"))
        .with("field", field)
        .with("lines", lines)
        .next("add lines around it to old_text until it is unique, or set replace_all")
}

fn not_found(text: &str, edit: &Replacement, n: usize) -> Error {
    let error = |what: &str| {
        let field = format!("edits[{n}].old_text");
        Error::new(Reason::EditNotFound, format!("{field} is not in the file{what}")).with("field", field)
    };
    if text.contains("\r\n") && !edit.old.contains('\r') && text.replace("\r\n", "\n").contains(&edit.old) {
        return error(": its lines end in CR LF")
            .next("write the line ends of old_text and new_text as CR LF");
    }
    let first = edit.old.lines().find(|l| !l.trim().is_empty()).unwrap_or(&edit.old);
    match closest_line(text, first) {
        Some((line, there)) => {
            let there: String = there.chars().take(200).collect();
            error(&format!("; the closest line is {line}: {there:?}"))
                .with("closest_line", line.to_string())
                .next(format!(
                    "read the file around line {line} and copy the text exactly, with its white space"
                ))
        }
        None => error("").next("read the file and copy the text exactly"),
    }
}

/// The line most like `want`, if there is one that is somewhat like it.
pub(super) fn closest_line<'t>(text: &'t str, want: &str) -> Option<(usize, &'t str)> {
    let target = Shingles::of(want.trim());
    let mut best: Option<(u32, usize, &str)> = None;
    for (n, line) in text.lines().enumerate() {
        let score =
            if line.trim() == want.trim() { 100 } else { target.likeness(&Shingles::of(line.trim())) };
        if score >= 50 && best.is_none_or(|(b, ..)| score > b) {
            best = Some((score, n + 1, line));
        }
        if score == 100 {
            break;
        }
    }
    best.map(|(_, line, text)| (line, text))
}

/// Pairs of neighbouring bytes, as a set of 256 bits.
#[derive(Default)]
struct Shingles([u64; 4]);

impl Shingles {
    fn of(text: &str) -> Self {
        let mut set = Self::default();
        for pair in text.as_bytes().windows(2) {
            let bit = (usize::from(pair[0]) * 31 + usize::from(pair[1])) % 256;
            set.0[bit / 64] |= 1 << (bit % 64);
        }
        set
    }
    fn count(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }
    /// 0 to 99.
    fn likeness(&self, other: &Self) -> u32 {
        let both: u32 = self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones()).sum();
        let all = self.count() + other.count();
        (200 * both).checked_div(all).unwrap_or(0).min(99)
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
