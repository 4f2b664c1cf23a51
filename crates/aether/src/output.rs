//! The only place that writes to stdout and stderr.
//!
//! Guarantees: no text of a session or a server moves the cursor, sets a title, turns letters around or forges a line. Names, messages and
//! whatever else is one text go through [`shown`], on a terminal or not: who reads the lines of a pipe must not be deceived by a
//! name with a line end either, and what a pipe or log holds is on a terminal later. Content of files (patches, matched lines) is shown on a terminal with
//! its lines and tabs, and goes into a pipe as it is ([`Output::content`]), so that `aether diff | git apply` works. JSON is exact, with such
//! characters as `\u` escapes; `--null` and `fs cat` give the bytes.

use crate::failure::{describe, exit_code};
use afs_types::{Error, is_hidden, show, unescape};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    is_on: bool,
}

impl Style {
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { is_on: false }
    }
    /// Colours on a terminal, unless switched off by `--no-color` or `NO_COLOR`.
    pub(crate) fn detect(no_color: bool, is_terminal: bool) -> Self {
        let asked_not = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { is_on: is_terminal && !no_color && !asked_not }
    }
    fn paint(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// Where results and remarks go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// Of stdout.
    pub(crate) style: Style,
    pub(crate) is_terminal: bool,
    /// Of stderr.
    pub(crate) talk_style: Style,
    pub(crate) talk_is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool, no_color: bool) -> Self {
        let talk_is_terminal = io::stderr().is_terminal();
        Self {
            json,
            quiet,
            style: Style::detect(no_color, io::stdout().is_terminal() && !json),
            is_terminal: io::stdout().is_terminal(),
            talk_style: Style::detect(no_color, talk_is_terminal),
            talk_is_terminal,
        }
    }

    /// A result: its JSON form, or text. Text without a line end gets one.
    pub(crate) fn result<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce(&Style) -> String) {
        if self.json {
            self.json_value(value);
        } else {
            let text = text(&self.style);
            if !text.is_empty() {
                self.bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes());
            }
        }
    }

    /// One JSON value on one line.
    pub(crate) fn json_value<T: Serialize + ?Sized>(&self, value: &T) {
        match json_text(value) {
            Ok(text) => self.bytes(format!("{text}\n").as_bytes()),
            Err(error) => self.remark(&format!("a result has no JSON form: {error}")),
        }
    }

    /// Content of a file among other text: as it is, but on a terminal nothing in it is more than lines and tabs.
    pub(crate) fn content<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.is_terminal {
            true => shown_lines(text).into(),
            false => text.into(),
        }
    }

    /// The bytes of a path or name in the API's form, and a NUL: for `--null`.
    pub(crate) fn exact(&self, path: &str) {
        self.bytes(&[unescape(path).as_slice(), b"\0"].concat());
    }

    /// Bytes of a file, or a finished line.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        drop(stdout);
        written.unwrap_or_else(|error| self.cannot_write(error));
    }

    /// Stdout for content of any size.
    pub(crate) fn stream(&self) -> Stream {
        Stream { out: *self, stdout: tokio::io::stdout() }
    }

    /// The end of the program, for every command: `aether ... | head` has seen enough, and nothing more can be said on that pipe. Anything else
    /// that is wrong with stdout is an error like others.
    fn cannot_write(self, error: io::Error) -> ! {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        let error = Error::io("write to stdout", error).next("see where the output goes");
        self.complain(&describe(&error, self.json, &self.talk_style));
        std::process::exit(i32::from(exit_code(error.reason)))
    }

    /// Something for people, unless they asked for quiet.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet && !self.json {
            self.complain(&shown_lines(text));
        }
    }

    /// Something for people, always. What is not our own in it has been [`shown`].
    pub(crate) fn complain(&self, text: &str) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Stdout as [`Output::bytes`] has it: writing to it never fails, since a failure ends the program.
pub(crate) struct Stream {
    out: Output,
    stdout: tokio::io::Stdout,
}

impl Stream {
    fn checked<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) => self.out.cannot_write(error),
            other => other,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stdout).poll_write(cx, bytes);
        self.checked(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stdout).poll_flush(cx);
        self.checked(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stdout).poll_shutdown(cx);
        self.checked(polled)
    }
}

/// A text of a session or server on one line.
pub(crate) fn shown(text: &str) -> String {
    show(text, |_| false)
}

/// The same for several lines, with their tabs.
pub(crate) fn shown_lines(text: &str) -> String {
    show(text, |c| matches!(c, '\n' | '\t'))
}

/// A value on one line of JSON, with what would be hidden as `\u` escapes: to who reads JSON it is the same.
pub(crate) fn json_text<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            // Only strings hold such characters, and all of them have four digits. Writing to a String cannot fail.
            true => _ = write!(out, "\\u{:04x}", u32::from(c)),
            false => out.push(c),
        }
    }
    Ok(out)
}

/// A table without lines, as other tools print them. Every cell is [`shown`].
pub(crate) fn table<const N: usize>(
    head: [&'static str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    Listing::new(head).page(rows)
}

/// Blanks between two columns.
const GAP: u16 = 2;

/// A [`table`] that is printed page by page: columns keep their width, and only grow.
pub(crate) struct Listing<const N: usize> {
    /// Before the first page.
    head: Option<[&'static str; N]>,
    widths: [u16; N],
}

impl<const N: usize> Listing<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head: Some(head), widths: [0; N] }
    }

    /// The next rows, the first time below the head.
    pub(crate) fn page(&mut self, rows: impl IntoIterator<Item = [String; N]>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let mut is_empty = self.head.is_none();
        if let Some(head) = self.head.take() {
            table.set_header(head);
        }
        for row in rows {
            is_empty = false;
            table.add_row(row.map(|cell| shown(&cell)));
        }
        if is_empty {
            return String::new();
        }
        for (width, wanted) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = wanted.max(*width);
        }
        for (column, width) in table.column_iter_mut().zip(self.widths) {
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(GAP))));
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// `name: value` lines, empty values left out. Every value is [`shown`].
pub(crate) fn fields<'a>(style: &Style, list: impl IntoIterator<Item = (&'a str, String)>) -> String {
    painted_fields(style, list.into_iter().map(|(name, value)| (name, shown(&value))))
}

/// A text of several lines below its name, indented: no line of it looks like a field.
pub(crate) fn paragraph(style: &Style, name: &str, text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| format!("    {}\n", shown(line)));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("{}\n{lines}", style.dim(name)) }
}

/// [`fields`] whose values have been shown and then painted.
pub(crate) fn painted_fields<'a>(style: &Style, list: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let list: Vec<(&str, String)> = list.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    list.iter().map(|(name, value)| format!("{} {value}\n", style.dim(&format!("{name:width$}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "\x1b]0;t\x07\x1b[2Ja\nb\r\tc\u{202e}d\u{9b}e";

    fn is_harmless(text: &str) -> bool {
        !text.chars().any(|c| is_hidden(c) && c != '\n')
    }

    #[test]
    fn names_forge_nothing() {
        let line = shown(EVIL);
        assert!(is_harmless(&line) && !line.contains('\n'), "{line}");
        let rows = table(["A", "B"], [[EVIL.to_owned(), "x".to_owned()]]);
        assert!(is_harmless(&rows) && rows.lines().count() == 2, "{rows}");
        let list = fields(&Style::plain(), [("name", EVIL.to_owned()), ("other", "x".to_owned())]);
        assert!(is_harmless(&list) && list.lines().count() == 2, "{list}");
        let text = paragraph(&Style::plain(), "message", "one\nbranch main\x1b[A\n");
        assert_eq!(text, "message\n    one\n    branch main\\u{1b}[A\n");
    }

    #[test]
    fn pages_of_a_listing_stand_below_each_other() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let mut listing = Listing::new(["ID", "NAME"]);
        assert_eq!(listing.page([row("sess_long", "x")]), "ID         NAME\nsess_long  x\n");
        assert_eq!(listing.page([row("s", "y")]), "s          y\n");
        assert_eq!(listing.page([]), "");
        assert_eq!(listing.page([row("sess_longer", "z")]), "sess_longer  z\n");
        assert_eq!(listing.page([row("s", "y")]), "s            y\n");
        assert_eq!(Listing::new(["ID", "NAME"]).page([]), "ID  NAME\n");
    }

    #[test]
    fn content_is_exact_in_a_pipe_and_harmless_on_a_terminal() {
        let mut out = Output::new(false, false, true);
        out.is_terminal = false;
        assert_eq!(out.content(EVIL), EVIL);
        out.is_terminal = true;
        let seen = out.content(EVIL);
        assert!(
            is_harmless(&seen.replace('\t', "")) && seen.contains('\t') && seen.lines().count() == 2,
            "{seen}"
        );
    }

    #[test]
    fn json_is_exact_and_harmless() {
        let text = json_text(EVIL).unwrap();
        assert!(text.is_ascii() && is_harmless(&text), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), EVIL);
    }
}
