//! A persistent ordered map: a B+-tree whose nodes are exact-size `Arc<[_]>` slices.
//!
//! Guarantees: `clone` copies one `Arc` and never the entries; a write to one clone is never seen by another;
//! nodes that only one map owns are changed in place, others are copied along one path; a map of one small
//! entry costs one allocation of its size; `diff` skips every node that both maps share.
//!
//! Deliberately absent: interior mutability, removal of stale separators (they stay valid bounds, so lookups
//! need no more), and any promise about the shape of the tree. `V` should be small: it is copied with its leaf.
//!
//! Shape: all leaves have the same depth; every node but the root holds [`MIN`]..=[`FAN`] items. In an inner
//! node, the keys below child `i > 0` are `>= children[i].key` and below `children[i + 1].key`; the key of
//! child 0 means nothing inside its node.

mod cursor;
#[cfg(test)]
mod tests;

use cursor::Cursor;
use std::fmt;
use std::iter::once;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

pub use cursor::{Diff, Range};

/// Most items of a node.
const FAN: usize = 16;
/// Fewest items of a node that is not the root. Below half of [`FAN`], so that a removal next to an insertion
/// does not split and merge the same node again and again.
const MIN: usize = 6;
/// More levels than any map that fits in memory has: `2 * MIN^15` is 940 billion entries.
const MAX_DEPTH: usize = 16;

/// A persistent ordered map. See the module's header.
pub struct PMap<K, V> {
    root: Node<K, V>,
    len: usize,
}

enum Node<K, V> {
    Leaf(Arc<[(K, V)]>),
    Inner(Arc<[Child<K, V>]>),
}

struct Child<K, V> {
    key: K,
    node: Node<K, V>,
}

impl<K, V> PMap<K, V> {
    /// An empty map; allocates nothing.
    pub fn new() -> Self {
        Self { root: Node::Leaf(Arc::default()), len: 0 }
    }
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether both maps are one and the same tree, so that they are equal without a look at the entries.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.root.ptr_eq(&other.root)
    }
    /// Bytes of all nodes, those shared with other maps included; what the values own is not counted.
    pub fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }
    /// All entries in key order.
    pub fn iter(&self) -> Range<'_, K, V>
    where
        K: Ord,
    {
        Range::new(Cursor::at_start(&self.root), Bound::Unbounded)
    }
    /// The first entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.root.first().map(pair)
    }
    /// The last entry.
    pub fn last(&self) -> Option<(&K, &V)> {
        self.root.last().map(pair)
    }
}

impl<K: Ord + Clone, V: Clone> PMap<K, V> {
    /// The value at a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(children) => node = &children[child_of(children, key)].node,
                Node::Leaf(entries) => {
                    let at = find(entries, key).ok()?;
                    return Some(&entries[at].1);
                }
            }
        }
    }
    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
    /// The value at a key, to be changed in place; nodes shared with other maps are copied first.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // A miss must not copy the path.
        self.get(key)?;
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    node = &mut Arc::make_mut(children)[at].node;
                }
                Node::Leaf(entries) => {
                    let at = find(entries, key).ok()?;
                    return Some(&mut Arc::make_mut(entries)[at].1);
                }
            }
        }
    }
    /// Sets the value at a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.root.insert(key, value) {
            Inserted::Replaced(old) => return Some(old),
            Inserted::Added => {}
            Inserted::Split(right) => self.grow(right),
        }
        self.len += 1;
        None
    }
    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // A miss must not copy the path.
        self.get(key)?;
        let old = self.root.remove(key)?;
        self.len -= 1;
        while let Node::Inner(children) = &self.root
            && let [only] = &children[..]
        {
            self.root = only.node.clone();
        }
        Some(old)
    }
    /// The entries whose keys lie in a range, in key order. An inverted range is empty.
    pub fn range(&self, range: impl RangeBounds<K>) -> Range<'_, K, V> {
        let from = match range.start_bound() {
            Bound::Unbounded => Cursor::at_start(&self.root),
            Bound::Included(key) => Cursor::at(&self.root, key, false),
            Bound::Excluded(key) => Cursor::at(&self.root, key, true),
        };
        Range::new(from, range.end_bound().cloned())
    }
    /// The last entry whose key is `<= key`.
    pub fn floor(&self, key: &K) -> Option<(&K, &V)> {
        self.root.last_until(key, true).map(pair)
    }
    /// The last entry whose key is `< key`.
    pub fn below(&self, key: &K) -> Option<(&K, &V)> {
        self.root.last_until(key, false).map(pair)
    }
    /// The entries in which `other` may differ from `self`, in key order: key, value here, value there.
    ///
    /// Costs in proportion to the nodes that are not shared. A pair of equal values may come up (its
    /// neighbour in the leaf changed): the caller compares values if it matters.
    pub fn diff<'a>(&'a self, other: &'a Self) -> Diff<'a, K, V> {
        Diff::new(&self.root, &other.root)
    }

    fn grow(&mut self, right: Child<K, V>) {
        // The left half's key means nothing at position 0, any key will do.
        let left = Child { key: right.key.clone(), node: self.root.clone() };
        self.root = Node::Inner([left, right].into());
    }
}

enum Inserted<K, V> {
    Replaced(V),
    Added,
    Split(Child<K, V>),
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner(children) => children.len(),
        }
    }
    fn ptr_eq(&self, other: &Self) -> bool {
        match (self, other) {
            // Empty slices may all have one address, or each its own: equal either way.
            (Node::Leaf(a), Node::Leaf(b)) => Arc::ptr_eq(a, b) || (a.is_empty() && b.is_empty()),
            (Node::Inner(a), Node::Inner(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
    fn heap_bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        match self {
            Node::Leaf(entries) if entries.is_empty() => 0,
            Node::Leaf(entries) => COUNTS + size_of_val(&entries[..]),
            Node::Inner(children) => {
                let below: usize = children.iter().map(|c| c.node.heap_bytes()).sum();
                COUNTS + size_of_val(&children[..]) + below
            }
        }
    }
    fn first(&self) -> Option<&(K, V)> {
        match self {
            Node::Leaf(entries) => entries.first(),
            Node::Inner(children) => children.first()?.node.first(),
        }
    }
    fn last(&self) -> Option<&(K, V)> {
        match self {
            Node::Leaf(entries) => entries.last(),
            Node::Inner(children) => children.last()?.node.last(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn last_until(&self, key: &K, inclusive: bool) -> Option<&(K, V)> {
        match self {
            Node::Leaf(entries) => {
                let end = match find(entries, key) {
                    Ok(at) if inclusive => at + 1,
                    Ok(at) | Err(at) => at,
                };
                entries[..end].last()
            }
            Node::Inner(children) => {
                let at = child_of(children, key);
                let found = children[at].node.last_until(key, inclusive);
                // The child may have lost the entries its separator was made for: then it is the child before.
                found.or_else(|| children[..at].last()?.node.last())
            }
        }
    }

    fn insert(&mut self, key: K, value: V) -> Inserted<K, V> {
        match self {
            Node::Leaf(entries) => match find(entries, &key) {
                Ok(at) => Inserted::Replaced(std::mem::replace(&mut Arc::make_mut(entries)[at].1, value)),
                Err(at) => match insert_item(entries, at, (key, value)) {
                    None => Inserted::Added,
                    Some(right) => {
                        Inserted::Split(Child { key: right[0].0.clone(), node: Node::Leaf(right) })
                    }
                },
            },
            Node::Inner(children) => {
                let at = child_of(children, &key);
                match Arc::make_mut(children)[at].node.insert(key, value) {
                    Inserted::Split(child) => match insert_item(children, at + 1, child) {
                        None => Inserted::Added,
                        Some(right) => {
                            Inserted::Split(Child { key: right[0].key.clone(), node: Node::Inner(right) })
                        }
                    },
                    done => done,
                }
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Node::Leaf(entries) => {
                let at = find(entries, key).ok()?;
                let old = entries[at].1.clone();
                *entries = without(entries, at);
                Some(old)
            }
            Node::Inner(children) => {
                let at = child_of(children, key);
                let owned = Arc::make_mut(children);
                let old = owned[at].node.remove(key)?;
                if owned[at].node.len() < MIN && owned.len() > 1 {
                    fill(children, at);
                }
                Some(old)
            }
        }
    }
}

/// Brings child `at`, which holds too few items, together with a neighbour: as one node, or two even ones.
fn fill<K: Ord + Clone, V: Clone>(children: &mut Arc<[Child<K, V>]>, at: usize) {
    let left = at.saturating_sub(1);
    let right = left + 1;
    let owned = Arc::make_mut(children);
    let second = match (&owned[left].node, &owned[right].node) {
        (Node::Leaf(a), Node::Leaf(b)) => {
            let (first, second) = even(a, b.iter().cloned());
            owned[left].node = Node::Leaf(first);
            second.map(|items| Child { key: items[0].0.clone(), node: Node::Leaf(items) })
        }
        (Node::Inner(a), Node::Inner(b)) => {
            // The first key of a node means nothing inside it; the parent's separator is the true bound.
            let head = Child { key: owned[right].key.clone(), node: b[0].node.clone() };
            let (first, second) = even(a, once(head).chain(b[1..].iter().cloned()));
            owned[left].node = Node::Inner(first);
            second.map(|items| Child { key: items[0].key.clone(), node: Node::Inner(items) })
        }
        // Leaves all have the same depth.
        _ => return,
    };
    match second {
        Some(child) => owned[right] = child,
        None => *children = without(children, right),
    }
}

fn even<T: Clone>(left: &[T], right: impl Iterator<Item = T>) -> (Arc<[T]>, Option<Arc<[T]>>) {
    let mut all = Vec::with_capacity(2 * FAN);
    all.extend_from_slice(left);
    all.extend(right);
    if all.len() <= FAN {
        return (all.into(), None);
    }
    let second = all.split_off(all.len() / 2);
    (all.into(), Some(second.into()))
}

/// Inserts an item into a node; a full node keeps its first part and returns the second.
fn insert_item<T: Clone>(items: &mut Arc<[T]>, at: usize, item: T) -> Option<Arc<[T]>> {
    if items.len() < FAN {
        *items = with(&items[..at], item, &items[at..]);
        return None;
    }
    // Keys that come in order leave full nodes behind.
    let mid = match at {
        0 => MIN,
        FAN => FAN + 1 - MIN,
        _ => FAN / 2,
    };
    let (first, second): (Arc<[T]>, Arc<[T]>) = if at < mid {
        (with(&items[..at], item, &items[at..mid - 1]), items[mid - 1..].into())
    } else {
        (items[..mid].into(), with(&items[mid..at], item, &items[at..]))
    };
    *items = first;
    Some(second)
}

fn with<T: Clone>(before: &[T], item: T, after: &[T]) -> Arc<[T]> {
    before.iter().cloned().chain(once(item)).chain(after.iter().cloned()).collect()
}

fn without<T: Clone>(items: &[T], at: usize) -> Arc<[T]> {
    items[..at].iter().chain(&items[at + 1..]).cloned().collect()
}

fn child_of<K: Ord, V>(children: &[Child<K, V>], key: &K) -> usize {
    children[1..].partition_point(|child| child.key <= *key)
}

fn find<K: Ord, V>(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
    entries.binary_search_by(|(k, _)| k.cmp(key))
}

fn pair<K, V>(entry: &(K, V)) -> (&K, &V) {
    (&entry.0, &entry.1)
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Node::Leaf(entries) => Node::Leaf(entries.clone()),
            Node::Inner(children) => Node::Inner(children.clone()),
        }
    }
}

impl<K: Clone, V> Clone for Child<K, V> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), node: self.node.clone() }
    }
}

impl<K, V> Clone for PMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for PMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for PMap<K, V> {
    /// Builds full nodes in one pass when the keys come in strictly growing order; else inserts one by one.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        if entries.is_sorted_by(|a, b| a.0 < b.0) {
            return Self { len: entries.len(), root: build(entries) };
        }
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

fn build<K: Clone, V: Clone>(entries: Vec<(K, V)>) -> Node<K, V> {
    if entries.len() <= FAN {
        return Node::Leaf(entries.into());
    }
    let leaf = |part: &[(K, V)]| Child { key: part[0].0.clone(), node: Node::Leaf(part.into()) };
    let mut level: Vec<Child<K, V>> = parts(&entries).map(leaf).collect();
    while level.len() > FAN {
        let inner = |part: &[Child<K, V>]| Child { key: part[0].key.clone(), node: Node::Inner(part.into()) };
        level = parts(&level).map(inner).collect();
    }
    Node::Inner(level.into())
}

/// Cuts a level into the fewest nodes, all of nearly the same size.
fn parts<T>(items: &[T]) -> impl Iterator<Item = &[T]> {
    let (len, count) = (items.len(), items.len().div_ceil(FAN));
    (0..count).map(move |i| &items[i * len / count..(i + 1) * len / count])
}

impl<'a, K: Ord, V> IntoIterator for &'a PMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Range<'a, K, V>;
    fn into_iter(self) -> Range<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for PMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: Ord, V: Eq> Eq for PMap<K, V> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for PMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
