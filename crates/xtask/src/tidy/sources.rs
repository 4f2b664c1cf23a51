//! The shape of Rust files: a header that says what the file guarantees, a bounded length, no unfinished work, proofs beside
//! `unsafe`, and no file that the compiler never sees.

use super::{Findings, Text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Above this a file is split; tests and generated code are not counted.
const MAX_LINES: usize = 1_000;
/// Above this a file is looked at.
const REMARKABLE_LINES: usize = 500;
/// A proof is within this many lines above the `unsafe` that it is about.
const SAFETY_LINES: usize = 8;
/// Words that stand for work not done; built in halves so that this file does not find itself.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("unimplement", "ed!("),
    concat!("#[ign", "ore"),
];

pub(super) fn check(texts: &[Text], findings: &mut Findings) {
    let modules = declared_modules(texts);
    for text in texts.iter().filter(|text| text.is("rs") && text.path.starts_with("crates")) {
        if text.is_generated() {
            continue;
        }
        check_header(text, findings);
        check_length(text, findings);
        check_lines(text, findings);
        check_reached(text, &modules, findings);
    }
}

/// Tests live in sibling files or in `tests/` and may be long tables.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

fn check_header(text: &Text, findings: &mut Findings) {
    if !text.text.starts_with("//!") {
        findings.error(format!(
            "{}:1: a file begins with `//!`: what it guarantees and what it deliberately does not do",
            text.path.display()
        ));
    }
}

fn check_length(text: &Text, findings: &mut Findings) {
    let lines = text.text.lines().count();
    let path = text.path.display();
    if is_test(&text.path) || lines <= REMARKABLE_LINES {
        return;
    }
    if lines > MAX_LINES {
        findings.error(format!(
            "{path}: {lines} lines; split it (limit {MAX_LINES}, tests in a sibling file do not count)"
        ));
    } else {
        findings
            .remark(format!("{path}: {lines} lines; is it still one idea? ({REMARKABLE_LINES} as a rule)"));
    }
}

fn check_lines(text: &Text, findings: &mut Findings) {
    let path = text.path.display();
    let lines: Vec<&str> = text.text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.error(format!(
                "{path}:{number}: {word}: finish it, or describe the limit in the module header"
            ));
        }
        let code = line.split("//").next().unwrap_or_default();
        let is_unsafe = ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "]
            .iter()
            .any(|form| code.contains(form));
        let proof = &lines[index.saturating_sub(SAFETY_LINES)..=index];
        if is_unsafe
            && !code.contains('"')
            && !proof.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety"))
        {
            findings.error(format!("{path}:{number}: unsafe without a `// SAFETY:` proof right above it"));
        }
    }
}

/// The files that some `mod name;` or `#[path]` declares, and the roots of targets.
fn declared_modules(texts: &[Text]) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    for text in texts.iter().filter(|text| text.is("rs")) {
        let dir = text.path.parent().unwrap_or(Path::new(""));
        let stem = text.path.file_stem().map(Path::new).unwrap_or(Path::new(""));
        let own =
            if is_root(&text.path) || stem == Path::new("mod") { dir.to_owned() } else { dir.join(stem) };
        // Modules written inside a file (`mod sub { mod file; }`) do not occur here: one level is enough.
        for line in text.text.lines().map(str::trim) {
            if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                reached.insert(dir.join(path));
            }
            let Some(name) = line.strip_suffix(';').and_then(module_name) else { continue };
            reached.insert(own.join(format!("{name}.rs")));
            reached.insert(own.join(name).join("mod.rs"));
        }
    }
    reached
}

/// `name` of `mod name`, `pub mod name`, `pub(crate) mod name`.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) =
        line.rsplit_once("mod ").or_else(|| line.strip_prefix("mod ").map(|name| ("", name)))?;
    let plain = name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    (plain && (before.is_empty() || before.trim_start().starts_with("pub") || before.ends_with("] ")))
        .then_some(name)
}

/// The first file of a cargo target.
fn is_root(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "lib.rs" | "main.rs" | "build.rs")
        || matches!(parent, "bin" | "tests" | "benches" | "examples")
}

fn check_reached(text: &Text, modules: &BTreeSet<PathBuf>, findings: &mut Findings) {
    if !is_root(&text.path) && !modules.contains(&text.path) {
        findings.error(format!("{}: no `mod` names this file, so it is never compiled", text.path.display()));
    }
}

#[cfg(test)]
mod tests;
