//! Every Cargo.toml inherits what the workspace decides: lints, version, edition, licence, dependency versions.
//!
//! Guarantees: no crate has its own version of a dependency, so one line in the root says what the whole project uses.

use super::Findings;
use crate::workspace::Package;
use anyhow::{Context, Result};
use toml::Table;

const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(packages: &[Package], findings: &mut Findings) -> Result<()> {
    for package in packages {
        let path = &package.manifest_path;
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        check_one(&package.name, &toml::from_str(&text)?, findings);
        if package.dir().file_name().is_none_or(|dir| *dir != *package.name) {
            findings.error(format!("{}: the directory of a crate has the crate's name", path.display()));
        }
    }
    Ok(())
}

fn inherits(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

fn check_one(name: &str, manifest: &Table, findings: &mut Findings) {
    let package = manifest.get("package");
    for key in INHERITED {
        if !inherits(package.and_then(|package| package.get(key))) {
            findings.error(format!("crates/{name}/Cargo.toml: write `{key}.workspace = true`"));
        }
    }
    if package.and_then(|package| package.get("description")).is_none() {
        findings.error(format!(
            "crates/{name}/Cargo.toml: a `description` says in one line what the crate is for"
        ));
    }
    if !inherits(manifest.get("lints")) {
        findings.error(format!("crates/{name}/Cargo.toml: write `[lints]` with `workspace = true`"));
    }
    for section in DEPENDENCIES {
        let dependencies = manifest.get(section).and_then(toml::Value::as_table);
        for (dependency, value) in dependencies.into_iter().flatten() {
            // A crate names itself to switch on its own features for its tests.
            if inherits(Some(value)) || dependency == name {
                continue;
            }
            findings.error(format!(
                "crates/{name}/Cargo.toml: {dependency} = {value}: write `{dependency}.workspace = true` and the version in the root"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\ndescription = \"b\"\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n\
        [dependencies]\nserde.workspace = true\n";

    fn errors(text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check_one("a", &toml::from_str(text).unwrap(), &mut findings);
        findings.errors
    }

    #[test]
    fn a_manifest_that_inherits_everything_is_accepted() {
        assert_eq!(errors(GOOD), Vec::<String>::new());
    }

    #[test]
    fn own_versions_and_missing_lints_are_refused() {
        assert!(errors(&GOOD.replace("serde.workspace = true", "serde = \"1\""))[0].contains("serde"));
        assert!(errors(&GOOD.replace("[lints]\nworkspace = true\n", ""))[0].contains("[lints]"));
        assert!(
            errors(&GOOD.replace("version.workspace = true\nedition", "version = \"1.0.0\"\nedition"))[0]
                .contains("version")
        );
        assert!(errors(&GOOD.replace("description = \"b\"\n", ""))[0].contains("description"));
    }
}
