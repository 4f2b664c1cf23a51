//! Every tracked text: nothing of one machine in it, links that lead somewhere, the documents that must exist.

use super::{Findings, Text};
use std::path::{Path, PathBuf};

const REQUIRED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "deny.toml",
    "docs/glossary.md",
    "docs/semantics.md",
    "docs/benchmarks.md",
];

/// Paths of somebody's machine and hosts of package registries, in halves so that this file does not find itself.
const FORBIDDEN: [(&str, &str); 8] = [
    (concat!("/wo", "rk/main"), "a path of one machine"),
    (concat!("/wo", "rk/shared"), "a path of one machine"),
    (concat!("/tmp/", "afs"), "a path of one machine"),
    (concat!("/ro", "ot/."), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("registry.", "npmjs"), "the host of a registry"),
    (concat!("static.", "crates"), "the host of a registry"),
    (concat!("python", "hosted"), "the host of a registry"),
];

pub(super) fn check(root: &Path, texts: &[Text], findings: &mut Findings) {
    for path in REQUIRED.iter().filter(|path| !texts.iter().any(|text| text.path == Path::new(path))) {
        findings.error(format!("{path} is missing"));
    }
    for text in texts {
        // Cargo writes the lock file, and the licence is quoted, not ours.
        if text.path == Path::new("Cargo.lock") || text.path == Path::new("LICENSE") {
            continue;
        }
        check_words(text, findings);
        if text.is("md") {
            check_links(root, text, findings);
        }
        if text.path == Path::new("CHANGELOG.md") && !text.text.contains("\n## Unreleased\n") {
            findings.error(
                "CHANGELOG.md: the first section is `## Unreleased`; what users will notice goes there",
            );
        }
    }
}

fn check_words(text: &Text, findings: &mut Findings) {
    for (index, line) in text.text.lines().enumerate() {
        for (word, what) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
            findings.error(format!("{}:{}: {word} is {what}", text.path.display(), index + 1));
        }
    }
}

/// Links between files of the repository; addresses and anchors are left alone.
fn check_links(root: &Path, text: &Text, findings: &mut Findings) {
    for (index, line) in text.text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
            let outside = link.is_empty() || link.contains("://") || link.starts_with("mailto:");
            let from: PathBuf = root.join(text.path.parent().unwrap_or(Path::new("")));
            if !outside && !from.join(link).exists() {
                findings.error(format!(
                    "{}:{}: the link to {link} leads nowhere",
                    text.path.display(),
                    index + 1
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text { path: path.into(), text: text.into() }
    }

    #[test]
    fn paths_of_one_machine_are_refused() {
        let mut findings = Findings::default();
        for (word, _) in FORBIDDEN {
            check_words(&text("a.md", &format!("see {word}x")), &mut findings);
        }
        assert_eq!(findings.errors.len(), FORBIDDEN.len());
    }

    #[test]
    fn links_lead_somewhere() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("there.md"), "").unwrap();
        let mut findings = Findings::default();
        check_links(
            root.path(),
            &text("a.md", "[x](there.md#part) [y](https://example.com) [z](#here)"),
            &mut findings,
        );
        assert_eq!(findings.errors, Vec::<String>::new());
        check_links(root.path(), &text("a.md", "[x](gone.md)"), &mut findings);
        assert_eq!(findings.errors, ["a.md:1: the link to gone.md leads nowhere"]);
    }

    #[test]
    fn missing_documents_are_named() {
        let mut findings = Findings::default();
        check(Path::new("."), &[], &mut findings);
        assert_eq!(findings.errors.len(), REQUIRED.len());
    }
}
