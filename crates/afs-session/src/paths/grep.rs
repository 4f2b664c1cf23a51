//! Searching in files.
//!
//! Guarantees: one instant; order of paths, then of lines; binary files (with a NUL among the bytes that are looked at) are left
//! out; at most [`limits::MAX_GREP_MATCHES`] matches. Files are read and searched in small batches on two threads, in room for contents
//! that is waited for; some matches are made from them, the room is given back, and only then are the matches handed out, after rules to
//! ignore files are forgotten, too: whoever takes them slowly holds those (a few MiB), the places of at most two times [`MAX_HITS`] more,
//! and where the walk is. For those, only the parts of files are read again that are shown. A file is searched again from its begin, and
//! what is known passed over, only when [`MAX_HITS`] were handed out since: as often as that goes into the most matches of a call.
//! Deliberately absent: files beyond [`limits::MAX_TEXT_FILE_BYTES`], which are counted as skipped.

use super::glob::{Scope, below};
use super::{View, error};
use crate::content::read_content;
use crate::ignores::Ignores;
use crate::memory::Waits;
use afs_core::tree::Attr;
use afs_types::{Error, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::overrides::{Override, OverrideBuilder};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A search for text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrepQuery {
    /// A regular expression of the `regex` crate, or plain text.
    pub pattern: String,
    /// `pattern` is plain text.
    pub fixed_string: bool,
    /// Upper and lower case are the same.
    pub ignore_case: bool,
    /// Matches may span lines.
    pub multiline: bool,
    /// Only files that fit one of these, written as in `.gitignore`; with `!` in front: not those.
    pub globs: Vec<String>,
    /// Lines before each match, up to 100.
    pub before: u32,
    /// Lines after each match, up to 100.
    pub after: u32,
    /// Most matches; 0 means the server's limit.
    pub max_count: usize,
    /// Where; its path may be a file.
    pub scope: Scope,
}

/// A line that matches, or several if the match spans them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrepMatch {
    /// The file.
    pub path: SessionPath,
    /// Its number, from 1.
    pub line: u64,
    /// Without its end; bytes that are not UTF-8 are replaced; cut after 64 KiB.
    pub text: String,
    /// Lines before it, cut so that all of them together have at most about 1 MiB.
    pub before: Vec<String>,
    /// Lines after it.
    pub after: Vec<String>,
    /// Where in `text` it matches, in bytes.
    pub spans: Vec<(usize, usize)>,
    /// The limit is reached: there may be more matches after this one.
    pub truncated: bool,
}

/// What a search looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrepDone {
    /// Matches handed out.
    pub matches: usize,
    /// There may be more.
    pub truncated: bool,
    /// Files searched.
    pub files: u64,
    /// Files left out because they are binary.
    pub binary: u64,
    /// Files left out because they are too large.
    pub too_large: u64,
    /// Bytes of text that were read, as often as they were.
    pub bytes_read: u64,
}

const MAX_SHOWN_BYTES: usize = 64 << 10;
const MAX_SPANS: usize = 1000;
/// Bytes of all lines around one match; each has an equal share of them.
const MAX_CONTEXT_BYTES: usize = 1 << 20;
/// A batch ends at this many files or bytes.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
/// Lines that match in the files that one thread has of a batch, before matches are handed out.
const MAX_HITS: usize = 10_000;
/// Bytes of matches that are made before they are handed out.
const MAX_READY_BYTES: usize = 4 << 20;
/// Least bytes of a file that are read again to show matches, if there are so many to show.
const MIN_PART_BYTES: usize = 1 << 20;
/// Below this many bytes a second thread costs more than it saves.
const WORTH_A_THREAD: u64 = 256 << 10;

impl View {
    /// Calls `visit` for each match, until it says to stop.
    pub fn grep(
        &self,
        query: &GrepQuery,
        visit: &mut dyn FnMut(GrepMatch) -> Result<ControlFlow<()>>,
    ) -> Result<GrepDone> {
        let mut search = Search::new(self, query, visit)?;
        let top = self.resolve(&query.scope.path, true)?;
        if !top.is_dir() {
            // A file that is named is searched, whatever the globs say.
            search.add(query.scope.path.clone(), &top, None).map(drop)?;
            search.flush(None)?;
            return Ok(search.done);
        }
        let globs = overrides(&query.globs)?;
        let excluded = |relative: &[u8], is_dir| {
            globs.matched(Path::new(OsStr::from_bytes(relative)), is_dir).is_ignore()
        };
        let enter = |relative: &[u8], _: usize| !excluded(relative, true);
        self.search(&query.scope, None, &enter, &mut |relative, attr, rules| {
            if !attr.is_file() || excluded(relative, false) {
                return Ok(ControlFlow::Continue(()));
            }
            search.add(below(&query.scope.path, relative), &attr, rules)
        })?;
        search.flush(None)?;
        Ok(search.done)
    }
}

struct Candidate {
    path: SessionPath,
    attr: Attr,
}

/// Lines of a file that match.
struct Hit {
    line: u64,
    start: usize,
    len: usize,
    /// Where what is shown of the file begins and ends, when that has to be read again.
    shown: (usize, usize),
}

/// What searching one file gave.
enum Searched {
    Text {
        bytes: Bytes,
        hits: Vec<Hit>,
        /// There are no more.
        is_whole: bool,
    },
    Binary,
    /// It was not searched: those before it gave enough.
    Later,
}

impl Searched {
    fn bytes_read(&self) -> u64 {
        match self {
            Self::Text { bytes, .. } => bytes.len() as u64,
            Self::Binary | Self::Later => 0,
        }
    }
}

struct Search<'a> {
    view: &'a View,
    query: &'a GrepQuery,
    matcher: RegexMatcher,
    most: usize,
    visit: &'a mut dyn FnMut(GrepMatch) -> Result<ControlFlow<()>>,
    batch: Vec<Candidate>,
    batch_bytes: u64,
    stopped: bool,
    done: GrepDone,
}

impl<'a> Search<'a> {
    fn new(
        view: &'a View,
        query: &'a GrepQuery,
        visit: &'a mut dyn FnMut(GrepMatch) -> Result<ControlFlow<()>>,
    ) -> Result<Self> {
        if query.before.max(query.after) > limits::MAX_GREP_CONTEXT {
            return Err(Error::above("before", limits::MAX_GREP_CONTEXT, "lines, as for after"));
        }
        let most = match query.max_count {
            0 => limits::MAX_GREP_MATCHES,
            n => n.min(limits::MAX_GREP_MATCHES),
        };
        Ok(Self {
            view,
            query,
            matcher: matcher(query)?,
            most,
            visit,
            batch: Vec::new(),
            batch_bytes: 0,
            stopped: false,
            done: GrepDone::default(),
        })
    }

    fn add(
        &mut self,
        path: SessionPath,
        attr: &Attr,
        rules: Option<&mut Ignores<'_>>,
    ) -> Result<ControlFlow<()>> {
        if attr.size > limits::MAX_TEXT_FILE_BYTES {
            self.done.too_large += 1;
        } else if attr.size > 0 && attr.is_file() {
            self.batch_bytes += attr.size;
            self.batch.push(Candidate { path, attr: *attr });
            if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
                self.flush(rules)?;
            }
        }
        Ok(if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Searches the batch and hands out its matches.
    fn flush(&mut self, mut rules: Option<&mut Ignores<'_>>) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let (mut rest, mut skip) = (&batch[..], 0);
        while !self.stopped && !rest.is_empty() {
            let mut round = self.round(rest, skip)?;
            if let (Some(rules), false) = (&mut rules, round.ready.is_empty()) {
                rules.forget();
            }
            self.hand_out(std::mem::take(&mut round.ready))?;
            for (file, mut hits) in round.rest {
                while !self.stopped && !hits.is_empty() {
                    let ready = self.read_again(&rest[file], &mut hits)?;
                    self.hand_out(ready)?;
                }
            }
            (rest, skip) = (&rest[round.files..], round.skip);
        }
        Ok(())
    }

    fn hand_out(&mut self, ready: Vec<GrepMatch>) -> Result<()> {
        for mut found in ready {
            self.done.matches += 1;
            let last = self.done.matches == self.most;
            found.truncated = last;
            self.done.truncated |= last;
            self.stopped = (self.visit)(found)?.is_break() || last;
            if self.stopped {
                break;
            }
        }
        Ok(())
    }

    /// Searches files, of the first one what comes after so many lines that match, and makes as many matches as may be ready at once.
    /// Of the files only the places of the others are held when it returns.
    fn round(&mut self, files: &[Candidate], skip: usize) -> Result<Round> {
        let bytes: u64 = files.iter().map(|c| c.attr.size).sum();
        let need =
            usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(2 * MAX_HITS * size_of::<Hit>());
        let memory = &self.view.shared.memory;
        let _room = memory.take(need, Waits::OnOwnThread, memory.until())?;
        let two = bytes >= WORTH_A_THREAD && files.len() > 1;
        let most = self.most - self.done.matches;
        let multiline = self.query.multiline;
        let job = Job { view: self.view, matcher: &self.matcher, multiline, most };
        let first = |n: usize| if n == 0 { skip } else { 0 };
        let results = match two {
            true => job.on_two_threads(files, &first)?,
            false => job.run(files.iter().enumerate(), &first)?,
        };
        self.done.bytes_read += results.iter().map(Searched::bytes_read).sum::<u64>();
        let mut round = Round { ready: Vec::new(), rest: Vec::new(), files: 0, skip: 0 };
        let (mut weight, mut wanted) = (0, most);
        for (n, searched) in results.into_iter().enumerate() {
            let (bytes, mut hits, is_whole) = match searched {
                Searched::Later => break,
                Searched::Binary => {
                    self.done.binary += 1;
                    (Bytes::new(), Vec::new(), true)
                }
                Searched::Text { bytes, hits, is_whole } => (bytes, hits, is_whole),
            };
            hits.truncate(wanted);
            wanted -= hits.len();
            let found = hits.len();
            let shown = self.show(&files[n].path, (&bytes, 0), &hits, &mut weight, &mut round.ready);
            hits.drain(..shown);
            if !hits.is_empty() {
                place(&mut hits, &bytes, self.query);
                round.rest.push((n, hits.into()));
            }
            if !is_whole && wanted > 0 {
                round.skip = if n == 0 { skip + found } else { found };
                break;
            }
            self.done.files += 1;
            round.files += 1;
            if wanted == 0 {
                break;
            }
        }
        Ok(round)
    }

    /// Makes matches of a part of a file, as long as `weight` is below what may be ready at once. How many.
    fn show(
        &self,
        path: &SessionPath,
        part: (&[u8], usize),
        hits: &[Hit],
        weight: &mut usize,
        ready: &mut Vec<GrepMatch>,
    ) -> usize {
        for (n, hit) in hits.iter().enumerate() {
            if *weight >= MAX_READY_BYTES {
                return n;
            }
            let found = show(path, part, hit, &self.matcher, self.query);
            *weight += found.weight();
            ready.push(found);
        }
        hits.len()
    }

    /// Matches of a file that was searched: some of `hits`, at least one, from just the part of the file that shows them.
    fn read_again(&mut self, file: &Candidate, hits: &mut VecDeque<Hit>) -> Result<Vec<GrepMatch>> {
        let hits_now = hits.make_contiguous();
        let count = part_of(hits_now);
        let (Some(first), Some(last)) = (hits_now.first(), count.checked_sub(1).map(|n| &hits_now[n])) else {
            return Ok(Vec::new());
        };
        let (from, len) = (first.shown.0, last.shown.1 - first.shown.0);
        let memory = &self.view.shared.memory;
        let _room = memory.take(len, Waits::OnOwnThread, memory.until())?;
        let (content, size) = self.view.tree.content(file.attr.ino).ok_or(Reason::Internal)?;
        let bytes = read_content(&self.view.shared.ports.blobs, &content, size, from as u64, len)
            .map_err(error::at(&file.path))?;
        self.done.bytes_read += bytes.len() as u64;
        let (mut weight, mut ready) = (0, Vec::new());
        let shown = self.show(&file.path, (&bytes, from), &hits_now[..count], &mut weight, &mut ready);
        hits.drain(..shown);
        Ok(ready)
    }
}

/// What searching some files gave.
struct Round {
    /// Matches to hand out.
    ready: Vec<GrepMatch>,
    /// Lines that match whose matches come after them, by the place of their file.
    rest: Vec<(usize, VecDeque<Hit>)>,
    /// Files that are searched to their end.
    files: usize,
    /// Of the file after them, so many lines that match are known.
    skip: usize,
}

/// How many of these lines are shown from one part of their file: as many as fit into a part, or into twice what the first one needs, so
/// that long lines around many matches are not read again for each of them.
fn part_of(hits: &[Hit]) -> usize {
    let Some(first) = hits.first() else { return 0 };
    let (from, to) = first.shown;
    let end = from + MIN_PART_BYTES.max(2 * (to - from));
    1 + hits[1..].iter().take_while(|hit| hit.shown.1 <= end).count()
}

/// Notes what has to be read to show lines that match, with the lines around them.
fn place(hits: &mut [Hit], bytes: &[u8], query: &GrepQuery) {
    let (mut begins, mut ends) = (Lines::new(bytes), Lines::new(bytes));
    for hit in hits {
        let lines = bytes[hit.start..hit.start + hit.len].split_inclusive(|b| *b == b'\n').count() as u64;
        let begin = begins.begin_of(hit.line.saturating_sub(query.before.into()).max(1));
        hit.shown = (begin, ends.begin_of(hit.line + lines + u64::from(query.after)));
    }
}

/// Where lines of a text begin, for questions in order.
struct Lines<'b> {
    bytes: &'b [u8],
    line: u64,
    begin: usize,
}

impl<'b> Lines<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, line: 1, begin: 0 }
    }

    /// The end of the text, if it has fewer lines.
    fn begin_of(&mut self, line: u64) -> usize {
        while self.line < line && self.begin < self.bytes.len() {
            let rest = &self.bytes[self.begin..];
            self.begin += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |n| n + 1);
            self.line += 1;
        }
        self.begin
    }
}

impl GrepMatch {
    /// About so many bytes of memory.
    fn weight(&self) -> usize {
        let lines = self.before.iter().chain(&self.after).map(|line| line.len() + size_of::<String>());
        let spans = self.spans.len() * size_of::<(usize, usize)>();
        size_of::<Self>() + self.text.len() + spans + lines.sum::<usize>()
    }
}

/// What a thread needs to search files.
struct Job<'a> {
    view: &'a View,
    matcher: &'a RegexMatcher,
    multiline: bool,
    /// More matches than this are wanted of no file.
    most: usize,
}

/// How many matches of a file, by its place in the batch, are known already.
type Known<'k> = &'k (dyn Fn(usize) -> usize + Sync);

impl Job<'_> {
    fn run<'c>(
        &self,
        batch: impl Iterator<Item = (usize, &'c Candidate)>,
        known: Known<'_>,
    ) -> Result<Vec<Searched>> {
        let mut searcher = SearcherBuilder::new()
            .line_number(true)
            .multi_line(self.multiline)
            .binary_detection(BinaryDetection::quit(0))
            .build();
        let mut left = MAX_HITS;
        let search = |(n, candidate): (usize, &'c Candidate)| {
            if left == 0 {
                return Ok(Searched::Later);
            }
            let searched = self.file(&mut searcher, candidate, (known(n), left))?;
            if let Searched::Text { hits, .. } = &searched {
                left -= hits.len();
            }
            Ok(searched)
        };
        batch.map(search).collect()
    }

    /// Every other file on another thread; results are in order.
    fn on_two_threads(&self, batch: &[Candidate], known: Known<'_>) -> Result<Vec<Searched>> {
        let numbered = || batch.iter().enumerate();
        std::thread::scope(|scope| {
            let odd = scope.spawn(move || self.run(numbered().skip(1).step_by(2), known));
            let even = self.run(numbered().step_by(2), known)?;
            let odd =
                odd.join().map_err(|_| Error::new(Reason::Internal, "a searching thread panicked"))??;
            let mut odd = odd.into_iter();
            Ok(even.into_iter().flat_map(|even| [Some(even), odd.next()]).flatten().collect())
        })
    }

    fn file(
        &self,
        searcher: &mut Searcher,
        candidate: &Candidate,
        (skip, most): (usize, usize),
    ) -> Result<Searched> {
        let (ino, at) = (candidate.attr.ino, error::at(&candidate.path));
        let (content, size) = self.view.tree.content(ino).ok_or(Reason::Internal)?;
        let bytes =
            read_content(&self.view.shared.ports.blobs, &content, size, 0, size as usize).map_err(&at)?;
        let wanted = self.most;
        let mut sink = Hits { skip, found: Vec::new(), most, wanted, is_whole: true, binary: false };
        let searched = searcher.search_slice(self.matcher, &bytes, &mut sink);
        searched.map_err(|e| at(Error::io("search the file", e)))?;
        let Hits { found: hits, is_whole, binary, .. } = sink;
        Ok(if binary { Searched::Binary } else { Searched::Text { bytes, hits, is_whole } })
    }
}

struct Hits {
    /// How many to pass over.
    skip: usize,
    found: Vec<Hit>,
    /// Beyond so many it stops, and says that there are more.
    most: usize,
    /// At so many nobody wants more.
    wanted: usize,
    is_whole: bool,
    binary: bool,
}

impl Sink for Hits {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> std::io::Result<bool> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(true);
        }
        if self.found.len() == self.most {
            self.is_whole = false;
            return Ok(false);
        }
        self.found.push(Hit {
            line: found.line_number().unwrap_or(0),
            start: found.absolute_byte_offset() as usize,
            len: found.bytes().len(),
            shown: (0, 0),
        });
        Ok(self.found.len() < self.wanted)
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> std::io::Result<bool> {
        self.binary = true;
        Ok(false)
    }
}

fn matcher(query: &GrepQuery) -> Result<RegexMatcher> {
    let invalid = |why: String| {
        let shown: String = query.pattern.chars().take(200).collect();
        Error::new(Reason::InvalidArgument, format!("pattern {shown:?}: {why}"))
            .with("field", "pattern")
            .next("correct the regular expression, or set fixed_string")
    };
    if query.pattern.is_empty() || query.pattern.len() > limits::MAX_GREP_PATTERN_BYTES {
        return Err(invalid(format!("it has 1 to {} bytes", limits::MAX_GREP_PATTERN_BYTES)));
    }
    let mut builder = RegexMatcherBuilder::new();
    builder.case_insensitive(query.ignore_case).fixed_strings(query.fixed_string).multi_line(true);
    builder.size_limit(limits::MAX_GREP_REGEX_BYTES).dfa_size_limit(limits::MAX_GREP_CACHE_BYTES);
    if !query.multiline {
        builder.line_terminator(Some(b'\n'));
    }
    builder.build(&query.pattern).map_err(|e| invalid(e.to_string()))
}

fn overrides(globs: &[String]) -> Result<Override> {
    if globs.len() > limits::MAX_GREP_GLOBS {
        return Err(Error::above("globs", limits::MAX_GREP_GLOBS, ""));
    }
    let mut builder = OverrideBuilder::new(".");
    for (n, glob) in globs.iter().enumerate() {
        let wrong = |e| {
            let shown = error::shown_name(glob.as_bytes());
            error::invalid(&format!("globs[{n}]"), format!("a glob instead of {shown:?}: {e}"))
        };
        builder.add(glob).map_err(wrong)?;
    }
    builder.build().map_err(|e| Error::invalid("globs", format!("globs that work together: {e}")))
}

/// A match as it is shown, from the part of a file that begins at `from`. Pure.
fn show(
    path: &SessionPath,
    (bytes, from): (&[u8], usize),
    hit: &Hit,
    matcher: &RegexMatcher,
    query: &GrepQuery,
) -> GrepMatch {
    let start = hit.start - from;
    let end = start + hit.len;
    let shown = bare(&bytes[start..end]);
    let shown = &shown[..shown.len().min(MAX_SHOWN_BYTES)];
    let mut spans = Vec::new();
    // The matcher's error type has no values.
    let _ = matcher.find_iter(shown, |m| {
        let in_text = |at| String::from_utf8_lossy(&shown[..at]).len();
        spans.push((in_text(m.start()), in_text(m.end())));
        spans.len() < MAX_SPANS
    });
    let around = (query.before as usize + query.after as usize).max(1);
    let share = MAX_SHOWN_BYTES.min(MAX_CONTEXT_BYTES / around);
    GrepMatch {
        path: path.clone(),
        line: hit.line,
        text: text(shown),
        before: lines_before(&bytes[..start], query.before as usize, share),
        after: bytes[end..]
            .split_inclusive(|b| *b == b'\n')
            .take(query.after as usize)
            .map(|line| context(line, share))
            .collect(),
        spans,
        truncated: false,
    }
}

fn lines_before(bytes: &[u8], most: usize, share: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = bytes;
    while lines.len() < most && !rest.is_empty() {
        let start = rest[..rest.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        lines.push(context(&rest[start..], share));
        rest = &rest[..start];
    }
    lines.reverse();
    lines
}

fn context(line: &[u8], most: usize) -> String {
    let line = bare(line);
    text(&line[..line.len().min(most)])
}

fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "grep_tests.rs"]
mod tests;
