//! Layers: how a session's tree is kept on disk and comes back (design note 0001).
//!
//! Guarantees: a layer never changes meaning once it has a child; folding and merging replace the form, not the content, in one
//! atomic batch; `load(layer)` is the same tree whatever was folded, also while it is being folded. No layer is folded twice. Work is
//! O(changes). Closed layers that nobody folded (the queue was full, the server stopped) are folded when they are loaded.
//! Deliberately absent: deletion of layers that nothing reaches (a sweep does that).

use crate::family::Family;
use crate::overlays::{COPIED_BYTES, Share};
use crate::past::Past;
use crate::records::{LayerRec, Stored, layer_key, op_key};
use crate::seal::seal_delta;
use crate::segments;
use crate::session::{Cut, FoldJob, apply_seals};
use crate::shared::Shared;
use afs_core::delta::Delta;
use afs_core::op::Record;
use afs_core::tree::Tree;
use afs_store::{Batch, Position, Space};
use afs_types::{Error, LayerId, Reason, Result};
use std::ops::ControlFlow;
use std::sync::Weak;

/// A tree as it came from the journal.
pub(crate) struct Loaded {
    pub(crate) tree: Tree,
    /// Sequence number of its last operation.
    pub(crate) seq: u64,
    /// The tree at the start of the newest layer, and the sequence number there.
    pub(crate) below: (Tree, u64),
    /// Layers between it and the base.
    pub(crate) depth: u32,
    /// What mounts did before this start, as far as the records say it.
    pub(crate) past: Past,
}

impl Shared {
    pub(crate) fn layer(&self, layer: LayerId) -> Result<LayerRec> {
        self.read(Space::Layer, &layer_key(layer))?.ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("layer {} is missing", layer.0))
                .next("restore the data directory from a backup; other sessions are not affected")
        })
    }

    /// The tree at the end of a layer, from the journal. `closed`: nothing is appended to it any more.
    pub(crate) fn load(&self, family: &Family, layer: LayerId, closed: bool) -> Result<Loaded> {
        loop {
            // Each turn more than the first means that a layer was folded meanwhile, which happens to it once.
            if let Some(loaded) = self.try_load(family, layer, closed)? {
                return Ok(loaded);
            }
        }
    }

    /// None: a layer was folded between the looks at its record and at its operations.
    fn try_load(&self, family: &Family, layer: LayerId, closed: bool) -> Result<Option<Loaded>> {
        let mut chain = Vec::new();
        let mut at = layer;
        while at.0 != 0 {
            let record = self.layer(at)?;
            chain.push((at, record));
            at = record.delta_parent.unwrap_or(record.parent);
        }
        let base = Tree::new(family.base.clone());
        let depth = chain.first().map_or(0, |(_, r)| r.depth);
        let mut loaded =
            Loaded { tree: base.clone(), seq: 0, below: (base, 0), depth, past: Past::default() };
        let mut unfolded = Vec::new();
        for (id, record) in chain.into_iter().rev() {
            match record.delta_parent {
                Some(_) => loaded.past.restart(record.seq),
                None => loaded.past.follow(loaded.seq, record.seq),
            }
            loaded.seq = record.seq;
            loaded.below = (loaded.tree.clone(), record.seq);
            if record.delta_parent.is_some() {
                self.delta(id)?.0.apply(&mut loaded.tree);
                continue;
            }
            self.replay(id, &mut loaded)?;
            // Folding replaces the operations by a delta in one batch: if it did, what was replayed may be nothing.
            if self.layer(id)?.delta_parent.is_some() {
                return Ok(None);
            }
            if closed || id != layer {
                let Loaded { seq, ref tree, .. } = loaded;
                let cut = Cut { layer: id, depth: record.depth, seq, tree: tree.clone(), share: None };
                unfolded.push(Box::new(FoldJob {
                    below: loaded.below.0.clone(),
                    cut,
                    after: Position::default(),
                    session: Weak::new(),
                }));
            }
        }
        // Not kept for forks of their instants: nobody has counted them.
        unfolded.into_iter().for_each(|job| self.queue_uncounted(job));
        Ok(Some(loaded))
    }

    /// Applies the records of a layer that were not folded.
    fn replay(&self, layer: LayerId, loaded: &mut Loaded) -> Result<()> {
        let (from, to) = (op_key(layer, 0), op_key(LayerId(layer.0 + 1), 0));
        let Loaded { tree, seq, past, .. } = loaded;
        self.ports.journal.scan(Space::Record, &from, Some(&to), &mut |key, value| {
            let at = key.last_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
            if at != *seq + 1 {
                return Err(Error::new(
                    Reason::Corrupt,
                    format!("layer {} has record {at} after {seq}: one is missing", layer.0),
                ));
            }
            let record = Record::decode(value)?;
            past.note(&record, at, self.epoch);
            tree.apply(&record.op, at);
            *seq = at;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// A layer's delta, and how many bytes it has in the journal.
    fn delta(&self, layer: LayerId) -> Result<(Delta, usize)> {
        let bytes = self.ports.journal.get(Space::Delta, &layer_key(layer))?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("the delta of layer {} is missing", layer.0))
        })?;
        let delta = Delta::decode(&bytes).map_err(|e| e.with("layer", layer.0.to_string()))?;
        Ok((delta, bytes.len()))
    }

    /// Replaces the records of a closed layer by a delta, merged with deltas below it that are not much larger, so that
    /// a chain of n layers has O(log n) deltas to apply; and seals the bytes that it names. Returns how many bytes were sealed. A delta
    /// beyond what the journal takes is refused there: then the layer stays as records.
    pub(crate) fn fold(&self, job: &FoldJob) -> Result<u64> {
        self.wait(job.after)?;
        let layer = job.cut.layer;
        let mut folded = self.background.folded.lock();
        let durable = self.ports.journal.durable();
        folded.retain(|(at, _)| *at > durable);
        let mut record = self.layer(layer)?;
        if record.delta_parent.is_some() || folded.iter().any(|(_, id)| *id == layer) {
            return Ok(0);
        }
        let (mut delta, down) = self.merged(Delta::between(&job.below, &job.cut.tree), record.parent)?;
        let (sealed, bytes) = seal_delta(&mut delta, &self.ports.blobs, || self.background.stopping());
        let first = record.seq;
        record.delta_parent = Some(down);
        record.entries = delta.len() as u64;
        record.seq = job.cut.seq;
        let mut batch = Batch::new();
        batch.put_with(Space::Layer, layer_key(layer), |e| record.encode_to(e));
        batch.delete_range(Space::Record, op_key(layer, first), op_key(LayerId(layer.0 + 1), 0));
        segments::renote(self, layer, &delta, &mut batch)?;
        // Last, so that what comes behind it does not make the buffer grow once more.
        batch.put(Space::Delta, layer_key(layer), delta.encode());
        let at = self.submit(batch)?;
        folded.push_back((at, layer));
        drop(folded);
        if !sealed.is_empty() {
            let mut tree = job.cut.tree.clone();
            apply_seals(&mut tree, &sealed);
            let Cut { depth, seq, .. } = job.cut;
            let copied = COPIED_BYTES.saturating_mul(sealed.len() as u64);
            let grown = tree.overlay_bytes().saturating_sub(job.cut.tree.overlay_bytes());
            let share = Some(Share::on(job.cut.share.clone(), copied + grown, &self.overlays));
            let cut = Cut { layer, depth, seq, tree, share };
            self.trees.replace(cut.clone());
            if let Some(session) = job.session.upgrade() {
                session.adopt(&sealed, &job.cut.tree, &cut);
            }
        }
        Ok(bytes)
    }

    /// A delta with those of the layers below that are not much larger, and the layer that it stands on. Entries can be long (extended
    /// attributes, files of many pieces), so that their bytes are bounded, too: merging must not make what cannot be written.
    fn merged(&self, mut delta: Delta, mut down: LayerId) -> Result<(Delta, LayerId)> {
        let mut bytes = delta.encode().len();
        while down.0 != 0 {
            let under = self.layer(down)?;
            let Some(next) = under.delta_parent else { break };
            if under.entries > 4 * delta.len() as u64 {
                break;
            }
            let (lower, lower_bytes) = self.delta(down)?;
            bytes += lower_bytes;
            if bytes > self.config.merged_delta_bytes {
                break;
            }
            delta = lower.then(delta);
            down = next;
        }
        Ok((delta, down))
    }
}
