//! An operation: one change of a session's tree, with every decision already made.
//!
//! Guarantees: applying the same operations in the same order to the same tree gives the same tree, on any machine and
//! at any time: inode numbers and times are inside. An `Op` was valid when it was planned; it is applied without asking again.
//!
//! Record format, version 1: `version u8, epoch varint, op_id varint, tag u8, fields`. Tags are pinned; new ones are added at the end.

use crate::codec::{Dec, Enc};
use crate::extent::{Content, Source, decode_source, encode_source};
use afs_types::{Ino, Result};
use std::sync::Arc;

/// Bytes of a name or value, shared.
pub type Bytes = Arc<[u8]>;

/// Which attributes to set; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrSet {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// File size; bytes beyond it are dropped, new ones are a hole.
    pub size: Option<u64>,
    /// Access time, nanoseconds.
    pub atime_ns: Option<i64>,
    /// Modification time, nanoseconds.
    pub mtime_ns: Option<i64>,
}

/// One change.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "the fields carry the names of the rules; each variant's sentence explains them"
)]
pub enum Op {
    /// A new inode with its first name. `mode` has the type; `target` is a symbolic link's.
    Create {
        parent: Ino,
        name: Bytes,
        ino: Ino,
        mode: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        target: Option<Bytes>,
        time_ns: i64,
    },
    /// One more name for an inode.
    Link { ino: Ino, parent: Ino, name: Bytes, time_ns: i64 },
    /// A name goes; `keep` when the inode is open and must stay until reaped.
    Unlink { parent: Ino, name: Bytes, keep: bool, time_ns: i64 },
    /// A name moves, replacing the target or exchanged with it; `keep` is for a replaced inode that is open.
    Rename {
        parent: Ino,
        name: Bytes,
        new_parent: Ino,
        new_name: Bytes,
        exchange: bool,
        keep: bool,
        time_ns: i64,
    },
    /// Attributes change.
    SetAttr { ino: Ino, set: AttrSet, time_ns: i64 },
    /// Bytes change; the file grows when they end beyond it. `kill_suid` drops setuid and setgid.
    Write { ino: Ino, offset: u64, len: u64, source: Source, kill_suid: bool, time_ns: i64 },
    /// A hole; the size stays.
    Punch { ino: Ino, offset: u64, len: u64, time_ns: i64 },
    /// All content at once.
    Replace { ino: Ino, size: u64, content: Content, time_ns: i64 },
    /// An extended attribute is set, or removed when there is no value.
    Xattr { ino: Ino, name: Bytes, value: Option<Bytes>, time_ns: i64 },
    /// The last handle of an inode without names is closed.
    Reap { ino: Ino },
    /// The same bytes, now in blobs; ignored when the content changed since `version`.
    Seal { ino: Ino, version: u64, content: Content },
}

/// An operation as it stands in the journal, under the key (layer, seq).
#[derive(Clone, Debug)]
pub struct Record {
    /// Start of the server that wrote it; grows by one per start.
    pub epoch: u32,
    /// What a mount calls the operation, one name among all mounts and starts, 0 for none: with it a mount that was not answered finds
    /// out whether the operation was made.
    pub op_id: u64,
    /// The change.
    pub op: Op,
}

const VERSION: u8 = 1;

impl Record {
    /// The bytes for the journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Enc { out: Vec::with_capacity(96) };
        Self::encode_to(self.epoch, self.op_id, &self.op, &mut e);
        e.out
    }
    /// Appends the bytes of the record with these fields, which need not be one yet.
    pub fn encode_to(epoch: u32, op_id: u64, op: &Op, e: &mut Enc) {
        e.u8(VERSION).u32(epoch).u64(op_id);
        op.encode(e);
    }
    /// Reads a record back.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Dec::new(bytes, "record");
        let version = d.u8()?;
        if version != VERSION {
            return Err(d.corrupt(&format!("it has version {version}, this server reads {VERSION}")));
        }
        let record = Self { epoch: d.u32()?, op_id: d.u64()?, op: Op::decode(&mut d)? };
        d.end().map(|()| record)
    }
}

impl Op {
    /// Calls `visit` with the segments of the data log that the operation names; some more than once.
    pub fn for_segments(&self, visit: &mut impl FnMut(u32)) {
        match self {
            Self::Write { source, .. } => source.for_segment(visit),
            Self::Replace { content, .. } | Self::Seal { content, .. } => content.for_segments(visit),
            Self::Create { .. }
            | Self::Link { .. }
            | Self::Unlink { .. }
            | Self::Rename { .. }
            | Self::SetAttr { .. }
            | Self::Punch { .. }
            | Self::Xattr { .. }
            | Self::Reap { .. } => {}
        }
    }

    fn encode(&self, e: &mut Enc) {
        match self {
            Self::Create { parent, name, ino, mode, uid, gid, rdev, target, time_ns } => {
                e.u8(1).u64(*parent).bytes(name).u64(*ino).u32(*mode).u32(*uid).u32(*gid).u32(*rdev);
                e.opt(target.as_deref(), |e, t| {
                    e.bytes(t);
                })
                .i64(*time_ns);
            }
            Self::Link { ino, parent, name, time_ns } => {
                e.u8(2).u64(*ino).u64(*parent).bytes(name).i64(*time_ns);
            }
            Self::Unlink { parent, name, keep, time_ns } => {
                e.u8(3).u64(*parent).bytes(name).u8(u8::from(*keep)).i64(*time_ns);
            }
            Self::Rename { parent, name, new_parent, new_name, exchange, keep, time_ns } => {
                e.u8(4).u64(*parent).bytes(name).u64(*new_parent).bytes(new_name);
                e.u8(u8::from(*exchange)).u8(u8::from(*keep)).i64(*time_ns);
            }
            Self::SetAttr { ino, set, time_ns } => {
                e.u8(5).u64(*ino);
                set.encode(e);
                e.i64(*time_ns);
            }
            Self::Write { ino, offset, len, source, kill_suid, time_ns } => {
                e.u8(6).u64(*ino).u64(*offset).u64(*len);
                encode_source(source, e);
                e.u8(u8::from(*kill_suid)).i64(*time_ns);
            }
            Self::Punch { ino, offset, len, time_ns } => {
                e.u8(7).u64(*ino).u64(*offset).u64(*len).i64(*time_ns);
            }
            Self::Replace { ino, size, content, time_ns } => {
                e.u8(8).u64(*ino).u64(*size);
                content.encode(e);
                e.i64(*time_ns);
            }
            Self::Xattr { ino, name, value, time_ns } => {
                e.u8(9).u64(*ino).bytes(name);
                e.opt(value.as_deref(), |e, v| {
                    e.bytes(v);
                })
                .i64(*time_ns);
            }
            Self::Reap { ino } => {
                e.u8(10).u64(*ino);
            }
            Self::Seal { ino, version, content } => {
                e.u8(11).u64(*ino).u64(*version);
                content.encode(e);
            }
        }
    }

    fn decode(d: &mut Dec<'_>) -> Result<Self> {
        Ok(match d.u8()? {
            1 => Self::Create {
                parent: d.u64()?,
                name: d.bytes()?.into(),
                ino: d.u64()?,
                mode: d.u32()?,
                uid: d.u32()?,
                gid: d.u32()?,
                rdev: d.u32()?,
                target: d.opt(|d| d.bytes().map(Bytes::from))?,
                time_ns: d.i64()?,
            },
            2 => Self::Link { ino: d.u64()?, parent: d.u64()?, name: d.bytes()?.into(), time_ns: d.i64()? },
            3 => Self::Unlink {
                parent: d.u64()?,
                name: d.bytes()?.into(),
                keep: d.u8()? != 0,
                time_ns: d.i64()?,
            },
            4 => Self::Rename {
                parent: d.u64()?,
                name: d.bytes()?.into(),
                new_parent: d.u64()?,
                new_name: d.bytes()?.into(),
                exchange: d.u8()? != 0,
                keep: d.u8()? != 0,
                time_ns: d.i64()?,
            },
            5 => Self::SetAttr { ino: d.u64()?, set: AttrSet::decode(d)?, time_ns: d.i64()? },
            6 => Self::Write {
                ino: d.u64()?,
                offset: d.u64()?,
                len: d.u64()?,
                source: decode_source(d)?,
                kill_suid: d.u8()? != 0,
                time_ns: d.i64()?,
            },
            7 => Self::Punch { ino: d.u64()?, offset: d.u64()?, len: d.u64()?, time_ns: d.i64()? },
            8 => Self::Replace {
                ino: d.u64()?,
                size: d.u64()?,
                content: Content::decode(d)?,
                time_ns: d.i64()?,
            },
            9 => Self::Xattr {
                ino: d.u64()?,
                name: d.bytes()?.into(),
                value: d.opt(|d| d.bytes().map(Bytes::from))?,
                time_ns: d.i64()?,
            },
            10 => Self::Reap { ino: d.u64()? },
            11 => Self::Seal { ino: d.u64()?, version: d.u64()?, content: Content::decode(d)? },
            tag => return Err(d.corrupt(&format!("unknown operation {tag}"))),
        })
    }
}

impl AttrSet {
    fn encode(&self, e: &mut Enc) {
        let Self { mode, uid, gid, size, atime_ns, mtime_ns } = self;
        for v in [mode, uid, gid] {
            e.opt(*v, |e, v| {
                e.u32(v);
            });
        }
        e.opt(*size, |e, v| {
            e.u64(v);
        });
        for v in [atime_ns, mtime_ns] {
            e.opt(*v, |e, v| {
                e.i64(v);
            });
        }
    }
    fn decode(d: &mut Dec<'_>) -> Result<Self> {
        Ok(Self {
            mode: d.opt(Dec::u32)?,
            uid: d.opt(Dec::u32)?,
            gid: d.opt(Dec::u32)?,
            size: d.opt(Dec::u64)?,
            atime_ns: d.opt(Dec::i64)?,
            mtime_ns: d.opt(Dec::i64)?,
        })
    }
}
