//! The engine's durable records: one struct per kind, each with its key and its byte form.
//!
//! Keys (after the journal's space byte): sessions by `s` + id, their heads by `h` + id and their starts by `e` + id NUL `epoch u32 BE`; sources, versions, checkpoints and commits by their text id;
//! layers and deltas by `layer u64 BE`; operations by `layer u64 BE, seq u64 BE`; repeated requests by `method NUL request_id`.
//! Every value starts with a version byte; a newer one is refused, damage is `CORRUPT`. Field order is the format.

use afs_core::codec::{Dec, Enc};
use afs_types::{
    CheckpointId, CommitId, Error, LayerId, Reason, Result, SessionId, SourceId, VersionId, limits,
};
use std::collections::BTreeMap;
use std::ops::Deref;

const VERSION: u8 = 1;

/// Labels of a session or source.
pub type Labels = BTreeMap<String, String>;

/// What a session is, apart from its content; changes rarely.
#[derive(Clone, Debug)]
pub struct SessionRec {
    /// The source its base comes from.
    pub source: SourceId,
    /// Its base.
    pub version: VersionId,
    /// For people.
    pub display_name: String,
    /// For filters.
    pub labels: Labels,
    /// The session it was forked from.
    pub parent: Option<SessionId>,
    /// The checkpoint it was forked from.
    pub parent_checkpoint: Option<CheckpointId>,
    /// Its newest commit.
    pub last_commit: Option<CommitId>,
    /// Out of RAM until resumed.
    pub archived: bool,
    /// When made, nanoseconds.
    pub created_ns: i64,
    /// When this record changed, nanoseconds.
    pub updated_ns: i64,
    /// When it may go, nanoseconds.
    pub expires_ns: Option<i64>,
    /// Grows with each change of this record; the etag of the session resource.
    pub generation: u64,
    /// The start of the server in which it was made.
    pub epoch: u32,
}

/// A [`SessionRec`] whose parts belong to others: a fork is written without copying any of them.
#[derive(Clone, Copy)]
pub(crate) struct SessionView<'a> {
    pub(crate) source: &'a SourceId,
    pub(crate) version: &'a VersionId,
    pub(crate) display_name: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) parent: Option<&'a SessionId>,
    pub(crate) parent_checkpoint: Option<&'a CheckpointId>,
    pub(crate) last_commit: Option<&'a CommitId>,
    pub(crate) archived: bool,
    pub(crate) created_ns: i64,
    pub(crate) updated_ns: i64,
    pub(crate) expires_ns: Option<i64>,
    pub(crate) generation: u64,
    pub(crate) epoch: u32,
}

/// Where a session's content stands: rewritten when its layer changes, not with each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRec {
    /// The layer whose end is the session's tree.
    pub layer: LayerId,
    /// Whether the session may append records to it; false once a fork, checkpoint or commit shares it.
    pub owned: bool,
    /// The session's sequence number when this was written; the layer's records can be beyond it.
    pub seq: u64,
}

/// Where a session went on in one start of the server: written with its first change there. What was numbered between the two was accepted
/// in an earlier start and taken back by a crash; those numbers are never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRec {
    /// The last sequence number that was left.
    pub after: u64,
    /// New changes are numbered above this.
    pub base: u64,
}

impl StartRec {
    /// Of a session that was made in this start: it has lost nothing.
    pub(crate) fn of_new(seq: u64) -> Self {
        Self { after: seq, base: seq }
    }
    /// Whether the change with this number was lost.
    pub fn has_lost(&self, seq: u64) -> bool {
        seq > self.after && seq <= self.base
    }
}

/// A node of the layer tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRec {
    /// The layer below; 0 is the base.
    pub parent: LayerId,
    /// The layer on which `delta` applies, when folded; deltas are merged, so it can be further down than `parent`.
    pub delta_parent: Option<LayerId>,
    /// Sequence number of the last operation before this layer.
    pub seq: u64,
    /// Entries of the delta.
    pub entries: u64,
    /// Layers between this one and the base.
    pub depth: u32,
}

/// A named instant of a session.
#[derive(Clone, Debug)]
pub struct CheckpointRec {
    /// Whose.
    pub session: SessionId,
    /// Its content is the tree at this layer.
    pub layer: LayerId,
    /// The base under it.
    pub version: VersionId,
    /// The session's sequence number then.
    pub seq: u64,
    /// For people.
    pub name: String,
    /// For people.
    pub message: String,
    /// Made by a restore, to be able to undo it.
    pub automatic: bool,
    /// When, nanoseconds.
    pub created_ns: i64,
}

/// Where bases come from.
#[derive(Clone, Debug)]
pub struct SourceRec {
    /// For people.
    pub display_name: String,
    /// `git`, `local` or `empty`.
    pub kind: String,
    /// URL or path, as given.
    pub location: String,
    /// The ref, as given.
    pub reference: Option<String>,
    /// The newest version.
    pub head: Option<VersionId>,
    /// Why the last import failed.
    pub failure: Option<ImportFailure>,
    /// For filters.
    pub labels: Labels,
    /// When made, nanoseconds.
    pub created_ns: i64,
    /// When changed, nanoseconds.
    pub updated_ns: i64,
}

/// Why an import failed.
///
/// Stored as one text: the reason's name, a line end, the message. What has no such first line is from before reasons were kept, when every
/// failure was told as one of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportFailure {
    /// The reason of the error.
    pub reason: Reason,
    /// Its message.
    pub message: String,
}

impl ImportFailure {
    fn to_text(&self) -> String {
        format!("{}\n{}", self.reason.as_str(), self.message)
    }
    fn from_text(text: String) -> Self {
        let parts =
            text.split_once('\n').and_then(|(name, said)| Some((Reason::from_wire(name)?, said.to_owned())));
        match parts {
            Some((reason, message)) => Self { reason, message },
            None => Self { reason: Reason::SourceUnavailable, message: text },
        }
    }
}

impl From<&Error> for ImportFailure {
    fn from(error: &Error) -> Self {
        Self { reason: error.reason, message: error.message().to_owned() }
    }
}

/// One immutable base.
#[derive(Clone, Debug)]
pub struct VersionRec {
    /// Its source.
    pub source: SourceId,
    /// BLAKE3 of the base table, hexadecimal; also its file name.
    pub digest: String,
    /// Commit oid of a git base.
    pub upstream: Option<String>,
    /// Branch of a git base.
    pub branch: Option<String>,
    /// Entries of the table.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that the import added to the store.
    pub stored_bytes: u64,
    /// When, nanoseconds.
    pub created_ns: i64,
}

/// A durable outcome of a session.
#[derive(Clone, Debug)]
pub struct CommitRec {
    /// Whose.
    pub session: SessionId,
    /// Its source.
    pub source: SourceId,
    /// The base under it.
    pub version: VersionId,
    /// Its content is the tree at this layer.
    pub layer: LayerId,
    /// The session's sequence number then.
    pub seq: u64,
    /// For people.
    pub message: String,
    /// Oid of the git commit.
    pub oid: String,
    /// Oid of its tree.
    pub tree_oid: String,
    /// Paths that differ from the parent commit.
    pub files_changed: u64,
    /// The commit of this session before.
    pub parent: Option<CommitId>,
    /// Branch it was promoted to.
    pub pushed: Option<String>,
    /// When, nanoseconds.
    pub created_ns: i64,
}

/// The remembered answer to a request with a `request_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRec {
    /// Hash of the request, to refuse another one under the same id.
    pub fingerprint: [u8; 32],
    /// Ids of what it made.
    pub answer: Vec<String>,
    /// When, nanoseconds.
    pub created_ns: i64,
}

/// A record with a byte form.
pub trait Stored: Sized {
    /// What errors call it.
    const WHAT: &'static str;
    /// Bytes that most of them need.
    const USUAL_BYTES: usize = 128;
    /// Writes the fields.
    fn write(&self, e: &mut Enc);
    /// Reads the fields.
    fn read(d: &mut Dec<'_>) -> Result<Self>;
    /// The value for the journal.
    fn encode(&self) -> Vec<u8> {
        let mut e = Enc { out: Vec::with_capacity(Self::USUAL_BYTES) };
        self.encode_to(&mut e);
        e.out
    }
    /// Appends the value for the journal.
    fn encode_to(&self, e: &mut Enc) {
        e.u8(VERSION);
        self.write(e);
    }
    /// Reads the value back.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Dec::new(bytes, Self::WHAT);
        let version = d.u8()?;
        if version != VERSION {
            return Err(d.corrupt(&format!("it has version {version}, this server reads {VERSION}")));
        }
        let record = Self::read(&mut d)?;
        d.end().map(|()| record)
    }
}

fn put_text(e: &mut Enc, text: &str) {
    e.bytes(text.as_bytes());
}
fn put_opt(e: &mut Enc, text: Option<&str>) {
    e.opt(text, put_text);
}
fn put_labels(e: &mut Enc, labels: &Labels) {
    e.u64(labels.len() as u64);
    for (k, v) in labels {
        put_text(e, k);
        put_text(e, v);
    }
}
fn text(d: &mut Dec<'_>) -> Result<String> {
    d.text().map(str::to_owned)
}
fn opt_text(d: &mut Dec<'_>) -> Result<Option<String>> {
    d.opt(text)
}
fn labels(d: &mut Dec<'_>) -> Result<Labels> {
    (0..d.count()?).map(|_| Ok((text(d)?, text(d)?))).collect()
}
macro_rules! id {
    ($d:expr, $t:ident) => {
        $t::parse($d.text()?)
    };
    (opt $d:expr, $t:ident) => {
        $d.opt(|d| $t::parse(d.text()?))
    };
}

impl SessionRec {
    /// The same, borrowed.
    pub(crate) fn view(&self) -> SessionView<'_> {
        SessionView {
            source: &self.source,
            version: &self.version,
            display_name: &self.display_name,
            labels: &self.labels,
            parent: self.parent.as_ref(),
            parent_checkpoint: self.parent_checkpoint.as_ref(),
            last_commit: self.last_commit.as_ref(),
            archived: self.archived,
            created_ns: self.created_ns,
            updated_ns: self.updated_ns,
            expires_ns: self.expires_ns,
            generation: self.generation,
            epoch: self.epoch,
        }
    }
}

impl SessionView<'_> {
    /// The record, of its own.
    pub(crate) fn to_record(self) -> SessionRec {
        SessionRec {
            source: self.source.clone(),
            version: self.version.clone(),
            display_name: self.display_name.to_owned(),
            labels: self.labels.clone(),
            parent: self.parent.cloned(),
            parent_checkpoint: self.parent_checkpoint.cloned(),
            last_commit: self.last_commit.cloned(),
            archived: self.archived,
            created_ns: self.created_ns,
            updated_ns: self.updated_ns,
            expires_ns: self.expires_ns,
            generation: self.generation,
            epoch: self.epoch,
        }
    }
    /// Appends the value for the journal.
    pub(crate) fn encode_to(&self, e: &mut Enc) {
        e.u8(VERSION);
        self.write(e);
    }
    fn write(&self, e: &mut Enc) {
        put_text(e, self.source.as_str());
        put_text(e, self.version.as_str());
        put_text(e, self.display_name);
        put_labels(e, self.labels);
        put_opt(e, self.parent.map(SessionId::as_str));
        put_opt(e, self.parent_checkpoint.map(CheckpointId::as_str));
        put_opt(e, self.last_commit.map(CommitId::as_str));
        e.u8(u8::from(self.archived)).i64(self.created_ns).i64(self.updated_ns);
        e.opt(self.expires_ns, |e, v| {
            e.i64(v);
        })
        .u64(self.generation)
        .u32(self.epoch);
    }
}

impl Stored for SessionRec {
    const WHAT: &'static str = "session record";
    fn write(&self, e: &mut Enc) {
        self.view().write(e);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            source: id!(d, SourceId)?,
            version: id!(d, VersionId)?,
            display_name: text(d)?,
            labels: labels(d)?,
            parent: id!(opt d, SessionId)?,
            parent_checkpoint: id!(opt d, CheckpointId)?,
            last_commit: id!(opt d, CommitId)?,
            archived: d.u8()? != 0,
            created_ns: d.i64()?,
            updated_ns: d.i64()?,
            expires_ns: d.opt(Dec::i64)?,
            generation: d.u64()?,
            epoch: d.u32()?,
        })
    }
}

impl Stored for HeadRec {
    const WHAT: &'static str = "session head";
    const USUAL_BYTES: usize = 16;
    fn write(&self, e: &mut Enc) {
        e.u64(self.layer.0).u8(u8::from(self.owned)).u64(self.seq);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self { layer: LayerId(d.u64()?), owned: d.u8()? != 0, seq: d.u64()? })
    }
}

impl Stored for StartRec {
    const WHAT: &'static str = "session start";
    fn write(&self, e: &mut Enc) {
        e.u64(self.after).u64(self.base);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self { after: d.u64()?, base: d.u64()? })
    }
}

impl Stored for LayerRec {
    const WHAT: &'static str = "layer record";
    fn write(&self, e: &mut Enc) {
        e.u64(self.parent.0)
            .opt(self.delta_parent, |e, l| {
                e.u64(l.0);
            })
            .u64(self.seq)
            .u64(self.entries)
            .u32(self.depth);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            parent: LayerId(d.u64()?),
            delta_parent: d.opt(Dec::u64)?.map(LayerId),
            seq: d.u64()?,
            entries: d.u64()?,
            depth: d.u32()?,
        })
    }
}

impl Stored for CheckpointRec {
    const WHAT: &'static str = "checkpoint record";
    fn write(&self, e: &mut Enc) {
        put_text(e, self.session.as_str());
        e.u64(self.layer.0);
        put_text(e, self.version.as_str());
        e.u64(self.seq);
        put_text(e, &self.name);
        put_text(e, &self.message);
        e.u8(u8::from(self.automatic)).i64(self.created_ns);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            session: id!(d, SessionId)?,
            layer: LayerId(d.u64()?),
            version: id!(d, VersionId)?,
            seq: d.u64()?,
            name: text(d)?,
            message: text(d)?,
            automatic: d.u8()? != 0,
            created_ns: d.i64()?,
        })
    }
}

impl Stored for SourceRec {
    const WHAT: &'static str = "source record";
    fn write(&self, e: &mut Enc) {
        put_text(e, &self.display_name);
        put_text(e, &self.kind);
        put_text(e, &self.location);
        put_opt(e, self.reference.as_deref());
        put_opt(e, self.head.as_ref().map(VersionId::as_str));
        put_opt(e, self.failure.as_ref().map(ImportFailure::to_text).as_deref());
        put_labels(e, &self.labels);
        e.i64(self.created_ns).i64(self.updated_ns);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            display_name: text(d)?,
            kind: text(d)?,
            location: text(d)?,
            reference: opt_text(d)?,
            head: id!(opt d, VersionId)?,
            failure: opt_text(d)?.map(ImportFailure::from_text),
            labels: labels(d)?,
            created_ns: d.i64()?,
            updated_ns: d.i64()?,
        })
    }
}

impl Stored for VersionRec {
    const WHAT: &'static str = "version record";
    fn write(&self, e: &mut Enc) {
        put_text(e, self.source.as_str());
        put_text(e, &self.digest);
        put_opt(e, self.upstream.as_deref());
        put_opt(e, self.branch.as_deref());
        e.u64(self.entries).u64(self.files).u64(self.bytes).u64(self.stored_bytes).i64(self.created_ns);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            source: id!(d, SourceId)?,
            digest: text(d)?,
            upstream: opt_text(d)?,
            branch: opt_text(d)?,
            entries: d.u64()?,
            files: d.u64()?,
            bytes: d.u64()?,
            stored_bytes: d.u64()?,
            created_ns: d.i64()?,
        })
    }
}

impl Stored for CommitRec {
    const WHAT: &'static str = "commit record";
    fn write(&self, e: &mut Enc) {
        put_text(e, self.session.as_str());
        put_text(e, self.source.as_str());
        put_text(e, self.version.as_str());
        e.u64(self.layer.0).u64(self.seq);
        put_text(e, &self.message);
        put_text(e, &self.oid);
        put_text(e, &self.tree_oid);
        e.u64(self.files_changed);
        put_opt(e, self.parent.as_ref().map(CommitId::as_str));
        put_opt(e, self.pushed.as_deref());
        e.i64(self.created_ns);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            session: id!(d, SessionId)?,
            source: id!(d, SourceId)?,
            version: id!(d, VersionId)?,
            layer: LayerId(d.u64()?),
            seq: d.u64()?,
            message: text(d)?,
            oid: text(d)?,
            tree_oid: text(d)?,
            files_changed: d.u64()?,
            parent: id!(opt d, CommitId)?,
            pushed: opt_text(d)?,
            created_ns: d.i64()?,
        })
    }
}

impl Stored for RequestRec {
    const WHAT: &'static str = "request record";
    fn write(&self, e: &mut Enc) {
        e.out.extend_from_slice(&self.fingerprint);
        e.u64(self.answer.len() as u64);
        self.answer.iter().for_each(|a| put_text(e, a));
        e.i64(self.created_ns);
    }
    fn read(d: &mut Dec<'_>) -> Result<Self> {
        let fingerprint = d.blob()?.0;
        let answer = (0..d.count()?).map(|_| text(d)).collect::<Result<_>>()?;
        Ok(Self { fingerprint, answer, created_ns: d.i64()? })
    }
}

/// A key that is made where it is needed, on the stack.
#[derive(Clone, Copy)]
pub struct Key {
    len: usize,
    bytes: [u8; Self::MOST],
}

impl Key {
    /// A start of a session: the longest one.
    const MOST: usize = 1 + limits::MAX_ID_BYTES + 1 + 4;

    fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self { len: 0, bytes: [0; Self::MOST] };
        for part in parts {
            // An id is never longer than the limit: it would not be one.
            key.bytes[key.len..][..part.len()].copy_from_slice(part);
            key.len += part.len();
        }
        key
    }
}

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Key of a session's record.
pub fn session_key(id: &SessionId) -> Key {
    Key::of(&session_parts(id))
}

/// The parts of that key, for who appends it to something.
pub(crate) fn session_parts(id: &SessionId) -> [&[u8]; 2] {
    [b"s", id.as_str().as_bytes()]
}

/// Key of a session's head. Beside the record, so that a fork of a large family need not rewrite labels.
pub fn head_key(id: &SessionId) -> Key {
    Key::of(&head_parts(id))
}

/// The parts of that key.
pub(crate) fn head_parts(id: &SessionId) -> [&[u8]; 2] {
    [b"h", id.as_str().as_bytes()]
}

/// Key of where a session went on in an epoch; with 0 it is before all of them.
pub fn start_key(id: &SessionId, epoch: u32) -> Key {
    Key::of(&[b"e", id.as_str().as_bytes(), b"\0", &epoch.to_be_bytes()])
}

/// The end of the keys of [`start_key`].
pub fn starts_end(id: &SessionId) -> Key {
    Key::of(&[b"e", id.as_str().as_bytes(), b"\x01"])
}

/// Key of a layer or delta.
pub fn layer_key(layer: LayerId) -> Key {
    Key::of(&[&layer.0.to_be_bytes()])
}

/// Key of an operation record.
pub fn op_key(layer: LayerId, seq: u64) -> Key {
    Key::of(&[&layer.0.to_be_bytes(), &seq.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Stored + std::fmt::Debug>(record: &T) {
        let bytes = record.encode();
        assert_eq!(format!("{record:?}"), format!("{:?}", T::decode(&bytes).unwrap()));
        (0..bytes.len()).for_each(|n| assert!(T::decode(&bytes[..n]).is_err()));
        assert!(T::decode(&[&bytes[..], b"x"].concat()).is_err());
        assert!(T::decode(&[&[9], &bytes[1..]].concat()).is_err(), "a newer version is refused");
    }

    #[test]
    fn records_round_trip_and_damage_is_found() {
        let (source, version) = (SourceId::parse("src_a").unwrap(), VersionId::parse("ver_b").unwrap());
        let session = SessionId::parse("sess_c").unwrap();
        let labels = Labels::from([("k".into(), "v".into())]);
        check(&HeadRec { layer: LayerId(300), owned: true, seq: 7 });
        check(&LayerRec { parent: LayerId(1), delta_parent: Some(LayerId(0)), seq: 9, entries: 4, depth: 2 });
        check(&SessionRec {
            source: source.clone(),
            version: version.clone(),
            display_name: "n".into(),
            labels: labels.clone(),
            parent: Some(session.clone()),
            parent_checkpoint: Some(CheckpointId::parse("ckpt_d").unwrap()),
            last_commit: Some(CommitId::parse("cmt_e").unwrap()),
            archived: true,
            created_ns: 1,
            updated_ns: -2,
            expires_ns: Some(3),
            generation: 4,
            epoch: 3,
        });
        check(&CheckpointRec {
            session: session.clone(),
            layer: LayerId(5),
            version: version.clone(),
            seq: 6,
            name: "n".into(),
            message: "m".into(),
            automatic: true,
            created_ns: 7,
        });
        check(&SourceRec {
            display_name: "n".into(),
            kind: "git".into(),
            location: "/x".into(),
            reference: Some("main".into()),
            head: Some(version.clone()),
            failure: Some(ImportFailure { reason: Reason::HostileTree, message: "f".into() }),
            labels,
            created_ns: 1,
            updated_ns: 2,
        });
        check(&VersionRec {
            source: source.clone(),
            digest: "d".into(),
            upstream: Some("u".into()),
            branch: None,
            entries: 1,
            files: 2,
            bytes: 3,
            stored_bytes: 4,
            created_ns: 5,
        });
        check(&CommitRec {
            session,
            source,
            version,
            layer: LayerId(1),
            seq: 2,
            message: "m".into(),
            oid: "o".into(),
            tree_oid: "t".into(),
            files_changed: 3,
            parent: None,
            pushed: Some("b".into()),
            created_ns: 4,
        });
        check(&RequestRec { fingerprint: [7; 32], answer: vec!["a".into()], created_ns: 5 });
    }

    #[test]
    fn a_failure_keeps_its_reason_and_one_from_before_reasons_is_of_the_source() {
        let back = |text: &str| ImportFailure::from_text(text.to_owned());
        for reason in Reason::ALL {
            let failure = ImportFailure { reason: *reason, message: "/x: one\ntwo".into() };
            assert_eq!(back(&failure.to_text()), failure);
        }
        for old in ["git fetch: no\nsuch host", "", "HOSTILE_TREE", "HOSTILE_TREE: x\ny"] {
            let want = ImportFailure { reason: Reason::SourceUnavailable, message: old.into() };
            assert_eq!(back(old), want);
        }
    }

    #[test]
    fn keys_are_as_the_header_says_also_of_the_longest_id() {
        let id = SessionId::parse(&format!("sess_{}", "x".repeat(limits::MAX_ID_BYTES - 5))).unwrap();
        let text = id.as_str().as_bytes();
        assert_eq!(&*session_key(&id), [b"s", text].concat());
        assert_eq!(&*head_key(&id), [b"h", text].concat());
        assert_eq!(&*start_key(&id, 0x0102), [b"e", text, b"\0\0\0\x01\x02"].concat());
        assert_eq!(&*starts_end(&id), [b"e", text, b"\x01"].concat());
        assert_eq!(*layer_key(LayerId(3)), [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(*op_key(LayerId(1), 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
