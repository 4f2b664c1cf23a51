//! Limits: what docs/semantics.md says of them, held against the code.
//!
//! Guarantees: every constant of `afs-types/src/limits.rs` is told by `GET /v1/server`, under a name of its own; and where a refusal names
//! its limit by a constant, that constant is, or is defined by, one of `limits.rs`. Not seen: a refusal that names no limit.

use super::{Findings, Text};
use std::collections::BTreeSet;
use std::path::Path;

const DEFINED: &str = "crates/afs-types/src/limits.rs";
const TOLD: &str = "crates/afs-server/src/admin/limits.rs";
/// Where a refusal names its limit; in halves, so that this file does not find itself.
const REFUSALS: [&str; 2] = [concat!("Error::ab", "ove("), concat!(".with(\"lim", "it\",")];

pub(super) fn check(texts: &[Text], findings: &mut Findings) {
    let file = |path: &str| texts.iter().find(|text| text.path == Path::new(path));
    let (Some(defined), Some(told)) = (file(DEFINED), file(TOLD)) else {
        findings.error(format!("{DEFINED} and {TOLD} are both needed: limits, and how they are told"));
        return;
    };
    let told = words_after(&told.text, "limits::");
    for (number, name) in constants(&defined.text, "pub const ") {
        if !told.contains(name) {
            findings
                .error(format!("{DEFINED}:{number}: {name} is not told by GET /v1/server: add it to {TOLD}"));
        }
    }
    for text in texts.iter().filter(|text| text.is("rs") && text.path.starts_with("crates")) {
        check_refusals(text, findings);
    }
}

/// A constant of the file itself that a refusal names must stand for one of `limits.rs`.
fn check_refusals(text: &Text, findings: &mut Findings) {
    let own: Vec<(usize, &str)> = constants(&text.text, "const ")
        .chain(constants(&text.text, "pub const "))
        .filter(|(number, _)| {
            let rest = text.text.lines().skip(number - 1);
            let definition: Vec<&str> = rest.take(3).collect();
            !definition.join(" ").split(';').next().is_some_and(|code| code.contains("limits::"))
        })
        .collect();
    for refusal in REFUSALS {
        for after in text.text.split(refusal).skip(1) {
            let arguments = after.split(';').next().unwrap_or_default();
            let arguments = arguments.split(')').next().unwrap_or_default();
            let named: BTreeSet<&str> = words(arguments).collect();
            for (number, name) in own.iter().filter(|(_, name)| named.contains(name)) {
                findings.error(format!(
                    "{}:{number}: {name} is a limit that callers meet: it belongs into {DEFINED}",
                    text.path.display()
                ));
            }
        }
    }
}

/// The constants that a file defines, with their lines.
fn constants<'t>(text: &'t str, keyword: &'static str) -> impl Iterator<Item = (usize, &'t str)> {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim_start();
        let line =
            line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
        let name = words(line.strip_prefix(keyword)?).next()?;
        (name != "_" && name.chars().all(|c| !c.is_lowercase())).then_some((index + 1, name))
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn words_after<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    text.split(prefix).skip(1).filter_map(|rest| words(rest).next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(defined: &str, told: &str, other: &str) -> Vec<String> {
        let text = |path: &str, text: &str| Text { path: path.into(), text: text.to_owned() };
        let texts = [text(DEFINED, defined), text(TOLD, told), text("crates/a/src/x.rs", other)];
        let mut findings = Findings::default();
        check(&texts, &mut findings);
        findings.errors
    }

    const DEFINITIONS: &str =
        "/// Most.\npub const MAX_A: usize = 1;\npub const MAX_A_BYTES: u64 = 2;\nconst _: () = ();\n";

    #[test]
    fn every_limit_is_told() {
        let all = "(\"a\", limits::MAX_A as u64), (\"a_bytes\", limits::MAX_A_BYTES),";
        assert_eq!(errors(DEFINITIONS, all, ""), Vec::<String>::new());
        // A longer name does not tell the shorter one.
        let found = errors(DEFINITIONS, "(\"a_bytes\", limits::MAX_A_BYTES),", "");
        assert!(found.len() == 1 && found[0].contains("limits.rs:2: MAX_A is not told"), "{found:?}");
        assert!(errors("", "", "").is_empty());
    }

    #[test]
    fn a_refusal_names_a_limit_of_all() {
        let refused = |definition: &str, refusal: &str| {
            errors("", "", &format!("{definition}\nfn f() {{ {refusal}; }}\n"))
        };
        let [above, with] = REFUSALS;
        let above = format!("{above}\"field\", MAX_B, \"things\")");
        let with = format!("e{with} MAX_B.to_string())");
        for refusal in [&above, &with] {
            let found = refused("const MAX_B: usize = 7;", refusal);
            assert!(found.len() == 1 && found[0].contains("x.rs:1: MAX_B"), "{found:?}");
            assert_eq!(refused("pub(crate) const MAX_B: usize = 7;", refusal).len(), 1);
            assert!(refused("const MAX_B: usize = limits::MAX_A;", refusal).is_empty());
            assert!(refused("const MAX_B: usize =\n    afs_types::limits::MAX_A;", refusal).is_empty());
            assert!(refused("const MAX_BB: usize = 7;", refusal).is_empty());
        }
    }

    #[test]
    fn both_files_are_needed() {
        let mut findings = Findings::default();
        check(&[], &mut findings);
        assert_eq!(findings.errors.len(), 1);
    }
}
