//! What one client owns: a directory of a session, as a model, and the steps that change it.
//!
//! Every step is one atomic change of the session, so the states that a crash may leave are those between two steps. Bytes carry the number of
//! the step that wrote them, so two states of one history look the same only where a step is undone by a later one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A change, with paths relative to the area.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    /// A new, empty file.
    Create(String),
    /// Bytes into an existing file.
    Write {
        path: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    /// Bytes to the end of an existing file.
    Append {
        path: String,
        bytes: Vec<u8>,
    },
    /// The whole content of a file, new or not.
    Replace {
        path: String,
        bytes: Vec<u8>,
    },
    /// One piece of text by another.
    Edit {
        path: String,
        old: String,
        new: String,
    },
    Truncate {
        path: String,
        size: usize,
    },
    /// Replaces a file that is in the way.
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Unlink(String),
    Mkdir(String),
    Rmdir(String),
    /// Several at once, all or nothing.
    Set(Vec<Step>),
    /// A line to the file that all areas of the session share.
    Log(String),
    /// Back to a checkpoint of the session, which this area has for itself.
    Restore {
        checkpoint: String,
        area: Box<Area>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    Dir,
    Symlink(String),
    /// A key of `bodies`, the same for all names of a file.
    File(u32),
}

/// The content of an area.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Area {
    names: BTreeMap<String, Node>,
    bodies: BTreeMap<u32, Arc<Vec<u8>>>,
    next: u32,
    lines: Arc<String>,
}

/// An area as anybody can see it: a description for each path, and its lines of the shared file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Shown {
    pub(super) paths: BTreeMap<String, String>,
    pub(super) lines: String,
}

impl Shown {
    /// A description of a file: `first` is the first of its names, so hard links are told from copies.
    pub(super) fn file(bytes: &[u8], links: u32, first: &str) -> String {
        let hash = &blake3::hash(bytes).to_hex()[..16];
        format!("file {} {hash} links {links} first {first}: {}", bytes.len(), sketch(bytes))
    }
    pub(super) fn symlink(target: &str) -> String {
        format!("symlink {target}")
    }
    pub(super) fn dir() -> String {
        "dir".into()
    }

    /// What differs, for people.
    pub(super) fn differences(&self, want: &Self) -> String {
        let paths: BTreeSet<&String> = self.paths.keys().chain(want.paths.keys()).collect();
        let differ = paths.into_iter().filter(|path| self.paths.get(*path) != want.paths.get(*path));
        let mut text: String = differ
            .map(|path| format!("\n  {path}: is {:?}, was {:?}", self.paths.get(path), want.paths.get(path)))
            .collect();
        if self.lines != want.lines {
            text += &format!("\n  log: is {:?}, was {:?}", tail(&self.lines), tail(&want.lines));
        }
        text
    }
}

/// Which steps wrote the bytes, and how much: pieces end at a dot or a line's end, and equal ones are counted.
fn sketch(bytes: &[u8]) -> String {
    let mut pieces: Vec<(&[u8], usize)> = Vec::new();
    for piece in bytes.split_inclusive(|byte| b".\n\0".contains(byte)) {
        match pieces.last_mut() {
            Some((last, count)) if *last == piece => *count += 1,
            _ => pieces.push((piece, 1)),
        }
    }
    let show = |(piece, count): &(&[u8], usize)| format!("{}x{count}", piece.escape_ascii());
    pieces.iter().map(show).collect::<Vec<_>>().join(" ")
}

fn tail(text: &str) -> &str {
    text.get(text.len().saturating_sub(120)..).unwrap_or(text)
}

impl Area {
    /// Carries out a step; false, and an undefined state, if it cannot be.
    pub(super) fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Create(path) => self.is_free(path) && self.put(path, Vec::new()),
            Step::Write { path, offset, bytes } => self.change(path, |body| {
                body.resize(body.len().max(offset + bytes.len()), 0);
                body[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }),
            Step::Append { path, bytes } => self.change(path, |body| body.extend_from_slice(bytes)),
            Step::Replace { path, bytes } => match self.names.get(path) {
                Some(Node::File(_)) => self.change(path, |body| bytes.clone_into(body)),
                Some(_) => false,
                None => self.has_parent(path) && self.put(path, bytes.clone()),
            },
            Step::Edit { path, old, new } => {
                // As the API wants it: something, once, by something else.
                let once =
                    |text: &&str| !old.is_empty() && old != new && text.matches(old.as_str()).count() == 1;
                let text = self.text(path).filter(once);
                let edited = text.map(|text| text.replacen(old.as_str(), new, 1).into_bytes());
                edited.is_some_and(|edited| self.change(path, |body| *body = edited))
            }
            Step::Truncate { path, size } => self.change(path, |body| body.resize(*size, 0)),
            Step::Rename { from, to } => self.rename(from, to),
            Step::Link { from, to } => match self.names.get(from).cloned() {
                Some(node @ Node::File(_)) => self.is_free(to) && self.name(to, node),
                _ => false,
            },
            Step::Symlink { path, target } => {
                self.is_free(path) && self.name(path, Node::Symlink(target.clone()))
            }
            Step::Unlink(path) => match self.names.get(path) {
                None | Some(Node::Dir) => false,
                Some(_) => self.drop_name(path),
            },
            Step::Mkdir(path) => self.is_free(path) && self.name(path, Node::Dir),
            Step::Rmdir(path) => {
                self.names.get(path) == Some(&Node::Dir) && self.is_empty(path) && self.drop_name(path)
            }
            Step::Set(steps) => steps.iter().all(|step| self.apply(step)),
            Step::Log(line) => {
                Arc::make_mut(&mut self.lines).push_str(line);
                true
            }
            Step::Restore { area, .. } => {
                area.as_ref().clone_into(self);
                true
            }
        }
    }

    /// The state after a step, if it can be.
    pub(super) fn after(&self, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        next.apply(step).then_some(next)
    }

    pub(super) fn shown(&self) -> Shown {
        let mut firsts: BTreeMap<u32, (&str, u32)> = BTreeMap::new();
        for (path, node) in &self.names {
            if let Node::File(body) = node {
                firsts.entry(*body).or_insert((path, 0)).1 += 1;
            }
        }
        let describe = |node: &Node| match node {
            Node::Dir => Shown::dir(),
            Node::Symlink(target) => Shown::symlink(target),
            Node::File(body) => {
                let (first, links) = firsts[body];
                Shown::file(&self.bodies[body], links, first)
            }
        };
        let paths = self.names.iter().map(|(path, node)| (path.clone(), describe(node))).collect();
        Shown { paths, lines: self.lines.as_ref().clone() }
    }

    /// The content of a text file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match self.names.get(path) {
            Some(Node::File(body)) => std::str::from_utf8(&self.bodies[body]).ok(),
            _ => None,
        }
        .filter(|text| !text.contains('\0'))
    }

    pub(super) fn size(&self, path: &str) -> usize {
        match self.names.get(path) {
            Some(Node::File(body)) => self.bodies[body].len(),
            _ => 0,
        }
    }

    pub(super) fn files(&self) -> Vec<String> {
        let files = self.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Files and symbolic links.
    pub(super) fn leaves(&self) -> Vec<String> {
        self.names.iter().filter(|(_, node)| **node != Node::Dir).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn dirs(&self) -> Vec<String> {
        self.names.iter().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| path.clone()).collect()
    }

    fn has_parent(&self, path: &str) -> bool {
        path.rsplit_once('/').is_none_or(|(dir, _)| self.names.get(dir) == Some(&Node::Dir))
    }

    fn is_free(&self, path: &str) -> bool {
        !self.names.contains_key(path) && self.has_parent(path)
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.names.keys().any(|path| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
    }

    fn name(&mut self, path: &str, node: Node) -> bool {
        self.names.insert(path.to_owned(), node);
        true
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>) -> bool {
        self.next += 1;
        self.bodies.insert(self.next, Arc::new(bytes));
        self.name(path, Node::File(self.next))
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(Node::File(body)) = self.names.get(path) else { return false };
        self.bodies.get_mut(body).map(|body| change(Arc::make_mut(body))).is_some()
    }

    fn drop_name(&mut self, path: &str) -> bool {
        if let Some(Node::File(body)) = self.names.remove(path)
            && !self.names.values().any(|node| *node == Node::File(body))
        {
            self.bodies.remove(&body);
        }
        true
    }

    fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(node) = self.names.get(from).cloned() else { return false };
        let into_itself = to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/'));
        if from == to || into_itself || !self.has_parent(to) {
            return false;
        }
        match (&node, self.names.get(to)) {
            (_, None) => {}
            // Two names of one file: rename does nothing at all.
            (Node::File(a), Some(Node::File(b))) if a == b => return false,
            (Node::Dir, Some(_)) | (_, Some(Node::Dir)) => return false,
            (_, Some(_)) => drop(self.drop_name(to)),
        }
        let below = format!("{from}/");
        let moved: Vec<String> = self.names.keys().filter(|path| path.starts_with(&below)).cloned().collect();
        for path in moved {
            let target = format!("{to}/{}", &path[below.len()..]);
            let node = self.names.remove(&path).expect("it was just listed");
            self.names.insert(target, node);
        }
        self.names.remove(from);
        self.name(to, node)
    }
}
