//! Searching in files.
//!
//! Guarantees: one instant; order of paths, then of lines; binary files (with a NUL among the bytes that are looked at) are left
//! out; at most [`limits::MAX_GREP_MATCHES`] matches. Files are read and searched in small batches on two threads; matches are
//! handed out one by one, so memory is bounded by a batch.
//! Deliberately absent: files beyond [`limits::MAX_TEXT_FILE_BYTES`], which are counted as skipped.

use super::glob::{Scope, below};
use super::{View, error};
use crate::content::read_content;
use afs_core::tree::Attr;
use afs_types::{Error, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::overrides::{Override, OverrideBuilder};
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
    /// Lines before it.
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
}

const MAX_CONTEXT: u32 = 100;
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Memory of one compiled expression, and of what it caches in each thread.
const MAX_REGEX_BYTES: usize = 10 << 20;
const MAX_GLOBS: usize = 1000;
const MAX_SHOWN_BYTES: usize = 64 << 10;
const MAX_SPANS: usize = 1000;
/// A batch ends at this many files or bytes.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 32 << 20;
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
            search.add(query.scope.path.clone(), &top).map(drop)?;
            search.flush()?;
            return Ok(search.done);
        }
        let globs = overrides(&query.globs)?;
        let excluded = |relative: &[u8], is_dir| {
            globs.matched(Path::new(OsStr::from_bytes(relative)), is_dir).is_ignore()
        };
        let enter = |relative: &[u8], _: usize| !excluded(relative, true);
        self.search(&query.scope, None, &enter, &mut |relative, attr| {
            if !attr.is_file() || excluded(relative, false) {
                return Ok(ControlFlow::Continue(()));
            }
            search.add(below(&query.scope.path, relative), &attr)
        })?;
        search.flush()?;
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
}

/// What searching one file gave.
enum Searched {
    Text(Bytes, Vec<Hit>),
    Binary,
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
        if query.before.max(query.after) > MAX_CONTEXT {
            return Err(Error::above("before", MAX_CONTEXT, "lines, as for after"));
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

    fn add(&mut self, path: SessionPath, attr: &Attr) -> Result<ControlFlow<()>> {
        if attr.size > limits::MAX_TEXT_FILE_BYTES {
            self.done.too_large += 1;
        } else if attr.size > 0 && attr.is_file() {
            self.batch_bytes += attr.size;
            self.batch.push(Candidate { path, attr: *attr });
            if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
                self.flush()?;
            }
        }
        Ok(if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Searches the batch and hands out its matches.
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let two = std::mem::take(&mut self.batch_bytes) >= WORTH_A_THREAD && batch.len() > 1;
        if self.stopped {
            return Ok(());
        }
        let most = self.most - self.done.matches;
        let job = Job { view: self.view, matcher: &self.matcher, multiline: self.query.multiline, most };
        let results = if two { job.on_two_threads(&batch)? } else { job.run(batch.iter())? };
        for (candidate, searched) in batch.into_iter().zip(results) {
            if self.stopped {
                break;
            }
            self.done.files += 1;
            match searched {
                Searched::Binary => self.done.binary += 1,
                Searched::Text(bytes, hits) => self.hand_out(&candidate.path, &bytes, &hits)?,
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, path: &SessionPath, bytes: &[u8], hits: &[Hit]) -> Result<()> {
        for hit in hits {
            self.done.matches += 1;
            let last = self.done.matches == self.most;
            let mut found = show(path, bytes, hit, &self.matcher, self.query);
            found.truncated = last;
            self.done.truncated |= last;
            self.stopped = (self.visit)(found)?.is_break() || last;
            if self.stopped {
                break;
            }
        }
        Ok(())
    }
}

/// What a thread needs to search files.
struct Job<'a> {
    view: &'a View,
    matcher: &'a RegexMatcher,
    multiline: bool,
    most: usize,
}

impl Job<'_> {
    fn run<'c>(&self, batch: impl Iterator<Item = &'c Candidate>) -> Result<Vec<Searched>> {
        let mut searcher = SearcherBuilder::new()
            .line_number(true)
            .multi_line(self.multiline)
            .binary_detection(BinaryDetection::quit(0))
            .build();
        batch.map(|c| self.file(&mut searcher, c)).collect()
    }

    /// Every other file on another thread; results are in order.
    fn on_two_threads(&self, batch: &[Candidate]) -> Result<Vec<Searched>> {
        std::thread::scope(|scope| {
            let odd = scope.spawn(|| self.run(batch.iter().skip(1).step_by(2)));
            let even = self.run(batch.iter().step_by(2))?;
            let odd =
                odd.join().map_err(|_| Error::new(Reason::Internal, "a searching thread panicked"))??;
            let mut odd = odd.into_iter();
            Ok(even.into_iter().flat_map(|even| [Some(even), odd.next()]).flatten().collect())
        })
    }

    fn file(&self, searcher: &mut Searcher, candidate: &Candidate) -> Result<Searched> {
        let (ino, at) = (candidate.attr.ino, error::at(&candidate.path));
        let (content, size) = self.view.tree.content(ino).ok_or(Reason::Internal)?;
        let bytes =
            read_content(&self.view.shared.ports.blobs, &content, size, 0, size as usize).map_err(&at)?;
        let mut sink = Hits { found: Vec::new(), most: self.most, binary: false };
        let searched = searcher.search_slice(self.matcher, &bytes, &mut sink);
        searched.map_err(|e| at(Error::io("search the file", e)))?;
        Ok(if sink.binary { Searched::Binary } else { Searched::Text(bytes, sink.found) })
    }
}

struct Hits {
    found: Vec<Hit>,
    most: usize,
    binary: bool,
}

impl Sink for Hits {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> std::io::Result<bool> {
        self.found.push(Hit {
            line: found.line_number().unwrap_or(0),
            start: found.absolute_byte_offset() as usize,
            len: found.bytes().len(),
        });
        Ok(self.found.len() < self.most)
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
    if query.pattern.is_empty() || query.pattern.len() > MAX_PATTERN_BYTES {
        return Err(invalid(format!("it has 1 to {MAX_PATTERN_BYTES} bytes")));
    }
    let mut builder = RegexMatcherBuilder::new();
    builder.case_insensitive(query.ignore_case).fixed_strings(query.fixed_string).multi_line(true);
    builder.size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES);
    if !query.multiline {
        builder.line_terminator(Some(b'\n'));
    }
    builder.build(&query.pattern).map_err(|e| invalid(e.to_string()))
}

fn overrides(globs: &[String]) -> Result<Override> {
    if globs.len() > MAX_GLOBS {
        return Err(Error::above("globs", MAX_GLOBS, ""));
    }
    let mut builder = OverrideBuilder::new(".");
    for glob in globs {
        builder.add(glob).map_err(|e| Error::invalid("globs", format!("a glob instead of {glob:?}: {e}")))?;
    }
    builder.build().map_err(|e| Error::invalid("globs", format!("globs that work together: {e}")))
}

/// A match as it is shown. Pure.
fn show(path: &SessionPath, bytes: &[u8], hit: &Hit, matcher: &RegexMatcher, query: &GrepQuery) -> GrepMatch {
    let end = hit.start + hit.len;
    let shown = bare(&bytes[hit.start..end]);
    let shown = &shown[..shown.len().min(MAX_SHOWN_BYTES)];
    let mut spans = Vec::new();
    // The matcher's error type has no values.
    let _ = matcher.find_iter(shown, |m| {
        let in_text = |at| String::from_utf8_lossy(&shown[..at]).len();
        spans.push((in_text(m.start()), in_text(m.end())));
        spans.len() < MAX_SPANS
    });
    GrepMatch {
        path: path.clone(),
        line: hit.line,
        text: text(shown),
        before: lines_before(&bytes[..hit.start], query.before as usize),
        after: bytes[end..]
            .split_inclusive(|b| *b == b'\n')
            .take(query.after as usize)
            .map(context)
            .collect(),
        spans,
        truncated: false,
    }
}

fn lines_before(bytes: &[u8], most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = bytes;
    while lines.len() < most && !rest.is_empty() {
        let start = rest[..rest.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        lines.push(context(&rest[start..]));
        rest = &rest[..start];
    }
    lines.reverse();
    lines
}

fn context(line: &[u8]) -> String {
    let line = bare(line);
    text(&line[..line.len().min(MAX_SHOWN_BYTES)])
}

fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8], query: &GrepQuery) -> Vec<GrepMatch> {
        let matcher = matcher(query).unwrap();
        let mut sink = Hits { found: Vec::new(), most: 100, binary: false };
        let mut searcher = SearcherBuilder::new().line_number(true).multi_line(query.multiline).build();
        searcher.search_slice(&matcher, bytes, &mut sink).unwrap();
        sink.found.iter().map(|hit| show(&SessionPath::root(), bytes, hit, &matcher, query)).collect()
    }

    #[test]
    fn lines_with_context_and_spans() {
        let query = GrepQuery { pattern: "b+".into(), before: 1, after: 2, ..GrepQuery::default() };
        let found = shown(b"a\nxbbyb\r\nc\nd\ne\n", &query);
        let [m] = &found[..] else { panic!("{found:?}") };
        assert_eq!((m.line, m.text.as_str(), &m.spans[..]), (2, "xbbyb", &[(1, 3), (4, 5)][..]));
        assert_eq!((&m.before, &m.after), (&vec!["a".to_owned()], &vec!["c".to_owned(), "d".to_owned()]));
        // Neighbouring matches are each other's context.
        let found = shown(b"b\nb\n", &query);
        assert_eq!((&found[0].after, &found[1].before), (&vec!["b".to_owned()], &vec!["b".to_owned()]));
    }

    #[test]
    fn ways_to_match() {
        let count = |pattern: &str, change: fn(&mut GrepQuery)| {
            let mut query = GrepQuery { pattern: pattern.into(), ..GrepQuery::default() };
            change(&mut query);
            shown("A.c\nabc\nÄ\nx".as_bytes(), &query).len()
        };
        assert_eq!(count("a.c", |_| {}), 1);
        assert_eq!(count("a.c", |q| q.ignore_case = true), 2);
        assert_eq!(count("A.c", |q| q.fixed_string = true), 1);
        assert_eq!(count("ä", |q| q.ignore_case = true), 1);
        assert_eq!(count("^x$", |_| {}), 1);
        let query = GrepQuery { pattern: "c\nab".into(), multiline: true, ..GrepQuery::default() };
        assert_eq!(shown(b"A.c\nabc\n", &query)[0].text, "A.c\nabc");
    }

    #[test]
    fn bytes_that_are_not_text_shift_spans() {
        let query = GrepQuery { pattern: "b".into(), ..GrepQuery::default() };
        let m = &shown(b"\xffb", &query)[0];
        assert_eq!((m.text.as_str(), &m.spans[..]), ("\u{fffd}b", &[(3, 4)][..]));
    }

    #[test]
    fn bad_patterns_are_named() {
        for bad in ["", "(", r"(\w{100}){1000}"] {
            let query = GrepQuery { pattern: bad.into(), ..GrepQuery::default() };
            let error = matcher(&query).err().unwrap();
            assert_eq!(error.reason, Reason::InvalidArgument, "{bad}");
            assert!(error.message().starts_with("pattern "), "{error}");
        }
        assert_eq!(overrides(&["[".into()]).unwrap_err().reason, Reason::InvalidArgument);
    }
}
