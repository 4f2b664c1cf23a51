//! Each rule of the arrow table, with a workspace that breaks it.

use super::*;
use crate::workspace::Dependency;

const TABLE: &str = "\
# Architecture
## Crates
| crate | what | may depend on |
|---|---|---|
| `low` | rules | (none) |
| `high` | surface | `low` |
| `tool` | dev | anything |

## Confined dependencies
| dependency | only in |
|---|---|
| `heavy`, `heavier` | `low` |
## After
| `ghost` | not in the table | (none) |
";

fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
    let dependencies = dependencies
        .iter()
        .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(str::to_owned) })
        .collect();
    Package { name: name.into(), manifest_path: "Cargo.toml".into(), dependencies }
}

fn good() -> Vec<Package> {
    vec![
        package("high", &[("low", None), ("serde", None)]),
        package("low", &[("heavy", None)]),
        package("tool", &[("high", None)]),
    ]
}

fn errors(packages: &[Package]) -> Vec<String> {
    let mut findings = Findings::default();
    check(TABLE, packages, &mut findings);
    findings.errors
}

#[test]
fn the_table_itself_is_accepted() {
    assert_eq!(errors(&good()), Vec::<String>::new());
}

#[test]
fn an_arrow_that_the_table_lacks_is_refused() {
    let mut packages = good();
    packages[1].dependencies.push(Dependency { name: "high".into(), kind: None });
    assert!(errors(&packages)[0].starts_with("low -> high is no arrow"));
    packages[1].dependencies.last_mut().unwrap().kind = Some("build".into());
    assert_eq!(errors(&packages).len(), 1);
    packages[1].dependencies.last_mut().unwrap().kind = Some("dev".into());
    assert_eq!(errors(&packages).len(), 0, "tests may reach for anything");
}

#[test]
fn a_crate_that_the_table_lacks_or_invents_is_refused() {
    let mut packages = good();
    packages.push(package("new", &[]));
    assert!(errors(&packages)[0].contains("new is not in the crate table"));
    packages.truncate(2);
    assert!(errors(&packages)[0].contains("tool, which does not exist"));
}

#[test]
fn a_confined_dependency_stays_in_its_crate() {
    let mut packages = good();
    packages[0].dependencies.push(Dependency { name: "heavier".into(), kind: None });
    assert!(errors(&packages)[0].contains("high depends on heavier"));
}

#[test]
fn a_missing_table_is_refused() {
    let mut findings = Findings::default();
    check("# nothing", &[], &mut findings);
    assert_eq!(findings.errors.len(), 1);
}

#[test]
fn an_unused_arrow_is_remarked() {
    let mut packages = good();
    packages[0].dependencies.clear();
    let mut findings = Findings::default();
    check(TABLE, &packages, &mut findings);
    assert_eq!(findings.remarks, ["high -> low is in ARCHITECTURE.md but not used"]);
}
