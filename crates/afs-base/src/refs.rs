//! References of a repository: from `ls-remote`, or from a mirror.
//!
//! Guarantees: every oid here is of a commit as far as the other side says (annotated tags are peeled).
//! Deliberately absent: changing references.

use crate::Progress;
use crate::child::{Call, Git};
use crate::object::{Oid, parse_hex};
use afs_types::{Error, Reason, Result, limits};
use std::collections::BTreeMap;
use std::path::Path;

/// What a reference stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) oid: Oid,
    /// The branch, without `refs/heads/`; none when detached.
    pub(crate) branch: Option<String>,
}

/// One reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) oid: Oid,
    /// What an annotated tag points to in the end.
    pub(crate) peeled: Option<Oid>,
}

/// References by full name (bytes: git does not ask for UTF-8).
#[derive(Default, Debug)]
pub(crate) struct Refs {
    pub(crate) all: BTreeMap<Vec<u8>, Target>,
    /// Full name of the branch that HEAD points to.
    pub(crate) head: Option<Vec<u8>>,
    /// The repository names objects by SHA-256.
    pub(crate) sha256: bool,
}

impl Refs {
    /// What to ask `ls-remote` for, to resolve `name`.
    pub(crate) fn patterns(name: &str) -> impl Iterator<Item = String> {
        let full = name == "HEAD" || name.starts_with("refs/");
        let names = match full {
            true => vec![name.to_owned(), format!("{name}^{{}}")],
            false => vec![
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}"),
                format!("refs/tags/{name}^{{}}"),
            ],
        };
        names.into_iter()
    }

    /// Parses `git ls-remote --symref`.
    pub(crate) fn from_ls_remote(bytes: &[u8]) -> Self {
        let mut refs = Self::default();
        for line in bytes.split(|b| *b == b'\n') {
            let Some(tab) = line.iter().position(|b| *b == b'\t') else { continue };
            let (value, name) = (&line[..tab], &line[tab + 1..]);
            if let Some(target) = value.strip_prefix(b"ref: ") {
                if name == b"HEAD" {
                    refs.head = Some(target.to_vec());
                }
                continue;
            }
            refs.sha256 |= value.len() == 64;
            let Some(oid) = parse_hex(value) else { continue };
            match name.strip_suffix(b"^{}") {
                Some(tag) => {
                    if let Some(target) = refs.all.get_mut(tag) {
                        target.peeled = Some(oid);
                    }
                }
                None => {
                    refs.all.insert(name.to_vec(), Target { oid, peeled: None });
                }
            }
        }
        refs
    }

    /// All references of a bare repository of ours.
    pub(crate) fn of_repository(git: &Git, git_dir: &Path, progress: &dyn Progress) -> Result<Self> {
        let call = Call { git_dir: Some(git_dir), ..Call::default() };
        let format = "--format=%(objectname)%09%(*objectname)%09%(refname)";
        let bytes = git.must(call, ["for-each-ref", format], progress)?;
        let mut refs = Self::default();
        for line in bytes.split(|b| *b == b'\n') {
            let mut fields = line.splitn(3, |b| *b == b'\t');
            if let (Some(oid), Some(peeled), Some(name)) = (fields.next(), fields.next(), fields.next())
                && let Some(oid) = parse_hex(oid)
            {
                refs.all.insert(name.to_vec(), Target { oid, peeled: parse_hex(peeled) });
            }
        }
        let head = git_dir.join("HEAD");
        let text = std::fs::read(&head).map_err(|e| Error::io(format_args!("read {}", head.display()), e))?;
        match text.trim_ascii_end().strip_prefix(b"ref: ") {
            Some(name) => {
                if let Some(target) = refs.all.get(name).cloned() {
                    refs.all.insert(b"HEAD".to_vec(), target);
                    refs.head = Some(name.to_vec());
                }
            }
            None => {
                if let Some(oid) = parse_hex(text.trim_ascii()) {
                    refs.all.insert(b"HEAD".to_vec(), Target { oid, peeled: None });
                }
            }
        }
        Ok(refs)
    }

    /// A branch before a tag of the same name, as `git clone --branch` does.
    pub(crate) fn resolve(&self, name: &str) -> Option<Head> {
        if name == "HEAD" {
            let target = self.all.get(&b"HEAD"[..])?;
            return Some(Head { oid: target.oid, branch: self.head.as_deref().and_then(branch_of) });
        }
        let candidates = match name.starts_with("refs/") {
            true => vec![name.to_owned()],
            false => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        candidates.iter().find_map(|full| {
            let target = self.all.get(full.as_bytes())?;
            Some(Head { oid: target.peeled.unwrap_or(target.oid), branch: branch_of(full.as_bytes()) })
        })
    }
}

fn branch_of(full: &[u8]) -> Option<String> {
    let name = full.strip_prefix(b"refs/heads/").and_then(|name| String::from_utf8(name.to_vec()).ok());
    name.filter(|name| is_branch_name(name))
}

/// The name of a branch to push, without `refs/heads/`, which may be before it. What is below `refs/` otherwise is no branch, and as a
/// branch's name it would hide what everybody means by it.
pub(crate) fn branch_to_push(given: &str) -> Result<&str> {
    let name = given.strip_prefix("refs/heads/").unwrap_or(given);
    let too_long = |what: &str, limit: usize| {
        Error::new(Reason::NameTooLong, format!("branch: {what} has more than {limit} bytes"))
            .with("field", "branch")
            .with("limit", limit.to_string())
            .next("use a shorter name for the branch")
    };
    if name.len() > limits::MAX_BRANCH_BYTES {
        return Err(too_long("the name", limits::MAX_BRANCH_BYTES));
    }
    if name.split('/').any(|part| part.len() > limits::MAX_BRANCH_PART_BYTES) {
        return Err(too_long("a part of the name", limits::MAX_BRANCH_PART_BYTES));
    }
    if name.starts_with("refs/") {
        return Err(Error::invalid("branch", format_args!("the name of a branch; {given} is none"))
            .next("name a branch, with or without refs/heads/ before it"));
    }
    match is_branch_name(name) {
        true => Ok(name),
        false => Err(Error::invalid("branch", "a branch name as `git check-ref-format --branch` takes it")),
    }
}

/// Git's rules for names of references (`git check-ref-format`), and no leading dash.
pub(crate) fn is_branch_name(name: &str) -> bool {
    let bad = |c: char| c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && !p.ends_with(".lock");
    name.len() <= limits::MAX_BRANCH_BYTES
        && !name.starts_with('-')
        && name != "@"
        // A name that would hide what everybody means by it.
        && name != "HEAD"
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(bad)
        && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ls_remote_is_understood() {
        let [a, b, c] = ["1", "2", "3"].map(|d| d.repeat(40));
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{b}\trefs/heads/v1\n"
        );
        let refs = Refs::from_ls_remote(text.as_bytes());
        let oid = |t: &str| parse_hex(t.as_bytes()).unwrap();
        assert_eq!(refs.resolve("HEAD"), Some(Head { oid: oid(&a), branch: Some("main".into()) }));
        assert_eq!(refs.resolve("v1"), Some(Head { oid: oid(&b), branch: Some("v1".into()) }));
        assert_eq!(refs.resolve("refs/tags/v1"), Some(Head { oid: oid(&c), branch: None }));
        assert_eq!(refs.resolve("v2"), None);
    }

    #[test]
    fn what_is_pushed_to_is_a_branch_of_a_length_that_git_can_keep() {
        for (given, name) in
            [("a/b", "a/b"), ("refs/heads/a/b", "a/b"), ("heads/a", "heads/a"), ("refs", "refs")]
        {
            assert_eq!(branch_to_push(given).unwrap(), name);
        }
        let refused = |given: &str| {
            let error = branch_to_push(given).unwrap_err();
            assert!(error.metadata().contains(&("field", "branch".to_owned())), "{given}: {error:?}");
            (
                error.reason,
                error.metadata().iter().find(|(key, _)| *key == "limit").map(|(_, value)| value.clone()),
            )
        };
        for bad in
            ["", "refs/heads/", "refs/tags/v9", "refs/heads/refs/heads/a", "refs/heads/../x", "-x", "HEAD"]
        {
            assert_eq!(refused(bad), (Reason::InvalidArgument, None), "{bad:?}");
        }
        let part = "é".repeat(125);
        assert_eq!(branch_to_push(&format!("a/{part}/b")).unwrap().len(), 254);
        let longer = (Reason::NameTooLong, Some("250".to_owned()));
        assert_eq!(refused(&format!("a/{part}x")), longer);
        assert_eq!(refused(&format!("refs/heads/{part}x")), longer);
        let long = ["a"; 513].join("/");
        assert_eq!(branch_to_push(&long[..1023]).unwrap().len(), 1023);
        assert_eq!(refused(&long), (Reason::NameTooLong, Some("1024".to_owned())));
    }

    #[test]
    fn branch_names_are_checked() {
        for good in ["main", "a/b-c", "é", "x.y", "@a", "HEADS"] {
            assert!(is_branch_name(good), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a/../b", ".a", "a/.b", "a.lock", "a.lock/b", "a b", "a\nb", "a~1", "a:b",
            "a*", "a@{1}", "@", "HEAD", "a/", "/a", "a//b", "a.", "a\\b",
        ] {
            assert!(!is_branch_name(bad), "{bad:?}");
        }
    }
}
