//! A delta: the entries by which a layer changes the tree below it.
//!
//! Guarantees: `apply(tree at parent, delta(parent, child)) = tree at child`; merging two deltas in order gives the delta of
//! both. The byte form carries a version and a BLAKE3 checksum (16 bytes) of everything before it; damage is `CORRUPT`.
//! Deliberately absent: the decision when to fold or merge (the engine's), and where deltas are kept.

use crate::codec::{Dec, Enc};
use crate::tree::{Inode, Packed, Slot, Tree};
use afs_types::{Ino, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changed entries; none means removed.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Inodes of the overlay.
    pub inodes: BTreeMap<Ino, Option<Inode>>,
    /// Dentry slots of the overlay.
    pub dentries: BTreeMap<(Ino, u64), Option<Slot>>,
}

const VERSION: u8 = 1;
const SUM: usize = 16;

impl Delta {
    /// What changed from `old` to `new`, two instants over the same base. Costs the changes when they share nodes.
    pub fn between(old: &Tree, new: &Tree) -> Self {
        // Neighbours in a node of the map that changed come up, too, and would be written again with each layer.
        let inodes = old.inodes().diff(new.inodes()).filter(|(_, was, is)| was != is);
        let dentries = old.dentries().diff(new.dentries()).filter(|(_, was, is)| was != is);
        Self {
            inodes: inodes.map(|(ino, _, is)| (*ino, is.map(Packed::record))).collect(),
            dentries: dentries.map(|(key, _, is)| (*key, is.cloned())).collect(),
        }
    }
    /// Changes a tree.
    pub fn apply(self, tree: &mut Tree) {
        for (ino, inode) in self.inodes {
            tree.put_inode(ino, inode);
        }
        for (key, slot) in self.dentries {
            tree.put_slot(key, slot);
        }
    }
    /// This delta, then `newer`.
    pub fn then(mut self, newer: Self) -> Self {
        self.inodes.extend(newer.inodes);
        self.dentries.extend(newer.dentries);
        self
    }
    /// Entries.
    pub fn len(&self) -> usize {
        self.inodes.len() + self.dentries.len()
    }
    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The byte form.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Enc::new();
        e.u8(VERSION).u64(self.inodes.len() as u64);
        for (ino, inode) in &self.inodes {
            e.u64(*ino).opt(inode.as_ref(), |e, i| i.encode(e));
        }
        e.u64(self.dentries.len() as u64);
        for ((dir, hash), slot) in &self.dentries {
            e.u64(*dir);
            e.out.extend_from_slice(&hash.to_le_bytes());
            e.opt(slot.as_ref(), encode_slots);
        }
        let sum = blake3::hash(&e.out);
        e.out.extend_from_slice(&sum.as_bytes()[..SUM]);
        e.out
    }

    /// Reads a delta back.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Dec::new(bytes, "delta");
        let (body, sum) = bytes.split_last_chunk::<SUM>().ok_or_else(|| d.corrupt("it is too short"))?;
        if blake3::hash(body).as_bytes()[..SUM] != sum[..] {
            return Err(d.corrupt("its checksum is wrong"));
        }
        d = Dec::new(body, "delta");
        let version = d.u8()?;
        if version != VERSION {
            return Err(d.corrupt(&format!("it has version {version}, this server reads {VERSION}")));
        }
        let mut delta = Self::default();
        for _ in 0..d.count()? {
            let ino = d.u64()?;
            delta.inodes.insert(ino, d.opt(Inode::decode)?);
        }
        for _ in 0..d.count()? {
            let dir = d.u64()?;
            let hash = d.u64_fixed()?;
            delta.dentries.insert((dir, hash), d.opt(decode_slots)?);
        }
        d.end().map(|()| delta)
    }
}

fn encode_slots(e: &mut Enc, slot: &Slot) {
    e.u64(slot.chain().count() as u64);
    for s in slot.chain() {
        e.u64(s.ino).bytes(&s.name);
    }
}

fn decode_slots(d: &mut Dec<'_>) -> Result<Slot> {
    let mut all = Vec::new();
    for _ in 0..d.count()? {
        all.push((d.u64()?, d.bytes()?.into()));
    }
    let chain = all
        .into_iter()
        .rev()
        .fold(None, |next: Option<Slot>, (ino, name)| Some(Slot { ino, name, next: next.map(Arc::new) }));
    chain.ok_or_else(|| d.corrupt("a slot is empty"))
}
