//! Answers and whole trees, side by side.

use super::{Difference, Number, Run, SessionNo, Subject};
use crate::call::{Answer, Attr, Call, Name, Node};
use crate::model::{Body, ROOT};
use afs_types::{Reason, Result, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Files up to this size are always compared whole.
const SMALL_BYTES: u64 = 16_384;

/// Which inode number each node of the model has: one to one, for ever.
#[derive(Default)]
pub(super) struct Numbers {
    by_node: BTreeMap<Node, Number>,
    by_number: BTreeMap<Number, Node>,
}

impl Numbers {
    /// The operation with the subject's numbers; none if one is not known.
    pub(super) fn subject(&self, call: &Call) -> Option<Call> {
        let mut call = call.clone();
        for node in call.nodes_mut() {
            *node = *self.by_node.get(node)?;
        }
        Some(call)
    }

    /// Whether node and number belong together; the first time they meet, they do from then on.
    fn bind(&mut self, node: Node, number: Number) -> Result<(), Difference> {
        let known = *self.by_node.entry(node).or_insert(number);
        if known != number {
            return differ(format!("inode {known}, as always"), format!("inode {number}"));
        }
        let owner = *self.by_number.entry(number).or_insert(node);
        if owner != node {
            let model = format!("an inode number of its own for node {node}");
            return differ(model, format!("inode {number}, which is or was node {owner}"));
        }
        Ok(())
    }

    /// Compares two answers to one operation.
    pub(super) fn same(
        &mut self,
        model: Result<Answer, Reason>,
        subject: Result<Answer>,
        times: bool,
    ) -> Result<(), Difference> {
        match (&model, &subject) {
            (Err(want), Err(got)) if *want == got.reason => return Ok(()),
            (Ok(Answer::Node(node, want)), Ok(Answer::Node(number, got))) => {
                self.bind(*node, *number)?;
                if visible(want, times) == visible(got, times) {
                    return Ok(());
                }
            }
            (Ok(Answer::Entries(want)), Ok(Answer::Entries(got))) => {
                let names = |entries: &[(Name, u64)]| entries.iter().map(|e| e.0.clone()).collect::<Vec<_>>();
                if names(want) == names(got) {
                    return want.iter().zip(got).try_for_each(|(want, got)| self.bind(want.1, got.1));
                }
            }
            (Ok(want), Ok(got)) if want == got => return Ok(()),
            _ => {}
        }
        let subject = match subject {
            Ok(answer) => show(&Ok(answer)),
            Err(error) => format!("{} ({})", show(&Err(error.reason)), error.message()),
        };
        differ(show(&model), subject)
    }
}

impl<S: Subject> Run<'_, S> {
    /// Takes over from the subject what importers are free to choose.
    pub(super) fn adopt_base(&mut self) -> Result<(), Difference> {
        self.numbers.bind(ROOT, afs_types::ROOT_INO)?;
        let mut left = vec![ROOT];
        while let Some(node) = left.pop() {
            let Some(call) = self.numbers.subject(&Call::GetAttr { node }) else { continue };
            if let (Ok(Answer::Node(_, attr)), Some(model)) =
                (self.subject.call(0, &call), self.world.sessions.get_mut(&0))
            {
                model.adopt(node, &attr);
            }
            let is_dir =
                self.world.sessions.get(&0).and_then(|m| m.nodes().get(&node)).is_some_and(|n| n.is_dir());
            if is_dir {
                left.extend(self.entries(0, node)?.into_values());
            }
        }
        Ok(())
    }

    /// Compares the trees of all sessions.
    pub(super) fn compare_all(&mut self, every_byte: bool) -> Result<(), Difference> {
        let sessions: Vec<SessionNo> = self.world.sessions.keys().copied().collect();
        sessions.into_iter().try_for_each(|session| self.compare_tree(session, every_byte))
    }

    /// Compares the whole tree of a session, and what is open in it without a name.
    pub(super) fn compare_tree(&mut self, session: SessionNo, every_byte: bool) -> Result<(), Difference> {
        self.stats.trees += 1;
        let mut seen = BTreeSet::new();
        let mut left = vec![ROOT];
        if let Some(model) = self.world.sessions.get(&session) {
            left.extend(model.opens());
        }
        while let Some(node) = left.pop() {
            if seen.insert(node) {
                left.extend(self.compare_node(session, node, every_byte)?);
            }
        }
        self.look = None;
        Ok(())
    }

    /// Compares a node; returns what is in it.
    fn compare_node(
        &mut self,
        session: SessionNo,
        node: Node,
        every_byte: bool,
    ) -> Result<Vec<Node>, Difference> {
        self.look(session, Call::GetAttr { node })?;
        self.look(session, Call::ListXattr { node })?;
        let found = self.world.sessions.get(&session).and_then(|model| model.nodes().get(&node));
        let Some(it) = found else { return Ok(Vec::new()) };
        let names: Vec<Name> = it.xattrs.keys().cloned().collect();
        let (size, is_dir, is_link) = match &it.body {
            Body::File(bytes) => (bytes.len(), false, false),
            Body::Dir(_) => (0, true, false),
            Body::Symlink(_) => (0, false, true),
            Body::Special(_) => (0, false, false),
        };
        for name in names {
            self.look(session, Call::GetXattr { node, name })?;
        }
        if is_link {
            self.look(session, Call::ReadLink { node })?;
        }
        for (offset, len) in self.stretches(size as u64, every_byte) {
            self.look(session, Call::Read { node, offset, len })?;
        }
        if !is_dir {
            return Ok(Vec::new());
        }
        let entries = self.entries(session, node)?;
        for name in entries.keys() {
            self.look(session, Call::Lookup { dir: node, name: name.clone() })?;
        }
        Ok(entries.into_values().collect())
    }

    /// What to read of a file: all, or of a large one the end and something in between.
    fn stretches(&mut self, size: u64, every_byte: bool) -> Vec<(u64, usize)> {
        if every_byte || size <= SMALL_BYTES {
            return (0..size)
                .step_by(limits::MAX_IO_BYTES)
                .map(|from| (from, limits::MAX_IO_BYTES))
                .collect();
        }
        let stretch = SMALL_BYTES as usize / 2;
        vec![(self.looks.below(size), stretch), (size - stretch as u64 / 2, stretch)]
    }

    /// Compares a listing.
    fn entries(&mut self, session: SessionNo, dir: Node) -> Result<BTreeMap<Name, Node>, Difference> {
        self.look(session, Call::ReadDir { dir })?;
        let model = self.world.sessions.get(&session).and_then(|model| model.nodes().get(&dir));
        match model.map(|it| &it.body) {
            Some(Body::Dir(names)) => Ok(names.clone()),
            _ => Ok(BTreeMap::new()),
        }
    }

    fn look(&mut self, session: SessionNo, call: Call) -> Result<(), Difference> {
        self.stats.looks += 1;
        let want = self.world.call(session, &call);
        let Some(translated) = self.numbers.subject(&call) else {
            self.look = Some((session, call));
            return differ(show(&want), "a node that no listing shows".into());
        };
        let got = self.subject.call(session, &translated);
        let same = self.numbers.same(want, got, self.features.clock);
        self.look = same.is_err().then_some((session, call));
        same
    }
}

/// What must be equal.
fn visible(attr: &Attr, times: bool) -> Attr {
    let is_dir = attr.mode & 0o170_000 == 0o040_000;
    let size = if is_dir { 0 } else { attr.size };
    let (atime_ns, mtime_ns, ctime_ns) =
        if times { (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) } else { (0, 0, 0) };
    Attr { size, atime_ns, mtime_ns, ctime_ns, ..*attr }
}

fn show(answer: &Result<Answer, Reason>) -> String {
    match answer {
        Ok(Answer::Bytes(bytes)) if bytes.len() > 64 => {
            let sum =
                bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} bytes, sum {sum:x}, starting {:?}", bytes.len(), &bytes[..16])
        }
        Ok(answer) => format!("{answer:?}"),
        Err(reason) => reason.as_str().to_owned(),
    }
}

fn differ<T>(model: String, subject: String) -> Result<T, Difference> {
    Err(Difference { model, subject })
}
