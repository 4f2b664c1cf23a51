//! The engine's durable records: one struct per kind, with its key ([`keys`]) and its byte form ([`form`]).

mod form;
mod keys;

pub use form::Stored;
pub use keys::{Key, head_key, layer_key, op_key, session_key, start_key, starts_end};
pub(crate) use keys::{head_parts, session_parts};

use afs_types::{CheckpointId, CommitId, Error, LayerId, Reason, SessionId, SourceId, VersionId};
use std::collections::BTreeMap;

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
/// Stored as one text: the reason's name, a line end, the message, and if the error knows better than its reason what to do next, a NUL and that.
/// What has no such first line is from before reasons were kept, when every failure was told as one of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportFailure {
    /// The reason of the error.
    pub reason: Reason,
    /// Its message.
    pub message: String,
    /// What to do next, unless it is what the reason says.
    pub next_step: Option<String>,
}

impl ImportFailure {
    fn to_text(&self) -> String {
        let next = self.next_step.as_ref().map_or(String::new(), |step| format!("\0{step}"));
        format!("{}\n{}{next}", self.reason.as_str(), self.message.replace('\0', " "))
    }
    fn from_text(text: String) -> Self {
        let Some((reason, said)) =
            text.split_once('\n').and_then(|(name, said)| Some((Reason::from_wire(name)?, said)))
        else {
            return Self { reason: Reason::SourceUnavailable, message: text, next_step: None };
        };
        let (message, next) =
            said.split_once('\0').map_or((said, None), |(message, next)| (message, Some(next)));
        Self { reason, message: message.to_owned(), next_step: next.map(Into::into) }
    }
}

impl From<&Error> for ImportFailure {
    fn from(error: &Error) -> Self {
        let own = Some(error.next_step()).filter(|step| *step != error.reason.next_step());
        Self { reason: error.reason, message: error.message().to_owned(), next_step: own.map(Into::into) }
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
    }

    #[test]
    fn records_of_sources_and_commits_do_so_too() {
        let (source, version) = (SourceId::parse("src_a").unwrap(), VersionId::parse("ver_b").unwrap());
        let session = SessionId::parse("sess_c").unwrap();
        let labels = Labels::from([("k".into(), "v".into())]);
        check(&SourceRec {
            display_name: "n".into(),
            kind: "git".into(),
            location: "/x".into(),
            reference: Some("main".into()),
            head: Some(version.clone()),
            failure: Some(ImportFailure {
                reason: Reason::HostileTree,
                message: "f".into(),
                next_step: Some("n".into()),
            }),
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
            for next_step in [None, Some("do this\nthen that".to_owned())] {
                let failure = ImportFailure { reason: *reason, message: "/x: one\ntwo".into(), next_step };
                assert_eq!(back(&failure.to_text()), failure);
            }
        }
        let error = Error::new(Reason::WrongState, "a\0b");
        assert_eq!(ImportFailure::from(&error).next_step, None, "the reason says it");
        let failure = ImportFailure::from(&error.next("c"));
        assert_eq!(back(&failure.to_text()), ImportFailure { message: "a b".into(), ..failure });
        // Of a server before this one.
        let old = ImportFailure { reason: Reason::HostileTree, message: "x".into(), next_step: None };
        assert_eq!(back("HOSTILE_TREE\nx"), old);
        for old in ["git fetch: no\nsuch host", "", "HOSTILE_TREE", "HOSTILE_TREE: x\ny"] {
            let want =
                ImportFailure { reason: Reason::SourceUnavailable, message: old.into(), next_step: None };
            assert_eq!(back(old), want);
        }
    }
}
