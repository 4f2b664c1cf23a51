//! The arrows between crates are those of the two tables in ARCHITECTURE.md, and no others.
//!
//! Guarantees: an arrow that the table lacks, a crate that it lacks, a crate that it invents and an arrow that is no longer used
//! are all findings. An arrow is a normal or build dependency: tests may reach for anything.

use super::Findings;
use crate::workspace::Package;
use std::collections::{BTreeMap, BTreeSet};

/// One row of the crate table.
#[derive(Debug, PartialEq)]
enum Allowed {
    /// These crates.
    Only(BTreeSet<String>),
    /// A developer crate: never shipped, may use anything.
    Anything,
}

pub(super) fn check(architecture: &str, packages: &[Package], findings: &mut Findings) {
    let allowed = crates(architecture);
    let confined = confined(architecture);
    if allowed.is_empty() {
        findings.error("ARCHITECTURE.md has no crate table (rows like \"| `afs-core` | ... | `afs-types` |\" under \"## Crates\")");
    }
    let members: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for name in allowed.keys().filter(|name| !members.contains(name.as_str())) {
        findings
            .error(format!("ARCHITECTURE.md lists the crate {name}, which does not exist: remove the row"));
    }
    for package in packages {
        let used: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.as_str())
            .collect();
        check_arrows(package, &used, &members, &allowed, findings);
        for name in used.iter().filter(|name| confined.contains_key(**name)) {
            if !confined[*name].contains(&package.name) {
                findings.error(format!(
                    "{} depends on {name}, which ARCHITECTURE.md confines to {}",
                    package.name,
                    confined[*name].iter().cloned().collect::<Vec<_>>().join(", ")
                ));
            }
        }
    }
}

fn check_arrows(
    package: &Package,
    used: &BTreeSet<&str>,
    members: &BTreeSet<&str>,
    allowed: &BTreeMap<String, Allowed>,
    findings: &mut Findings,
) {
    let ours: BTreeSet<&str> = used.intersection(members).copied().collect();
    match allowed.get(&package.name) {
        None => {
            findings.error(format!("the crate {} is not in the crate table of ARCHITECTURE.md", package.name))
        }
        Some(Allowed::Anything) => {}
        Some(Allowed::Only(allowed)) => {
            for name in ours.iter().filter(|name| !allowed.contains(**name)) {
                findings.error(format!(
                    "{} -> {name} is no arrow of ARCHITECTURE.md: remove the dependency, or argue for the arrow in docs/design/",
                    package.name
                ));
            }
            for name in allowed.iter().filter(|name| !ours.contains(name.as_str())) {
                findings.remark(format!("{} -> {name} is in ARCHITECTURE.md but not used", package.name));
            }
        }
    }
}

/// The rows of the tables under the heading `## {heading}`, as cells.
fn rows<'a>(architecture: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let title = format!("## {heading}");
    architecture
        .lines()
        .skip_while(|line| line.trim_end() != title)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim().trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The words in backticks of a cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn crates(architecture: &str) -> BTreeMap<String, Allowed> {
    let mut table = BTreeMap::new();
    for row in rows(architecture, "Crates") {
        let (Some(name), Some(arrows)) = (names(row[0]).pop_first(), row.last()) else { continue };
        let allowed = if *arrows == "anything" { Allowed::Anything } else { Allowed::Only(names(arrows)) };
        table.insert(name, allowed);
    }
    table
}

fn confined(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = rows(architecture, "Confined dependencies");
    let pairs = rows.iter().filter_map(|row| Some((names(row[0]), names(row.last()?))));
    pairs.flat_map(|(what, homes)| what.into_iter().map(move |name| (name, homes.clone()))).collect()
}

#[cfg(test)]
mod tests;
