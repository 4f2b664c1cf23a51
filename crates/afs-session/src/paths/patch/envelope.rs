//! The `*** Begin Patch` format that language models write: from text to [`FilePatch`]es, and its chunks. Pure.
//!
//! A chunk has no line numbers. `@@ text` lines say which lines come somewhere before it; its own old lines must follow there. Lines are
//! compared exactly first, then without white space at their ends, then without any around them, then with typographic quotes and
//! dashes as plain ones; context keeps the file's own spelling.

use super::hunks::{Budget, Sign, shown};
use super::text_lines::Lines as TextLines;
use super::{Action, FilePatch, Kind, Moved, Text, malformed, patch_path};
use afs_types::{Error, Reason, Result, SessionPath};

/// A part of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Lines to find before it, in order.
    pub(crate) after: Vec<String>,
    /// Its lines, without ends.
    pub(crate) lines: Vec<(Sign, String)>,
    /// It is at the end of the file.
    pub(crate) at_end: bool,
}

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";

/// Whether a text looks like this format.
pub(crate) fn is_envelope(patch: &str) -> bool {
    patch.trim_start().starts_with(BEGIN)
}

/// Reads a patch.
pub(crate) fn parse(patch: &str) -> Result<Vec<FilePatch>> {
    let mut lines =
        patch.trim().lines().enumerate().map(|(n, l)| (n + 1, l)).collect::<Vec<_>>().into_iter().peekable();
    if lines.next().is_none_or(|(_, l)| l.trim_end() != BEGIN) {
        return Err(invalid(1, &format!("want {BEGIN}")));
    }
    let mut files = Vec::new();
    let mut last = 1;
    while let Some((n, line)) = lines.next() {
        last = n;
        let line = line.trim_end();
        if line == END {
            return match lines.next() {
                Some((n, _)) => Err(invalid(n, &format!("nothing may follow {END}"))),
                None if files.is_empty() => Err(invalid(n, "the patch has no files")),
                None => Ok(files),
            };
        }
        if let Some(path) = line.strip_prefix("*** Add File: ") {
            let mut content = String::new();
            while let Some((_, l)) = lines.next_if(|(_, l)| !l.starts_with("*** ")) {
                last += 1;
                content.push_str(
                    l.strip_prefix('+').ok_or_else(|| invalid(last, "lines of a new file start with +"))?,
                );
                content.push('\n');
            }
            let kind = Kind::File { executable: false };
            files.push(file(n, path, Action::Create { content: content.into_bytes(), kind })?);
        } else if let Some(path) = line.strip_prefix("*** Delete File: ") {
            files.push(file(n, path, Action::Delete { text: Text::Chunks(Vec::new()) })?);
        } else if let Some(path) = line.strip_prefix("*** Update File: ") {
            let to = lines.next_if(|(_, l)| l.starts_with("*** Move to: "));
            let to = to.and_then(|(n, l)| Some((n, l.strip_prefix("*** Move to: ")?)));
            let moved = to.map(|(n, to)| named(n, to).map(Moved::Renamed)).transpose()?;
            let chunks = chunks(&mut lines, n)?;
            if chunks.is_empty() && moved.is_none() {
                return Err(invalid(n, "the update changes nothing"));
            }
            files.push(file(n, path, Action::Update { text: Text::Chunks(chunks), kind: None, moved })?);
        } else if !line.is_empty() {
            return Err(invalid(n, &format!("want a line with ***, found {}", shown(line.as_bytes()))));
        }
    }
    Err(invalid(last, &format!("{END} is missing")))
}

fn file(line: usize, path: &str, action: Action) -> Result<FilePatch> {
    Ok(FilePatch { path: named(line, path)?, or_path: None, action })
}

/// The path on a line.
fn named(line: usize, path: &str) -> Result<SessionPath> {
    patch_path(path.trim().as_bytes()).map_err(|e| invalid(line, e.message()))
}

fn invalid(line: usize, what: &str) -> Error {
    malformed(format!("line {line} of the patch: {what}")).with("line", line.to_string())
}

type Lines<'a> = std::iter::Peekable<std::vec::IntoIter<(usize, &'a str)>>;

/// The chunks of one update.
fn chunks(lines: &mut Lines<'_>, header: usize) -> Result<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut open = false;
    let ends = |l: &str| l.starts_with("*** ") && l.trim_end() != "*** End of File";
    while let Some((n, line)) = lines.next_if(|(_, l)| !ends(l)) {
        if let Some(after) = line.strip_prefix("@@") {
            if !open || chunks.last().is_none_or(|c| !c.lines.is_empty()) {
                chunks.push(Chunk::default());
            }
            open = true;
            let after = after.strip_prefix(' ').unwrap_or(after);
            if let (Some(chunk), false) = (chunks.last_mut(), after.trim().is_empty()) {
                chunk.after.push(after.to_owned());
            }
            continue;
        }
        if !open {
            chunks.push(Chunk::default());
            open = true;
        }
        let Some(chunk) = chunks.last_mut() else { return Err(invalid(header, "it has no chunks")) };
        if line.trim_end() == "*** End of File" {
            chunk.at_end = true;
            open = false;
            continue;
        }
        chunk.lines.push(match line.as_bytes().first() {
            None => (Sign::Same, String::new()),
            Some(b' ') => (Sign::Same, line[1..].to_owned()),
            Some(b'-') => (Sign::Gone, line[1..].to_owned()),
            Some(b'+') => (Sign::New, line[1..].to_owned()),
            Some(_) => return Err(invalid(n, "lines of an update start with a space, -, + or @@")),
        });
    }
    if let Some(empty) = chunks.iter().position(|c| c.lines.is_empty()) {
        return Err(invalid(header, &format!("chunk {} has no lines", empty + 1)));
    }
    Ok(chunks)
}

/// The text after all chunks.
pub(crate) fn apply(old: &str, chunks: &[Chunk]) -> Result<String> {
    let lines = TextLines::of(old)?;
    let crlf = lines.get(0).is_some_and(|l| l.ends_with("\r\n"));
    let end = if crlf { "\r\n" } else { "\n" };
    // What comes at most, with the end of a last line that had none.
    let new = chunks.iter().flat_map(|c| &c.lines).filter(|(sign, _)| *sign == Sign::New);
    let most = old.len() + new.map(|(_, line)| line.len() + 2 * end.len()).sum::<usize>();
    let (mut out, mut at) = (String::with_capacity(most), 0);
    let budget = Budget::new();
    for (n, chunk) in chunks.iter().enumerate() {
        let from = chunk.after.iter().try_fold(at, |from, text| {
            let found = seek(&lines, &[text.as_str()], from, false, &budget);
            found.map(|place| place + 1).ok_or_else(|| conflict(&lines, n, text, from))
        })?;
        let place = place_of(&lines, chunk, from, &budget).ok_or_else(|| {
            let first = chunk.lines.iter().find(|(s, l)| *s != Sign::New && !l.trim().is_empty());
            conflict(&lines, n, first.map_or("", |(_, l)| l), from)
        })?;
        out.push_str(lines.span(at..place));
        at = place;
        for (sign, line) in &chunk.lines {
            match (sign, lines.get(at)) {
                (Sign::New, _) => {
                    if !out.is_empty() && !out.ends_with('\n') {
                        out.push_str(end);
                    }
                    out.push_str(line);
                    out.push_str(end);
                }
                // Old lines are as many as matched; an empty one more at the very end is no line of the file.
                (Sign::Same, Some(have)) => {
                    out.push_str(have);
                    at += 1;
                }
                (Sign::Gone, Some(_)) => at += 1,
                (_, None) => {}
            }
        }
    }
    out.push_str(lines.span(at..lines.len()));
    Ok(out)
}

/// Where a chunk's old lines are.
fn place_of(lines: &TextLines<'_, str>, chunk: &Chunk, from: usize, budget: &Budget) -> Option<usize> {
    let old: Vec<&str> =
        chunk.lines.iter().filter(|(s, _)| *s != Sign::New).map(|(_, l)| l.as_str()).collect();
    if old.is_empty() {
        return Some(if chunk.after.is_empty() || chunk.at_end { lines.len() } else { from });
    }
    seek(lines, &old, from, chunk.at_end, budget).or_else(|| {
        let (last, rest) = old.split_last()?;
        // The empty line that models write for the end of a file that ends in a line end.
        let place =
            if last.is_empty() && !rest.is_empty() { seek(lines, rest, from, true, budget) } else { None };
        place.filter(|at| at + rest.len() == lines.len())
    })
}

/// The first place from `from` on where all of `want` is; at the end if that is asked for and it is there.
fn seek(
    lines: &TextLines<'_, str>,
    want: &[&str],
    from: usize,
    at_end: bool,
    budget: &Budget,
) -> Option<usize> {
    let last = lines.len().checked_sub(want.len())?;
    let ways: [fn(&str) -> String; 4] =
        [|l| l.to_owned(), |l| l.trim_end().to_owned(), |l| l.trim().to_owned(), |l| plain(l.trim())];
    ways.into_iter().find_map(|way| {
        let want: Vec<String> = want.iter().map(|l| way(l)).collect();
        let fits = |at: &usize| {
            want.iter().zip(lines.from(*at)).all(|(w, have)| budget.spend() && way(bare(have)) == *w)
        };
        let end = (at_end && last >= from).then_some(last);
        end.into_iter().chain(from..=last).take_while(|_| !budget.is_spent()).find(fits)
    })
}

/// A line without its end.
fn bare(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn plain(line: &str) -> String {
    let one = |c| match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{a0}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        c => c,
    };
    line.chars().map(one).collect()
}

fn conflict(lines: &TextLines<'_, str>, n: usize, want: &str, from: usize) -> Error {
    let rest = lines.span(from.min(lines.len())..lines.len());
    let near = super::super::edit::closest_line(rest, want);
    let near = near.map(|(line, text)| (line + from, text));
    let error = |what: String| {
        let message = format!(
            "hunk {} does not fit: {} is not there after line {from}{what}",
            n + 1,
            shown(want.as_bytes())
        );
        Error::new(Reason::PatchConflict, message).with("hunk", (n + 1).to_string())
    };
    match near {
        Some((line, text)) if text.trim() == want.trim() => {
            error(format!("; it is at line {line}, but what follows there differs"))
                .with("line", line.to_string())
        }
        Some((line, text)) => error(format!("; the closest line is {line}: {}", shown(text.as_bytes())))
            .with("line", line.to_string()),
        None => error(String::new()).with("line", (from + 1).to_string()),
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
