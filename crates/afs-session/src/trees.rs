//! Trees at the end of closed layers, kept so that forks of an instant need not load it.
//!
//! Guarantees: bounded by entries of overlays ([`MAX_ENTRIES`]) and by time; what leaves the cache is let go of there and then. Deliberately absent: any
//! promise that something is there.

use crate::session::Cut;
use afs_types::LayerId;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Overlay entries of all trees that are kept; they share most of them, so this is the worst case of some 250 MB.
const MAX_ENTRIES: u64 = 1 << 20;
/// A tree that nobody asked for goes after this time.
const IDLE: Duration = Duration::from_secs(600);

/// The cache forgets entries at once and drops them when its readers have moved on, which may be much later: what is large is taken out of an entry that leaves.
struct Kept {
    cut: Mutex<Option<Cut>>,
    weight: u32,
}

pub(crate) struct Trees(Cache<LayerId, Arc<Kept>>);

impl Default for Trees {
    fn default() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_ENTRIES)
            .weigher(|_, kept: &Arc<Kept>| kept.weight)
            .time_to_idle(IDLE)
            .eviction_listener(|_, kept, _| drop(kept.cut.lock().take()));
        Self(cache.build())
    }
}

impl Trees {
    pub(crate) fn get(&self, layer: LayerId) -> Option<Cut> {
        self.0.get(&layer)?.cut.lock().clone()
    }

    pub(crate) fn insert(&self, cut: Cut) {
        let weight = u32::try_from(cut.tree.overlay_len()).unwrap_or(u32::MAX).saturating_add(8);
        self.0.insert(cut.layer, Arc::new(Kept { cut: Mutex::new(Some(cut)), weight }));
    }

    /// Puts another form of the same instant there, if it is there.
    pub(crate) fn replace(&self, cut: Cut) {
        if self.0.contains_key(&cut.layer) {
            self.insert(cut);
        }
    }

    /// Lets go of what nobody has asked for in time.
    pub(crate) fn tidy(&self) {
        self.0.run_pending_tasks();
    }

    /// Lets go of all.
    pub(crate) fn forget(&self) {
        for (_, kept) in &self.0 {
            drop(kept.cut.lock().take());
        }
        self.0.invalidate_all();
        self.0.run_pending_tasks();
    }
}
