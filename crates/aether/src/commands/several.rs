//! Commands with several targets.
//!
//! Guarantees: every target is tried, whatever became of those before it; each failure is told on stderr, with its target; stdout says what was
//! done, also when something failed; the exit code is that of the first failure.

use crate::cli::Ended;
use crate::context::Context;
use crate::failure::{describe, exit_code};
use afs_types::Error;
use std::collections::BTreeMap;

/// What became of the targets so far.
pub(crate) struct Several<'c> {
    cx: &'c Context,
    /// Metadata of a failure: of which target it is.
    key: &'static str,
    done: Vec<String>,
    first_code: Option<u8>,
}

impl<'c> Several<'c> {
    pub(crate) fn new(cx: &'c Context, key: &'static str) -> Self {
        Self { cx, key, done: Vec::new(), first_code: None }
    }

    pub(crate) fn done(&mut self, target: impl Into<String>) {
        self.done.push(target.into());
    }

    pub(crate) fn failed(&mut self, target: impl Into<String>, error: Error) {
        let out = &self.cx.out;
        let code = exit_code(error.reason);
        out.complain(&describe(&error.with(self.key, target), out.json, &out.talk_style));
        self.first_code.get_or_insert(code);
    }

    /// Says what was done, as a member of this name.
    pub(crate) fn end(self, name: &str) -> Result<(), Ended> {
        self.cx.out.result(&BTreeMap::from([(name, &self.done)]), |_| String::new());
        self.end_silently()
    }

    /// For a command whose result is on stdout already.
    pub(crate) fn end_silently(self) -> Result<(), Ended> {
        self.first_code.map_or(Ok(()), |code| Err(Ended::Reported(code)))
    }
}
