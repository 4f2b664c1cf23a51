//! Searching for paths.
//!
//! Guarantees: order of paths; pages go on where the last one ended whatever changed in between; directories in which nothing can
//! match are not entered. Symbolic links are not followed below the directory that is searched.

use super::error::at;
use super::list::Listing;
use super::walk::Walker;
use super::work::entry_of;
use super::{View, page};
use crate::ignores::Ignores;
use crate::lifecycle::{Room, page_size};
use afs_core::diff::{ChangeKind, diff};
use afs_core::tree::{Attr, Tree};
use afs_types::{Error, Name, Reason, Result, SessionPath, limits};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::{Bound, ControlFlow};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where to search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Below this directory.
    pub path: SessionPath,
    /// Leave out `.git`, and what `.gitignore` files name.
    pub respect_gitignore: bool,
    /// Only paths that differ from the session's base.
    pub changed_only: bool,
}

/// A search for paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobQuery {
    /// Relative to the scope's path: `*` and `?` stay inside a component, `**` goes across, `{a,b}`, `[a-z]`.
    pub pattern: String,
    /// Where.
    pub scope: Scope,
}

impl View {
    /// Entries whose path fits a pattern, a page at a time.
    pub fn glob(&self, query: &GlobQuery, size: usize, token: &str) -> Result<Listing> {
        let size = page_size(size)?;
        let pattern = Pattern::parse(&query.pattern)?;
        let print = format!("{:?} {}", query.scope, query.pattern);
        let print: [&[u8]; 2] = [b"glob", print.as_bytes()];
        let position = page::decode(&print, token)?;
        let facts = &mut self.facts();
        let (mut entries, mut last, mut more, mut room) = (Vec::new(), Vec::new(), false, Room::default());
        let enter = |relative: &[u8], depth: usize| pattern.may_enter(relative, depth);
        self.search(&query.scope, position.as_deref(), &enter, &mut |relative, attr, _| {
            if !pattern.fits(relative) {
                return Ok(ControlFlow::Continue(()));
            }
            let entry = entry_of(&self.tree, facts, below(&query.scope.path, relative), attr)?;
            if entries.len() == size || !room.takes(entry.weight()) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            entries.push(entry);
            last = relative.to_vec();
            Ok(ControlFlow::Continue(()))
        })?;
        let next = more.then(|| page::encode(&print, &last));
        Ok(Listing { entries, next, revision: self.revision })
    }

    /// Visits what is in scope, after `position`, in order of paths. `enter` says which directories can hold something.
    pub(super) fn search(
        &self,
        scope: &Scope,
        position: Option<&[u8]>,
        enter: &dyn Fn(&[u8], usize) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let top = self.resolve(&scope.path, true)?;
        if !top.is_dir() {
            return Err(at(&scope.path)(Reason::NotADirectory.into()));
        }
        let mut ignores = match scope.respect_gitignore {
            true => Some(Ignores::of_search(&self.tree, &self.shared.ports.blobs, &self.shared.memory)),
            false => None,
        };
        if scope.changed_only {
            return self.search_changed(scope, position, ignores.as_mut(), visit);
        }
        let mut walker = match position {
            Some(position) => Walker::after(&self.tree, top.ino, scope.path.clone(), position),
            None => Walker::new(&self.tree, top.ino, scope.path.clone()),
        };
        loop {
            if walker.item().is_some_and(|i| i.attr.is_dir() && enter(walker.relative(), i.depth)) {
                walker.enter();
            }
            let Some(item) = walker.next() else { return Ok(()) };
            if let Some(ignores) = &mut ignores
                && left_out(ignores, walker.path().names(), item.attr.is_dir())?
            {
                walker.skip();
                continue;
            }
            if visit(walker.relative(), item.attr, ignores.as_mut())?.is_break() {
                return Ok(());
            }
        }
    }

    fn search_changed(
        &self,
        scope: &Scope,
        position: Option<&[u8]>,
        mut ignores: Option<&mut Ignores<'_>>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let changed = changed_paths(&self.tree);
        let start = match position {
            Some(position) => Bound::Excluded(below(&scope.path, position)),
            None => Bound::Excluded(scope.path.clone()),
        };
        let prefix = scope.path.names().len();
        for path in changed.range((start, Bound::Unbounded)) {
            if !path.starts_with(&scope.path) {
                break;
            }
            let Some(attr) = self.tree.walk(path).and_then(|ino| self.tree.attr(ino)) else { continue };
            if let Some(ignores) = &mut ignores {
                let in_git = path.names().iter().any(|n| n.as_bytes() == b".git");
                if in_git || ignores.is_ignored(path, attr.is_dir())? {
                    continue;
                }
            }
            let relative = path.names()[prefix..].iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
            if visit(&relative, attr, ignores.as_deref_mut())?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What a search calls with relative paths; and with its rules, for who is going to wait for others to forget them first.
pub(super) type Visit<'a> = dyn FnMut(&[u8], Attr, Option<&mut Ignores<'_>>) -> Result<ControlFlow<()>> + 'a;

/// Whether git would leave out a path whose parents it does not leave out.
fn left_out(ignores: &mut Ignores<'_>, names: &[Name], is_dir: bool) -> Result<bool> {
    Ok(names.last().is_some_and(|n| n.as_bytes() == b".git") || ignores.decide(names, is_dir)?)
}

/// Paths that were added, changed or moved since the base, with the entries of moved directories.
fn changed_paths(tree: &Tree) -> BTreeSet<SessionPath> {
    let mut paths = BTreeSet::new();
    for change in diff(&Tree::new(tree.base().clone()), tree) {
        match change.kind {
            ChangeKind::Deleted => {}
            ChangeKind::Renamed { .. } => {
                if let Some(attr) = change.new.filter(Attr::is_dir) {
                    let mut walker = Walker::new(tree, attr.ino, change.path.clone());
                    while walker.next().is_some() {
                        paths.insert(walker.path());
                        walker.enter();
                    }
                }
                paths.insert(change.path);
            }
            _ => drop(paths.insert(change.path)),
        }
    }
    paths
}

/// A relative path below a directory.
pub(super) fn below(dir: &SessionPath, relative: &[u8]) -> SessionPath {
    let names = relative.split(|b| *b == b'/').filter_map(|n| Name::new(n).ok());
    SessionPath::from(dir.names().iter().cloned().chain(names).collect::<Vec<_>>())
}

/// A pattern, and where it can match.
struct Pattern {
    matcher: GlobMatcher,
    /// Components in front that have no special characters.
    literal: Vec<Vec<u8>>,
    /// Most components of a match; none: any number.
    depth: Option<usize>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| {
            Error::new(Reason::InvalidArgument, format!("pattern {text:?}: {why}")).with("field", "pattern")
        };
        if text.len() > limits::MAX_PATH_BYTES {
            return Err(invalid(format!("at most {} bytes", limits::MAX_PATH_BYTES)));
        }
        let relative = text.trim_start_matches("./").trim_start_matches('/');
        if relative.is_empty() {
            return Err(invalid("it is empty; `**` matches everything".into()));
        }
        let glob = GlobBuilder::new(relative).literal_separator(true).backslash_escape(true).build();
        let matcher = glob.map_err(|e| invalid(e.kind().to_string()))?.compile_matcher();
        let is_plain = |part: &&str| !part.contains(['*', '?', '[', ']', '{', '}', '\\', '!', ',']);
        let parts: Vec<&str> = relative.split('/').collect();
        let literal = parts.iter().copied().take_while(is_plain).map(|p| p.as_bytes().to_vec()).collect();
        // Braces and classes can hold slashes.
        let any = relative.contains("**") || relative.contains(['{', '[', '\\']);
        Ok(Self { matcher, literal, depth: (!any).then_some(parts.len()) })
    }

    fn fits(&self, relative: &[u8]) -> bool {
        self.matcher.is_match(Path::new(OsStr::from_bytes(relative)))
    }

    /// Whether something below this directory, `depth` components down, can match.
    fn may_enter(&self, relative: &[u8], depth: usize) -> bool {
        self.depth.is_none_or(|most| depth < most)
            && relative.split(|b| *b == b'/').zip(&self.literal).all(|(have, want)| have == want)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, want) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a/b.rs", false),
            ("**/*.rs", "a.rs", true),
            ("**/*.rs", "a/b/c.rs", true),
            ("/src/**", "src/a/b", true),
            ("./src/*.{rs,toml}", "src/Cargo.toml", true),
            ("src/[ab].c", "src/b.c", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("*", ".hidden", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(path.as_bytes()), want, "{pattern} {path}");
        }
        assert!(Pattern::parse("*").unwrap().fits(b"\xff\xfe"));
    }

    #[test]
    fn only_directories_that_can_match_are_entered() {
        for (pattern, dir, want) in [
            ("src/*.rs", "src", true),
            ("src/*.rs", "lib", false),
            ("src/*.rs", "src/deep", false),
            ("src/**/x", "src/deep/er", true),
            ("{a/b,c}/d", "a", true),
            ("*/x", "any", true),
            ("*", "any", false),
        ] {
            let depth = dir.split('/').count();
            assert_eq!(
                Pattern::parse(pattern).unwrap().may_enter(dir.as_bytes(), depth),
                want,
                "{pattern} {dir}"
            );
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        for bad in ["", "/", "a[", "{a", &"x".repeat(5000)] {
            let error = Pattern::parse(bad).err().unwrap();
            assert_eq!(error.reason, Reason::InvalidArgument);
            assert!(error.message().starts_with("pattern "), "{error}");
        }
    }
}
