//! The byte form of records: a version byte, then the fields in the order in which they are written here. That order is the format.
//!
//! Guarantees: a newer version is refused, and damage is `CORRUPT`, never a panic.

use super::{
    CheckpointRec, CommitRec, HeadRec, ImportFailure, Labels, LayerRec, RequestRec, SessionRec, SessionView,
    SourceRec, StartRec, VersionRec,
};
use afs_core::codec::{Dec, Enc};
use afs_types::{CheckpointId, CommitId, LayerId, Result, SessionId, SourceId, VersionId};

const VERSION: u8 = 1;

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
