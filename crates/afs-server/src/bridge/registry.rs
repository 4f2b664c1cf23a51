//! The mounts that are attached now.

use super::LEASE;
use super::events::Events;
use super::replies::{ANSWER_BYTES, Replies};
use super::resent::Names;
use super::share::Common;
use crate::reply::field;
use afs_session::{Session, WatchGuard, Who};
use afs_types::{Error, Ino, MountId, Reason, Result, limits};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Most mounts attached at once.
const MAX_MOUNTS: usize = limits::MAX_MOUNTS;
/// Bytes of changes, and of answers, that one mount can always have waiting, whatever others do: some dozens.
const OWN_EVENT_BYTES: usize = 8 << 10;
const OWN_ANSWER_BYTES: usize = 32 * (ANSWER_BYTES + 512);
/// And one answer more, to the oldest operation of a mount (`replies`).
const _: () = assert!(MAX_MOUNTS * (OWN_EVENT_BYTES + OWN_ANSWER_BYTES + ANSWER_BYTES + 512) <= 96 << 20);

/// One attached mount. Dropping it releases everything that it held open.
pub(crate) struct Mount {
    pub(crate) id: MountId,
    pub(crate) session: Arc<Session>,
    pub(crate) who: Who,
    pub(crate) read_only: bool,
    pub(crate) replies: Replies,
    /// What its changes are called in the journal.
    pub(crate) names: Names,
    pub(crate) events: Arc<Events>,
    /// The newest Sync stream; older ones end.
    pub(crate) stream: AtomicU64,
    opens: Mutex<HashMap<Ino, u32>>,
    heard: Mutex<Instant>,
    _watch: WatchGuard,
}

impl Mount {
    fn new(id: MountId, session: Arc<Session>, who: Who, read_only: bool, room: &Room) -> Self {
        let events = Arc::new(Events::new(room.events.share()));
        let (sink, arrivals) = (events.clone(), events.clone());
        let settle = Arc::new(move |patience| arrivals.settle(patience));
        let watch = session.watch(who, Arc::new(move |change| sink.push(change)), settle);
        Self {
            names: Names::of(&id),
            id,
            session,
            who,
            read_only,
            replies: Replies::new(room.answers.share()),
            events,
            stream: AtomicU64::new(0),
            opens: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            _watch: watch,
        }
    }

    /// Notes that the client is there.
    pub(crate) fn renew(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// Keeps an inode alive until the mount releases it or ends.
    pub(crate) fn open(&self, ino: Ino) -> Result<()> {
        self.session.open(ino)?;
        *self.opens.lock().entry(ino).or_insert(0) += 1;
        Ok(())
    }

    /// Ends one `open` of this mount.
    pub(crate) fn release(&self, ino: Ino) -> Result<()> {
        let mut opens = self.opens.lock();
        let count = opens
            .get_mut(&ino)
            .ok_or_else(|| Error::new(Reason::Stale, format!("inode {ino} is not open in {}", self.id)))?;
        *count -= 1;
        if *count == 0 {
            opens.remove(&ino);
        }
        drop(opens);
        self.session.release(ino)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for (ino, count) in std::mem::take(&mut *self.opens.lock()) {
            for _ in 0..count {
                if let Err(error) = self.session.release(ino) {
                    tracing::warn!(mount = %self.id, ino, ?error, "release an inode of a mount that ended");
                }
            }
        }
    }
}

/// Memory that all mounts share.
struct Room {
    events: Arc<Common>,
    answers: Arc<Common>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            events: Common::new(limits::MAX_WATCH_BYTES, OWN_EVENT_BYTES),
            answers: Common::new(limits::MAX_KEPT_ANSWERS_BYTES, OWN_ANSWER_BYTES),
        }
    }
}

/// All attached mounts.
#[derive(Default)]
pub(crate) struct Registry {
    room: Room,
    mounts: Mutex<HashMap<MountId, Arc<Mount>>>,
    streams: AtomicU64,
}

impl Registry {
    pub(crate) fn attach(
        &self,
        id: MountId,
        session: Arc<Session>,
        who: Who,
        read_only: bool,
    ) -> Result<Arc<Mount>> {
        // Before the lock: watching waits for the session's.
        let mount = Arc::new(Mount::new(id.clone(), session, who, read_only, &self.room));
        let mut mounts = self.mounts.lock();
        if mounts.len() >= MAX_MOUNTS {
            return Err(Error::new(Reason::QuotaExceeded, format!("{MAX_MOUNTS} mounts are attached"))
                .with("limit", MAX_MOUNTS.to_string())
                .next("unmount one"));
        }
        mounts.insert(id, mount.clone());
        Ok(mount)
    }

    /// An attached mount; counts as a sign of life.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Mount>> {
        let id = field("mount_id", MountId::parse(id))?;
        let mount = self.mounts.lock().get(&id).cloned().ok_or_else(|| id.not_found())?;
        mount.renew();
        Ok(mount)
    }

    /// Ends a mount.
    pub(crate) fn detach(&self, id: &MountId) -> Option<Arc<Mount>> {
        self.mounts.lock().remove(id)
    }

    /// Ends mounts that were silent for longer than their lease.
    pub(crate) fn expire(&self) {
        let silent: Vec<Arc<Mount>> = {
            let mut mounts = self.mounts.lock();
            mounts.extract_if(|_, m| m.heard.lock().elapsed() > LEASE).map(|(_, m)| m).collect()
        };
        for mount in silent {
            tracing::info!(mount = %mount.id, session = %mount.session.id(), "a mount was silent and has ended");
            mount.events.arrived.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.mounts.lock().len()
    }

    pub(crate) fn is_attached(&self, id: &MountId) -> bool {
        self.mounts.lock().contains_key(id)
    }

    /// A number for a new Sync stream.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }
}
