//! Walks over one tree ([`Range`]) or two ([`Diff`]), in key order, without allocation.

use super::{Child, MAX_DEPTH, Node, child_of, find};
use std::cmp::Ordering;
use std::ops::Bound;

/// A place between two entries of a tree: what is left of the leaf, and of each inner node above it.
pub(super) struct Cursor<'a, K, V> {
    leaf: &'a [(K, V)],
    above: [&'a [Child<K, V>]; MAX_DEPTH],
    depth: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    pub(super) fn at_start(root: &'a Node<K, V>) -> Self {
        let mut cursor = Self { leaf: &[], above: [&[]; MAX_DEPTH], depth: 0 };
        cursor.enter(root);
        cursor
    }

    /// Before the first entry that is `>= key`, or `> key`.
    pub(super) fn at(root: &'a Node<K, V>, key: &K, after: bool) -> Self
    where
        K: Ord,
    {
        let mut cursor = Self { leaf: &[], above: [&[]; MAX_DEPTH], depth: 0 };
        let mut node = root;
        while let Node::Inner(children) = node {
            let at = child_of(children, key);
            cursor.push(&children[at + 1..]);
            node = &children[at].node;
        }
        if let Node::Leaf(entries) = node {
            let from = match find(entries, key) {
                Ok(at) if after => at + 1,
                Ok(at) | Err(at) => at,
            };
            cursor.leaf = &entries[from..];
        }
        cursor
    }

    fn push(&mut self, children: &'a [Child<K, V>]) {
        self.above[self.depth] = children;
        self.depth += 1;
    }

    fn enter(&mut self, node: &'a Node<K, V>) {
        match node {
            Node::Leaf(entries) => self.leaf = entries,
            Node::Inner(children) => self.push(children),
        }
    }

    /// The subtree that comes next, once the leaf is used up.
    fn node(&mut self) -> Option<&'a Node<K, V>> {
        while self.depth > 0 {
            if let Some(child) = self.above[self.depth - 1].first() {
                return Some(&child.node);
            }
            self.depth -= 1;
        }
        None
    }

    /// Steps over the subtree that [`Cursor::node`] returned.
    fn skip(&mut self) {
        self.above[self.depth - 1] = &self.above[self.depth - 1][1..];
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        loop {
            if let Some((entry, rest)) = self.leaf.split_first() {
                self.leaf = rest;
                return Some(entry);
            }
            let node = self.node()?;
            self.skip();
            self.enter(node);
        }
    }
}

/// Entries of a map in key order.
pub struct Range<'a, K, V> {
    cursor: Cursor<'a, K, V>,
    end: Bound<K>,
}

impl<'a, K, V> Range<'a, K, V> {
    pub(super) fn new(cursor: Cursor<'a, K, V>, end: Bound<K>) -> Self {
        Self { cursor, end }
    }
}

impl<'a, K: Ord, V> Iterator for Range<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.cursor.next()?;
        let inside = match &self.end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        if !inside {
            self.cursor = Cursor { leaf: &[], above: [&[]; MAX_DEPTH], depth: 0 };
            return None;
        }
        Some((key, value))
    }
}

/// Entries in which two maps may differ, in key order: key, value in the first, value in the second.
pub struct Diff<'a, K, V> {
    left: Side<'a, K, V>,
    right: Side<'a, K, V>,
}

/// A cursor that enters subtrees only when told, so that a shared one can be stepped over.
struct Side<'a, K, V> {
    root: Option<&'a Node<K, V>>,
    cursor: Cursor<'a, K, V>,
    height: usize,
}

/// What comes next on one side.
enum Head<'a, K, V> {
    Entry(&'a (K, V)),
    Node(&'a Node<K, V>),
    End,
}

impl<'a, K, V> Side<'a, K, V> {
    fn new(root: &'a Node<K, V>) -> Self {
        let (mut height, mut node) = (1, root);
        while let Node::Inner(children) = node {
            height += 1;
            node = &children[0].node;
        }
        Self { root: Some(root), cursor: Cursor { leaf: &[], above: [&[]; MAX_DEPTH], depth: 0 }, height }
    }

    fn head(&mut self) -> Head<'a, K, V> {
        if let Some(entry) = self.cursor.leaf.first() {
            return Head::Entry(entry);
        }
        match self.root.or_else(|| self.cursor.node()) {
            Some(node) => Head::Node(node),
            None => Head::End,
        }
    }

    /// Levels at and below the subtree that is the head.
    fn level(&self) -> usize {
        self.height - self.cursor.depth
    }

    fn step_over(&mut self) {
        if !self.cursor.leaf.is_empty() {
            self.cursor.leaf = &self.cursor.leaf[1..];
        } else if self.root.take().is_none() {
            self.cursor.skip();
        }
    }

    fn step_into(&mut self, node: &'a Node<K, V>) {
        self.step_over();
        self.cursor.enter(node);
    }
}

impl<'a, K: Ord, V> Diff<'a, K, V> {
    pub(super) fn new(left: &'a Node<K, V>, right: &'a Node<K, V>) -> Self {
        Self { left: Side::new(left), right: Side::new(right) }
    }

    fn only_left(&mut self, entry: &'a (K, V)) -> DiffItem<'a, K, V> {
        self.left.step_over();
        (&entry.0, Some(&entry.1), None)
    }

    fn only_right(&mut self, entry: &'a (K, V)) -> DiffItem<'a, K, V> {
        self.right.step_over();
        (&entry.0, None, Some(&entry.1))
    }

    fn entries(&mut self, a: &'a (K, V), b: &'a (K, V)) -> DiffItem<'a, K, V> {
        match a.0.cmp(&b.0) {
            Ordering::Less => self.only_left(a),
            Ordering::Greater => self.only_right(b),
            Ordering::Equal => {
                self.left.step_over();
                self.right.step_over();
                (&a.0, Some(&a.1), Some(&b.1))
            }
        }
    }

    /// Steps over a shared subtree, or into the one that starts first; into the higher one if both start
    /// with the same key, so that a subtree that grew a parent still meets its twin.
    fn nodes(&mut self, a: &'a Node<K, V>, b: &'a Node<K, V>) {
        if a.ptr_eq(b) {
            self.left.step_over();
            self.right.step_over();
            return;
        }
        let order = first_key(a).cmp(&first_key(b)).then(self.right.level().cmp(&self.left.level()));
        if order.is_le() {
            self.left.step_into(a);
        }
        if order.is_ge() {
            self.right.step_into(b);
        }
    }
}

type DiffItem<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<'a, K: Ord, V> Iterator for Diff<'a, K, V> {
    type Item = DiffItem<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match (self.left.head(), self.right.head()) {
                (Head::End, Head::End) => return None,
                (Head::Entry(a), Head::Entry(b)) => return Some(self.entries(a, b)),
                (Head::Entry(a), Head::End) => return Some(self.only_left(a)),
                (Head::End, Head::Entry(b)) => return Some(self.only_right(b)),
                (Head::Entry(a), Head::Node(b)) => match first_key(b) {
                    Some(first) if a.0 < *first => return Some(self.only_left(a)),
                    _ => self.right.step_into(b),
                },
                (Head::Node(a), Head::Entry(b)) => match first_key(a) {
                    Some(first) if b.0 < *first => return Some(self.only_right(b)),
                    _ => self.left.step_into(a),
                },
                (Head::Node(a), Head::Node(b)) => self.nodes(a, b),
                (Head::Node(a), Head::End) => self.left.step_into(a),
                (Head::End, Head::Node(b)) => self.right.step_into(b),
            }
        }
    }
}

fn first_key<K, V>(node: &Node<K, V>) -> Option<&K> {
    node.first().map(|entry| &entry.0)
}
