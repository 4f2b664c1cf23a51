//! `cargo xtask tidy`: what neither rustfmt nor clippy can check.
//!
//! Guarantees: reads only; lists every finding, not the first; a finding names file and line and says what to do.
//! Each rule is tested with an input that must break it. Deliberately absent: style (rustfmt) and anything clippy has a lint for.

mod arrows;
mod limits;
mod manifests;
mod promises;
mod sources;
mod texts;

use crate::out::{line, note};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// What the rules found.
#[derive(Default)]
struct Findings {
    /// Break the build.
    errors: Vec<String>,
    /// Are printed, and left to judgement.
    remarks: Vec<String>,
}

impl Findings {
    fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }
    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }
}

/// A tracked text file.
struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }
    /// Made by a program, so its shape is that program's affair.
    fn is_generated(&self) -> bool {
        self.text.lines().take(3).any(|line| line.contains("@generated"))
            || self.path.components().any(|part| part.as_os_str() == "generated")
    }
}

pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let texts = read_texts(&root)?;
    let mut findings = Findings::default();
    let packages = workspace::packages(&root)?;
    let architecture = find(&texts, "ARCHITECTURE.md")?;
    arrows::check(&architecture.text, &packages, &mut findings);
    manifests::check(&packages, &mut findings)?;
    sources::check(&texts, &mut findings);
    texts::check(&root, &texts, &mut findings);
    promises::check(&texts, &mut findings);
    limits::check(&texts, &mut findings);
    for remark in &findings.remarks {
        note!("remark: {remark}");
    }
    for error in &findings.errors {
        note!("error: {error}");
    }
    if findings.errors.is_empty() {
        line!("tidy: {} files, {} packages, nothing to mend", texts.len(), packages.len());
        return Ok(());
    }
    bail!("tidy found {} things to mend", findings.errors.len())
}

fn find<'a>(texts: &'a [Text], path: &str) -> Result<&'a Text> {
    texts.iter().find(|text| text.path == Path::new(path)).with_context(|| format!("{path} is missing"))
}

/// Binary files are no text and are left out.
fn read_texts(root: &Path) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in workspace::files(root)? {
        let bytes = std::fs::read(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push(Text { path, text });
        }
    }
    Ok(texts)
}
