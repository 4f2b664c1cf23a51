//! The client side of one mount: attached to a session, told of changes by others, and alive across lost connections.
//!
//! One task keeps the Sync stream. While the stream stands, calls go out; while it does not, they wait for it,
//! each at most for [`MountOptions::patience`]. Once it has been gone for longer than that, calls fail at once (a file
//! manager must not wait 20 s per icon), until it is back. After every reconnect everything cached is taken
//! back, since nobody knows what was missed.
//!
//! The server ends a mount that is silent for its lease, and forgets all of them when it restarts: then this
//! attaches anew and opens again what was open. The server is told the newest revision that was seen before, and answers whether
//! a crash took it back (others may have used its number since): then the next [`Mount::fsync`] of every handle from before says so
//! once (`losses`), and so does [`Mount::detach`]; and a change that had begun before is not made: what its caller knew is no more.
//! If nothing was taken back, a change that was under way is sent to the new server with the word how it was sent before (`way`), and
//! is made once over both.
//!
//! A mount is of one session, not of whatever has its id: a new attachment names the session by when it was made, and if that is gone
//! the mount is over, so that nothing that is open here ever reaches the next session with the same id.

use crate::api;
use crate::cache::Cache;
use crate::client::Client;
use crate::losses::Losses;
use crate::ops::{Ops, is_refused, is_repeatable, outcome_unknown};
use crate::retry::Backoff;
use crate::way::Way;
use afs_types::{Error, Reason, Result};
use api::bridge_service_client::BridgeServiceClient;
use api::op::Op;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a mount waits for a server that is gone: one that restarts is back by then, and says what it kept.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);
/// Heartbeats per lease.
const BEATS: u32 = 4;
/// Heartbeats and acknowledgements that wait for the connection.
const WAITING_BEATS: usize = 16;
/// How long a thread waits at once for the kernel to take note, and the pause before the next try.
const NOTE_PATIENCE: Duration = Duration::from_secs(1);
const NOTE_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection that is there again waits until the kernel has forgotten what it knew: names go first, in one call and without a lock.
const FORGET_PATIENCE: Duration = Duration::from_millis(200);
const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// How to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The session.
    pub session_id: String,
    /// For people: program and process.
    pub client_id: String,
    /// This machine's name.
    pub hostname: String,
    /// Version of the program.
    pub version: String,
    /// Refuse changes.
    pub read_only: bool,
    /// Longest time for one attempt of one call.
    pub call_timeout: Duration,
    /// Longest time for one call over all, waiting for the connection included.
    pub patience: Duration,
}

/// A change by somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Attributes of an inode, with `data` also its content.
    Inode {
        /// The inode.
        ino: u64,
        /// Whether content changed too.
        data: bool,
    },
    /// A name in a directory.
    Entry {
        /// The directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// Anything.
    Everything,
}

/// Hears of changes by others; must not block.
pub type MountEvents = Arc<dyn Fn(Change) + Send + Sync>;
/// Waits until the kernel has heard of everything so far; false after as long as it was given. Blocks.
pub type MountSettle = Arc<dyn Fn(Duration) -> bool + Send + Sync>;

/// What `aether status` shows of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MountStatus {
    /// The server's name for this attachment; empty while there is none.
    pub mount_id: String,
    /// Whether the server answers now.
    pub connected: bool,
    /// Since when it does not, in seconds.
    pub down_seconds: u64,
    /// Why it does not.
    pub trouble: String,
    /// Newest revision of the session that this mount has seen.
    pub revision: u64,
    /// Connections lost and made again.
    pub reconnects: u64,
    /// Whether the server lost acknowledged operations since the mount began.
    pub lost_operations: bool,
}

/// One attachment, as the server knows it.
pub(crate) struct Link {
    pub(crate) mount_id: String,
    pub(crate) max_read: u32,
    pub(crate) max_write: u64,
    lease: Duration,
    /// How often a crash had taken something back when it was made, this time included.
    losses: u64,
    /// The start of the server that it is of.
    pub(crate) epoch: u32,
    /// The server tells what became of changes that an earlier start of it did not answer.
    pub(crate) knows_sent_before: bool,
}

#[cfg(test)]
impl Link {
    /// One that leads nowhere.
    pub(crate) fn for_test(mount_id: &str, epoch: u32) -> Self {
        let (mount_id, lease) = (mount_id.into(), DEFAULT_LEASE);
        Self { mount_id, max_read: 4096, max_write: 4096, lease, losses: 0, epoch, knows_sent_before: true }
    }
}

#[derive(Clone)]
enum State {
    Up(Arc<Link>),
    Down { since: Instant, why: Arc<str> },
    Ended(Reason, Arc<str>),
}

/// A session attached for a mount.
pub struct Mount {
    client: Client,
    options: MountOptions,
    state: watch::Sender<State>,
    events: OnceLock<(MountEvents, MountSettle)>,
    revision: AtomicU64,
    /// The start of the server in which it was seen; 0 before the first.
    epoch: AtomicU32,
    /// When the session was made, which tells it from later ones with its id; 0 before the first attachment.
    session_created_ns: AtomicI64,
    losses: Losses,
    reconnects: AtomicU64,
    /// The newest fence that the Sync stream brought, and the attachment that it is of.
    pub(crate) fences: watch::Sender<(String, u64)>,
    pub(crate) ops: Ops,
    pub(crate) cache: Cache,
    /// An attachment that must not be used again.
    spoiled: Mutex<String>,
    /// The driver, to be ended.
    driver: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// Why a call failed: the wire's words, or ours.
pub(crate) enum Failure {
    Status(Status),
    Error(Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Mount {
    /// Attaches. Fails at once when the session does not exist or the server cannot be reached.
    pub async fn attach(client: Client, options: MountOptions) -> Result<Arc<Self>> {
        let (ops, releases) = Ops::new();
        let first = State::Down { since: Instant::now(), why: "not attached yet".into() };
        let mount = Arc::new(Self {
            client,
            options,
            state: watch::Sender::new(first),
            events: OnceLock::new(),
            revision: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            session_created_ns: AtomicI64::new(0),
            losses: Losses::default(),
            reconnects: AtomicU64::new(0),
            fences: watch::Sender::new((String::new(), 0)),
            ops,
            cache: Cache::default(),
            spoiled: Mutex::default(),
            driver: Mutex::new(None),
        });
        let link = mount.new_link().await?;
        mount.ops.moved(&link.mount_id);
        let sync = mount.open_sync(&link).await?;
        mount.state.send_replace(State::Up(link.clone()));
        let driver = tokio::spawn(mount.clone().drive(link, sync));
        *mount.driver.lock() = Some(driver);
        tokio::spawn(mount.clone().send_releases(releases));
        Ok(mount)
    }

    /// Who is to hear of changes by others. Set once, before anything is cached.
    pub fn listen(&self, events: MountEvents, settle: MountSettle) {
        if self.events.set((events, settle)).is_err() {
            tracing::error!("a mount has one listener; the second one hears nothing");
        }
    }

    /// The server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The session.
    pub fn session_id(&self) -> &str {
        &self.options.session_id
    }

    /// How it is.
    pub fn status(&self) -> MountStatus {
        let mut status = MountStatus {
            revision: self.revision.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            lost_operations: self.losses.any(),
            ..MountStatus::default()
        };
        match &*self.state.borrow() {
            State::Up(link) => (status.connected, status.mount_id) = (true, link.mount_id.clone()),
            State::Down { since, why } => {
                (status.down_seconds, status.trouble) = (since.elapsed().as_secs(), why.to_string());
            }
            State::Ended(_, why) => status.trouble = why.to_string(),
        }
        status
    }

    /// Makes everything durable and ends the attachment. The mount must not be used any more. An error says that the last changes are
    /// not known to be on the server's disk, or that a crash took some back at any time, whoever was told of it then, or that all are
    /// gone with the session.
    pub async fn detach(&self) -> Result<()> {
        let answer = self.detach_there().await;
        self.state.send_replace(State::Ended(Reason::Unavailable, "this mount has ended".into()));
        if let Some(driver) = self.driver.lock().take() {
            driver.abort();
        }
        answer.map_err(|error| not_known(&error))?;
        if self.losses.any() { Err(lost()) } else { Ok(()) }
    }

    async fn detach_there(&self) -> Result<()> {
        let patience = self.options.patience;
        let answer =
            self.call_within("detach", patience, RETURN_PATIENCE.min(patience), |link: Arc<Link>| {
                let mut bridge = self.bridge();
                let request = api::DetachRequest { mount_id: link.mount_id.clone() };
                async move { bridge.detach(request).await }
            });
        answer.await.map(drop)
    }

    /// A handle, for [`Mount::fsync`]: to be had before what it stands for is opened, and closed with it.
    pub fn open_handle(&self) -> u64 {
        self.losses.open()
    }

    /// Ends a handle.
    pub fn close_handle(&self, handle: u64) {
        self.losses.close(handle);
    }

    /// Everything acknowledged so far is on the server's disk when this returns; an error if a crash of the server has taken back
    /// something since the handle was opened, once for each handle.
    pub async fn fsync(&self, handle: u64) -> Result<()> {
        self.apply_all(&[], true, None).await?;
        if self.losses.tell(handle) { Err(lost()) } else { Ok(()) }
    }

    pub(crate) fn bridge(&self) -> BridgeServiceClient<Channel> {
        self.client.stub(BridgeServiceClient::new)
    }

    pub(crate) fn patience(&self) -> Duration {
        self.options.patience
    }

    pub(crate) fn saw(&self, revision: u64) {
        self.revision.fetch_max(revision, Ordering::Relaxed);
    }

    /// Sends a call that may be sent twice, until it is answered or patience ends.
    pub(crate) async fn call<T, E, F>(&self, name: &'static str, f: impl FnMut(Arc<Link>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, E>>,
        E: Into<Failure>,
    {
        let patience = self.options.patience;
        self.call_within(name, patience, patience, f).await
    }

    /// The same within a time of its own, of which it may spend at most `unlinked` without a connection, all waits together.
    pub(crate) async fn call_within<T, E, F>(
        &self,
        name: &'static str,
        patience: Duration,
        mut unlinked: Duration,
        mut f: impl FnMut(Arc<Link>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, E>>,
        E: Into<Failure>,
    {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new();
        let mut last: Option<Error> = None;
        loop {
            let began = Instant::now();
            let link = match self.link_until(deadline.min(began + unlinked)).await {
                Ok(link) => link,
                // The session is gone, or the mount is over: whatever failed before, this is why it is not tried again.
                Err(error) if error.reason != Reason::Unavailable => return Err(error),
                Err(error) => {
                    return Err(last.filter(|e| e.reason != Reason::MountNotFound).unwrap_or(error));
                }
            };
            unlinked = unlinked.saturating_sub(began.elapsed());
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left.min(self.options.call_timeout), f(link.clone())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(failure)) => match failure.into() {
                    Failure::Error(error) => return Err(error),
                    Failure::Status(status) => self.client.error(&status),
                },
                Err(_) => Error::new(Reason::TimedOut, format!("{name}: no answer within {left:?}")),
            };
            match error.reason {
                Reason::MountNotFound => self.suspect(&link, "the server has ended this mount"),
                Reason::Unavailable | Reason::QueueFull | Reason::TimedOut => {}
                _ => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
            tracing::debug!(name, ?error, "trying again");
            last = Some(error);
            backoff.pause().await;
        }
    }

    pub(crate) async fn link_until(&self, deadline: Instant) -> Result<Arc<Link>> {
        let mut states = self.state.subscribe();
        loop {
            let down = match &*states.borrow_and_update() {
                State::Up(link) => return Ok(link.clone()),
                State::Ended(reason, why) => return Err(Error::new(*reason, why.to_string())),
                State::Down { since, why } => (*since, why.clone()),
            };
            let (since, why) = down;
            let left = deadline.saturating_duration_since(Instant::now());
            let is_long = since.elapsed() > self.options.patience;
            if is_long || timeout(left, states.changed()).await.is_err() {
                let server = self.client.endpoint();
                return Err(Error::new(Reason::Unavailable, format!("{server} cannot be reached: {why}"))
                    .next("the mount reconnects by itself; see `aether status`"));
            }
        }
    }

    /// Notes that an attachment is dead, so that calls stop using it; the driver notices by its stream.
    fn suspect(&self, link: &Arc<Link>, why: &str) {
        self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(current) if Arc::ptr_eq(current, link));
            if is_current {
                *state = State::Down { since: Instant::now(), why: why.into() };
            }
            is_current
        });
    }

    /// A change was sent over this attachment and never answered, so it may still happen, at any time. As a change of our own it
    /// would not be told to us: from now on we are somebody else, who is told.
    pub(crate) fn spoil(&self, mount_id: &str) {
        *self.spoiled.lock() = mount_id.into();
        let link = match &*self.state.borrow() {
            State::Up(link) if link.mount_id == mount_id => link.clone(),
            State::Up(_) | State::Down { .. } | State::Ended(..) => return,
        };
        self.suspect(&link, "a change was not answered");
    }

    async fn new_link(&self) -> Result<Arc<Link>> {
        let request = api::AttachRequest {
            session_id: self.options.session_id.clone(),
            client_id: self.options.client_id.clone(),
            client_version: self.options.version.clone(),
            hostname: self.options.hostname.clone(),
            read_only: self.options.read_only,
            seen_revision: self.revision.load(Ordering::Relaxed),
            seen_epoch: self.epoch.load(Ordering::Relaxed),
            session_created_ns: self.session_created_ns.load(Ordering::Relaxed),
        };
        let answer = timeout(CONNECT_PATIENCE, self.bridge().attach(request)).await;
        let answer = answer.map_err(|_| self.client.timed_out("attach"))?;
        let answer = answer.map_err(|s| self.client.error(&s))?.into_inner();
        if answer.lost_changes {
            tracing::error!(revision = answer.revision, "the server lost acknowledged changes in a crash");
            self.losses.add();
            self.revision.store(answer.revision, Ordering::Relaxed);
        }
        self.epoch.store(answer.epoch, Ordering::Relaxed);
        self.session_created_ns.store(answer.session_created_ns, Ordering::Relaxed);
        self.saw(answer.revision);
        let lease = answer.lease.and_then(|l| u64::try_from(l.seconds).ok()).filter(|s| *s > 0);
        Ok(Arc::new(Link {
            mount_id: answer.mount_id,
            max_read: answer.max_read_bytes.max(4096),
            max_write: answer.max_write_bytes.max(4096),
            lease: lease.map_or(DEFAULT_LEASE, Duration::from_secs),
            losses: self.losses.count(),
            epoch: answer.epoch,
            knows_sent_before: answer.knows_sent_before,
        }))
    }

    async fn open_sync(&self, link: &Link) -> Result<SyncStream> {
        let (beats, requests) = mpsc::channel(WAITING_BEATS);
        // The channel is new and empty.
        let _ = beats.try_send(self.beat(link));
        let stream = timeout(CONNECT_PATIENCE, self.bridge().sync(ReceiverStream::new(requests))).await;
        let stream = stream.map_err(|_| self.client.timed_out("sync"))?;
        let stream = stream.map_err(|s| self.client.error(&s))?.into_inner();
        Ok(SyncStream { beats, stream })
    }

    fn beat(&self, link: &Link) -> api::SyncRequest {
        let acked_revision = self.revision.load(Ordering::Relaxed);
        api::SyncRequest { mount_id: link.mount_id.clone(), acked_revision, acked_fence: 0 }
    }

    /// Keeps the stream, for as long as the session is there.
    async fn drive(self: Arc<Self>, mut link: Arc<Link>, mut sync: SyncStream) {
        loop {
            let error = self.follow(&link, &mut sync).await;
            tracing::warn!(
                ?error,
                session = self.session_id(),
                "the connection of the mount is lost; reconnecting"
            );
            self.suspect(&link, error.message());
            (link, sync) = match self.reconnect(link).await {
                Ok(again) => again,
                Err(error) => {
                    tracing::error!(?error, session = self.session_id(), "the mount is over");
                    self.state.send_replace(State::Ended(error.reason, error.message().into()));
                    self.tell(Change::Everything);
                    return;
                }
            };
            self.reconnects.fetch_add(1, Ordering::Relaxed);
            // First, so that no answer given from now on is cached before what was missed is taken back.
            self.tell(Change::Everything);
            self.kernel_forgets().await;
            tracing::info!(mount = link.mount_id, "connected again");
            self.state.send_replace(State::Up(link.clone()));
        }
    }

    /// Waits a moment until the kernel has dropped what it knew. A system call that waited for the server with a look-up would go on with names from before
    /// the crash, and change what they led to then.
    async fn kernel_forgets(&self) {
        let Some((_, settle)) = self.events.get() else { return };
        let settle = settle.clone();
        // What waits for this connection may hold a lock that the kernel needs for it: no longer than that.
        let _ = tokio::task::spawn_blocking(move || settle(FORGET_PATIENCE)).await;
    }

    /// Handles what comes until the stream ends; returns why it did.
    async fn follow(&self, link: &Arc<Link>, sync: &mut SyncStream) -> Error {
        let mut beat = tokio::time::interval(link.lease / BEATS);
        let mut states = self.state.subscribe();
        let mut note = Note::default();
        loop {
            tokio::select! {
                message = sync.stream.message() => match message {
                    Ok(Some(message)) => {
                        note.due = note.due.max(message.fence);
                        self.handle(link, message);
                    }
                    Ok(None) => return Error::new(Reason::Unavailable, "the server closed the connection"),
                    Err(status) => return self.client.error(&status),
                },
                acked_fence = note.taken(self.events.get()) => {
                    // Never waited for: of a server that does not read, this stream says so.
                    let acked = api::SyncRequest { acked_fence, ..self.beat(link) };
                    note.sent(acked_fence, sync.beats.try_send(acked).is_ok());
                }
                _ = beat.tick() => {
                    // A full channel means that earlier beats have not left yet; keep-alive pings decide then.
                    let _ = sync.beats.try_send(self.beat(link));
                }
                // A call has found out that the server does not know us any more.
                _ = states.wait_for(|s| matches!(s, State::Down { .. })) => {
                    return Error::new(Reason::MountNotFound, "the server has ended this mount");
                }
            }
        }
    }

    fn handle(&self, link: &Link, message: api::SyncResponse) {
        self.saw(message.revision);
        if !message.notice.is_empty() {
            tracing::warn!(notice = message.notice, "the server says");
        }
        for i in message.invalidations {
            if i.all {
                self.tell(Change::Everything);
            } else if i.entry {
                self.tell(Change::Entry { parent: i.parent, name: i.name.to_vec() });
            }
            if (i.data || i.attributes) && !i.all {
                self.tell(Change::Inode { ino: i.inode, data: i.data });
            }
        }
        if message.fence > 0 {
            self.fences.send_replace((link.mount_id.clone(), message.fence));
        }
    }

    /// Our own cache first: a look-up that the kernel makes because of this must not be answered from before.
    fn tell(&self, change: Change) {
        match &change {
            Change::Inode { ino, data } => self.cache.inode_changed(*ino, *data),
            Change::Entry { parent, name } => self.cache.name_changed(*parent, name),
            Change::Everything => self.cache.clear(),
        }
        if let Some((events, _)) = self.events.get() {
            events(change);
        }
    }

    /// Tries until it succeeds, or until the server says that the session is gone.
    async fn reconnect(&self, mut link: Arc<Link>) -> Result<(Arc<Link>, SyncStream)> {
        let mut backoff = Backoff::new();
        loop {
            let is_spoiled = *self.spoiled.lock() == link.mount_id;
            let opened = match is_spoiled {
                true => Err(Error::new(Reason::MountNotFound, "a change was not answered")),
                false => self.open_sync(&link).await,
            };
            let error = match opened {
                Ok(sync) => return Ok((link, sync)),
                Err(error) if error.reason == Reason::MountNotFound => match self.new_link().await {
                    Ok(new) => {
                        link = new;
                        self.reopen(&link).await;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if matches!(error.reason, Reason::SessionNotFound | Reason::PermissionDenied) {
                return Err(error);
            }
            self.state.send_if_modified(|state| match state {
                State::Down { why, .. } => {
                    *why = error.message().into();
                    false // nobody waits for another reason
                }
                State::Up(_) | State::Ended(..) => false,
            });
            backoff.pause().await;
        }
    }

    /// What was open is opened again under the new attachment. An inode that is gone by now stays gone: its
    /// users get an error for it, and only for it. What is being opened or released just now is not ours to repeat: see `ops`.
    async fn reopen(&self, link: &Link) {
        for (inode, count) in self.ops.moved(&link.mount_id) {
            let open = || api::Op {
                op_id: self.ops.next_id(),
                op: Some(Op::Open(api::OpenOp { inode, ..api::OpenOp::default() })),
            };
            if let Err(error) = self.open_again(link, (0..count).map(|_| open()).collect()).await {
                tracing::warn!(inode, ?error, "opening again");
            }
        }
    }

    /// Sends opens over an attachment that is not in use yet. The server may have no room for their answers: as long as it says so they
    /// are sent again, since a hold that is not renewed may cost a file.
    async fn open_again(&self, link: &Link, mut ops: Vec<api::Op>) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            // Nobody has acknowledged anything: older operations wait for this attachment.
            let (mount_id, durable, answered_below) = (link.mount_id.clone(), false, 0);
            let request = api::ApplyOpsRequest {
                mount_id,
                ops: ops.clone(),
                durable,
                answered_below,
                sent_before: None,
            };
            let answer = timeout(self.options.call_timeout, self.bridge().apply_ops(request)).await;
            let answer = answer.map_err(|_| self.client.timed_out("open again"))?;
            match answer.map_err(|status| self.client.error(&status)) {
                Ok(answer) => {
                    let refused = answer.into_inner().results.into_iter().filter(is_refused);
                    let refused: Vec<u64> = refused.map(|result| result.op_id).collect();
                    ops.retain(|op| refused.contains(&op.op_id));
                }
                Err(error) if error.reason == Reason::QueueFull => {}
                Err(error) => return Err(error),
            }
            if ops.is_empty() {
                return Ok(());
            }
            backoff.pause().await;
        }
    }

    /// Where operations begin that may go over any attachment, or what cannot be repeated over `of` only.
    pub(crate) fn way(&self, of: Option<String>) -> Way {
        Way::new(self.losses.count(), self.revision.load(Ordering::Relaxed), of)
    }

    /// Whether an operation that came this way may be sent over `link`; the error for its caller if not.
    pub(crate) fn may_send(way: &Way, link: &Link, op: &Op) -> Result<()> {
        // What its caller knew when it began is no more: inode and offset may mean something else, and it would stand where what came before it is missing.
        if link.losses != way.losses && !matches!(op, Op::Open(_)) {
            return Err(Error::new(
                Reason::Io,
                "the server crashed and lost earlier changes of this mount; this one, which was under way, was not sent again",
            )
            .next("look at the files and write again what is missing"));
        }
        // The same attachment applies it once, and so does a later start of the server, which looks into its journal first. Another
        // attachment to the same start knows nothing of the first attempt, which may still be waiting for its turn there: whether it
        // will be made cannot be known.
        let knows = link.knows_sent_before && way.is_of_other_start(link) && !matches!(op, Op::Release(_));
        if way.is_over(link) || knows || is_repeatable(op) { Ok(()) } else { Err(outcome_unknown()) }
    }
}

fn lost() -> Error {
    Error::new(Reason::Io, "the server crashed and lost changes of this mount that no fsync had covered")
        .next("look at the files and write again what is missing")
}

fn not_known(error: &Error) -> Error {
    if error.reason == Reason::SessionNotFound {
        // No "not found" of its own, which is what an unmount says of a place where nothing is mounted.
        return Error::new(
            Reason::Io,
            format!("what was written is gone with its session: {}", error.message()),
        )
        .next("look for what is needed in other sessions: aether session list");
    }
    let why = error.message();
    Error::new(error.reason, format!("what was written last is not known to be on the server's disk: {why}"))
        .next("see whether the server runs (`aether status`), then look at the files; what an fsync covered is there")
}

/// How far the kernel behind this mount has taken note of what the server told.
#[derive(Default)]
struct Note {
    /// The newest fence that has come, and the newest that was acknowledged.
    due: u64,
    acked: u64,
    /// The kernel was not ready, or the connection: a moment later it is tried again.
    is_to_pause: bool,
    /// The one that is being waited for, by a thread that may block.
    telling: Option<(u64, tokio::task::JoinHandle<bool>)>,
}

impl Note {
    /// The next fence to acknowledge, once it is due and the kernel has taken note. May be dropped and called again.
    async fn taken(&mut self, listener: Option<&(MountEvents, MountSettle)>) -> u64 {
        loop {
            if self.is_to_pause {
                tokio::time::sleep(NOTE_PAUSE).await;
                self.is_to_pause = false;
            }
            if self.telling.is_none() && self.due > self.acked {
                // Who has no listener has no kernel.
                let settle = listener.map(|(_, settle)| settle.clone());
                let work = move || settle.is_none_or(|settle| settle(NOTE_PATIENCE));
                self.telling = Some((self.due, tokio::task::spawn_blocking(work)));
            }
            let Some((fence, telling)) = &mut self.telling else { return std::future::pending().await };
            let (fence, is_told) = (*fence, telling.await.unwrap_or(false));
            self.telling = None;
            if is_told {
                return fence;
            }
            self.is_to_pause = true;
        }
    }

    fn sent(&mut self, fence: u64, is_sent: bool) {
        self.is_to_pause = !is_sent;
        if is_sent {
            self.acked = fence;
        }
    }
}

struct SyncStream {
    beats: mpsc::Sender<api::SyncRequest>,
    stream: Streaming<api::SyncResponse>,
}
