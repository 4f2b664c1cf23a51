//! docs/semantics.md names a test for every promise, and every test that it names exists.
//!
//! Guarantees: a promise whose test was renamed or deleted is a finding. A test is written as `` `crate::function` ``; a promise that is
//! not kept yet says "not yet" in place of a test.

use super::{Findings, Text};
use std::path::Path;

pub(super) fn check(texts: &[Text], findings: &mut Findings) {
    let Some(semantics) = texts.iter().find(|text| text.path == Path::new("docs/semantics.md")) else {
        return;
    };
    for (index, line) in semantics.text.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        let Some(cell) = line.trim().trim_matches('|').rsplit('|').next().map(str::trim) else { continue };
        let is_heading = cell == "shown by" || cell.starts_with("---");
        let tests: Vec<&str> =
            cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        let place = format!("docs/semantics.md:{}", index + 1);
        if !is_heading && tests.is_empty() && !cell.contains("not yet") {
            findings.error(format!("{place}: a promise names the test that shows it, or says \"not yet\""));
        }
        for test in tests.iter().filter(|test| !exists(texts, test)) {
            findings.error(format!("{place}: there is no test {test}"));
        }
    }
}

fn exists(texts: &[Text], test: &str) -> bool {
    let (package, function) =
        (test.split("::").next().unwrap_or_default(), test.rsplit("::").next().unwrap_or_default());
    let declaration = format!("fn {function}(");
    let dir = Path::new("crates").join(package);
    texts.iter().any(|text| text.path.starts_with(&dir) && text.is("rs") && text.text.contains(&declaration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(line: &str) -> Vec<String> {
        let texts = [
            Text {
                path: "docs/semantics.md".into(),
                text: format!("| promise | shown by |\n|---|---|\n{line}\n"),
            },
            Text { path: "crates/a/src/tests.rs".into(), text: "#[test]\nfn holds() {}\n".into() },
        ];
        let mut findings = Findings::default();
        check(&texts, &mut findings);
        findings.errors
    }

    #[test]
    fn a_promise_needs_a_test_that_exists() {
        assert_eq!(errors("| kept | `a::tests::holds` |"), Vec::<String>::new());
        assert_eq!(errors("| later | not yet |"), Vec::<String>::new());
        assert!(errors("| kept | `a::tests::gone` |")[0].contains("no test"));
        assert!(errors("| kept | `b::holds` |")[0].contains("no test"));
        assert!(errors("| kept |  |")[0].contains("names the test"));
    }
}
