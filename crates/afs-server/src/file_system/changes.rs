//! Change sets as the engine takes them. An error names the change and the field: `changes[3].write.path`.

use super::wire::{precondition, replacements};
use crate::reply::{path_to_change, revision};
use afs_proto::v1;
use afs_session::paths::{Change, ChangeOp, ChangeSet};
use afs_types::{Error, Reason, Result, SessionPath, limits, unescape};
use v1::change::Op;

/// A whole change set.
pub(crate) fn change_set(r: v1::SubmitChangesRequest) -> Result<ChangeSet> {
    if r.changes.len() > limits::MAX_CHANGES {
        return Err(Error::above("changes", limits::MAX_CHANGES, "in one set"));
    }
    let changes = r.changes.into_iter().enumerate().map(|(n, change)| one(n, change));
    Ok(ChangeSet {
        changes: changes.collect::<Result<_>>()?,
        if_revision: revision(r.if_revision),
        dry_run: r.dry_run,
    })
}

fn one(n: usize, change: v1::Change) -> Result<Change> {
    let field = |name: &str| format!("changes[{n}].{name}");
    let at = |name: &str, text: &str| -> Result<SessionPath> { path_to_change(&field(name), text) };
    let mode = |name: &str, mode: u32| -> Result<Option<u32>> {
        match mode {
            0 => Ok(None),
            1..=0o7777 => Ok(Some(mode)),
            _ => Err(wrong(&field(name), "permission bits, at most 4095 (octal 7777)")),
        }
    };
    let op = match change.op.ok_or_else(|| wrong(&format!("changes[{n}]"), "one of the operations"))? {
        Op::Write(op) => ChangeOp::Write {
            path: at("write.path", &op.path)?,
            content: op.content,
            mode: mode("write.mode", op.mode)?,
            create_parents: op.create_parents,
        },
        Op::Edit(op) => ChangeOp::Edit { path: at("edit.path", &op.path)?, edits: replacements(op.edits) },
        Op::Remove(op) => ChangeOp::Remove { path: at("remove.path", &op.path)?, recursive: op.recursive },
        Op::Move(op) => ChangeOp::Move {
            source: at("move.source", &op.source)?,
            destination: at("move.destination", &op.destination)?,
            overwrite: op.overwrite,
        },
        Op::Copy(op) => ChangeOp::Copy {
            source: at("copy.source", &op.source)?,
            destination: at("copy.destination", &op.destination)?,
            recursive: op.recursive,
            overwrite: op.overwrite,
        },
        Op::Mkdir(op) => ChangeOp::Mkdir {
            path: at("mkdir.path", &op.path)?,
            mode: mode("mkdir.mode", op.mode)?,
            parents: op.parents,
        },
        Op::Symlink(op) => {
            ChangeOp::Symlink { path: at("symlink.path", &op.path)?, target: unescape(&op.target) }
        }
        Op::Chmod(op) if op.mode > 0o7777 => {
            return Err(wrong(&field("chmod.mode"), "permission bits, at most 4095 (octal 7777)"));
        }
        Op::Chmod(op) => ChangeOp::Chmod { path: at("chmod.path", &op.path)?, mode: op.mode },
    };
    Ok(Change { op, precondition: precondition(change.precondition) })
}

fn wrong(field: &str, want: &str) -> Error {
    Error::new(Reason::InvalidArgument, format!("{field}: want {want}")).with("field", field)
}
