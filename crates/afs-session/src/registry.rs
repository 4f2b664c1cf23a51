//! Which sessions are in RAM, by id.
//!
//! Guarantees: an id names one session at most; an id is hashed once per call, with a key of this process, since callers choose ids; an entry
//! costs 16 bytes beside the session, which has the id. Sharded, so that unrelated sessions rarely meet; no lock is held while a session is
//! dropped or looked at by callers.

use crate::session::Session;
use afs_types::SessionId;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

const SHARDS: usize = 64;

/// A session and the hash of its id, so that a table that grows need not look at the sessions.
type Listed = (u64, Arc<Session>);
type Shard = RwLock<HashTable<Listed>>;

/// Whether an entry is the one of this id. The hash first: a table asks about entries that share seven bits of it, and their sessions are
/// not in the processor's cache.
fn is_listed(hash: u64, id: &SessionId) -> impl Fn(&Listed) -> bool {
    move |(other, session)| *other == hash && session.id() == id
}

pub(crate) struct Registry {
    shards: Vec<Shard>,
    hasher: RandomState,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }

    /// A hash of an id, for locks by id.
    pub(crate) fn hash(&self, id: &SessionId) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The high bits: a table uses the others.
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<Arc<Session>> {
        let hash = self.hash(id);
        let shard = self.shard(hash).read();
        shard.find(hash, is_listed(hash, id)).map(|(_, session)| session.clone())
    }

    /// False when the id is taken.
    pub(crate) fn insert(&self, session: Arc<Session>) -> bool {
        let hash = self.hash(session.id());
        let mut shard = self.shard(hash).write();
        match shard.entry(hash, is_listed(hash, session.id()), |(hash, _)| *hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert((hash, session));
                true
            }
        }
    }

    /// The session that has the id of this one, which is put in if there is none.
    pub(crate) fn get_or_insert(&self, session: Arc<Session>) -> Arc<Session> {
        let hash = self.hash(session.id());
        let mut shard = self.shard(hash).write();
        let listed = shard.entry(hash, is_listed(hash, session.id()), |(hash, _)| *hash);
        listed.or_insert((hash, session.clone())).get().1.clone()
    }

    /// Takes a session out if there is one that `may_go` accepts, which is called under the lock.
    pub(crate) fn remove_if(
        &self,
        id: &SessionId,
        may_go: impl FnOnce(&Arc<Session>) -> bool,
    ) -> Option<Arc<Session>> {
        let hash = self.hash(id);
        let mut shard = self.shard(hash).write();
        let found = shard.find_entry(hash, is_listed(hash, id)).ok()?;
        if !may_go(&found.get().1) {
            return None;
        }
        let ((_, session), _) = found.remove();
        drop(shard);
        Some(session)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All sessions, shard by shard.
    pub(crate) fn shards(&self) -> impl Iterator<Item = Vec<Arc<Session>>> {
        self.shards.iter().map(|shard| shard.read().iter().map(|(_, session)| session.clone()).collect())
    }
}
