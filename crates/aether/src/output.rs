//! The only place that writes to stdout and stderr.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

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
        match serde_json::to_string(value) {
            Ok(text) => self.bytes(format!("{text}\n").as_bytes()),
            Err(error) => self.remark(&format!("a result has no JSON form: {error}")),
        }
    }

    /// Bytes of a file, or a finished line.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // `aether ... | head` has seen enough: nothing more can be said on that pipe.
            let code = if error.kind() == io::ErrorKind::BrokenPipe { 0 } else { 1 };
            std::process::exit(code);
        }
    }

    /// Something for people, unless they asked for quiet.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet && !self.json {
            self.complain(text);
        }
    }

    /// Something for people, always.
    pub(crate) fn complain(&self, text: &str) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A table without lines, as other tools print them.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `name: value` lines, empty values left out.
pub(crate) fn fields<'a>(style: &Style, list: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let list: Vec<(&str, String)> = list.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    list.iter().map(|(name, value)| format!("{} {value}\n", style.dim(&format!("{name:width$}")))).collect()
}
