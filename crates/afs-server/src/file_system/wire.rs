//! Requests for files as the engine takes them, and its answers as messages.

use crate::reply::{level, path_to_change, request_id, revision};
use afs_proto::{timestamp, timestamp_ns, v1};
use afs_session::paths::{
    By, Edited, Entry, FileEdit, GrepMatch, Patch, PatchFormat, Patched, Precondition, Replacement,
    SetAttributes, WriteAt, WriteOptions, Written,
};
use afs_session::{Attr, AttrSet, ChangeKind};
use afs_types::{Error, Reason, Result, SessionPath, escape, limits};

/// Who makes a change through the API.
pub(crate) fn by(key: &str) -> Result<By> {
    Ok(By { who: 0, request_id: request_id(key)? })
}

/// Permission bits; 0 is the default.
pub(crate) fn mode(field: &'static str, mode: u32) -> Result<Option<u32>> {
    match mode {
        0 => Ok(None),
        1..=0o7777 => Ok(Some(mode)),
        _ => Err(Error::invalid(field, "permission bits, at most 4095 (octal 7777)")),
    }
}

/// What must hold for a change.
pub(crate) fn precondition(wanted: Option<v1::Precondition>) -> Precondition {
    let wanted = wanted.unwrap_or_default();
    Precondition { if_etag: Some(wanted.if_etag).filter(|e| !e.is_empty()), if_absent: wanted.if_absent }
}

fn entry_type(attr: &Attr) -> v1::EntryType {
    match () {
        () if attr.is_file() => v1::EntryType::File,
        () if attr.is_dir() => v1::EntryType::Directory,
        () if attr.is_symlink() => v1::EntryType::Symlink,
        () => v1::EntryType::Special,
    }
}

/// An entry as callers see it.
pub(crate) fn entry(entry: Entry) -> v1::Entry {
    let attr = entry.attr;
    let target = entry.target.map(|target| escape(&target)).unwrap_or_default();
    v1::Entry {
        path: entry.path.to_text(),
        r#type: entry_type(&attr).into(),
        size: attr.size,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        modify_time: Some(timestamp(attr.mtime_ns)),
        etag: entry.etag,
        symlink_target: target,
        layer: if entry.base { v1::Layer::Base } else { v1::Layer::Overlay }.into(),
        inode: attr.ino,
        link_count: attr.nlink,
    }
}

/// The answer to a change.
pub(crate) fn mutation(written: Written, waited: bool) -> v1::MutationResponse {
    v1::MutationResponse {
        entry: written.entry.map(entry),
        revision: written.revision,
        durability: level(waited),
    }
}

/// How to write a file.
pub(crate) fn write_options(header: v1::WriteFileHeader) -> Result<(SessionPath, WriteOptions)> {
    let at = match (header.append, header.offset) {
        (true, Some(_)) => return Err(Error::invalid("append", "either append or offset, not both")),
        (true, None) => WriteAt::End,
        (false, Some(offset)) => WriteAt::Offset(offset),
        (false, None) => WriteAt::Whole,
    };
    let options = WriteOptions {
        precondition: precondition(header.precondition),
        mode: mode("mode", header.mode)?,
        create_parents: header.create_parents,
        at,
        digest: digest(&header.digest)?,
    };
    Ok((path_to_change("path", &header.path)?, options))
}

fn digest(text: &str) -> Result<Option<[u8; 32]>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid("digest", "BLAKE3 as 64 hexadecimal digits");
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Some(digest))
}

/// Replacements in order.
pub(crate) fn replacements(edits: Vec<v1::Replacement>) -> Vec<Replacement> {
    edits
        .into_iter()
        .map(|e| Replacement { old: e.old_text, new: e.new_text, replace_all: e.replace_all })
        .collect()
}

/// An edit of one file.
pub(crate) fn file_edit(
    edits: Vec<v1::Replacement>,
    wanted: Option<v1::Precondition>,
    dry_run: bool,
) -> FileEdit {
    FileEdit { edits: replacements(edits), precondition: precondition(wanted), dry_run }
}

/// What an edit did.
pub(crate) fn edited(edited: Edited, waited: bool) -> v1::EditFileResponse {
    v1::EditFileResponse {
        entry: edited.entry.map(entry),
        replacements: edited.replacements,
        diff: edited.diff,
        revision: edited.revision,
        durability: level(waited),
    }
}

/// A patch.
pub(crate) fn patch(r: v1::ApplyPatchRequest) -> Result<Patch> {
    if r.patch.len() > limits::MAX_PATCH_BYTES {
        return Err(Error::new(
            Reason::MessageTooLarge,
            format!("patch: at most {} bytes", limits::MAX_PATCH_BYTES),
        )
        .with("field", "patch")
        .with("limit", limits::MAX_PATCH_BYTES.to_string()));
    }
    let format = match v1::PatchFormat::try_from(r.format) {
        Ok(v1::PatchFormat::Unspecified) => PatchFormat::Any,
        Ok(v1::PatchFormat::Unified) => PatchFormat::Unified,
        Ok(v1::PatchFormat::ApplyPatch) => PatchFormat::Envelope,
        Err(_) => return Err(Error::invalid("format", "PATCH_FORMAT_UNIFIED or PATCH_FORMAT_APPLY_PATCH")),
    };
    Ok(Patch {
        text: r.patch.into_bytes(),
        format,
        strip: r.strip,
        if_revision: revision(r.if_revision),
        dry_run: r.dry_run,
    })
}

/// What a patch did.
pub(crate) fn patched(patched: Patched, waited: bool) -> v1::ApplyPatchResponse {
    let changes = patched.files.into_iter().map(|file| {
        let (kind, old_path) = match &file.kind {
            ChangeKind::Added => (v1::ChangeKind::Added, None),
            ChangeKind::Deleted => (v1::ChangeKind::Deleted, None),
            ChangeKind::Modified => (v1::ChangeKind::Modified, None),
            ChangeKind::Mode => (v1::ChangeKind::Mode, None),
            ChangeKind::Renamed { from, .. } => (v1::ChangeKind::Renamed, Some(from.to_text())),
        };
        v1::FileChange {
            path: file.path.to_text(),
            old_path: old_path.unwrap_or_default(),
            kind: kind.into(),
            old_etag: file.old_etag.unwrap_or_default(),
            new_etag: file.new_etag.unwrap_or_default(),
            lines_added: file.lines_added,
            lines_removed: file.lines_removed,
            ..v1::FileChange::default()
        }
    });
    v1::ApplyPatchResponse {
        changes: changes.collect(),
        revision: patched.revision,
        durability: level(waited),
    }
}

/// Attributes to set.
pub(crate) fn set_attributes(r: v1::SetAttributesRequest) -> Result<SetAttributes> {
    let permissions = r.mode.filter(|m| *m > 0o7777);
    if permissions.is_some() {
        return Err(Error::invalid("mode", "permission bits, at most 4095 (octal 7777)"));
    }
    let set = AttrSet {
        mode: r.mode,
        uid: r.uid,
        gid: r.gid,
        size: r.size,
        atime_ns: None,
        mtime_ns: r.modify_time.as_ref().map(|t| timestamp_ns("modify_time", t)).transpose()?,
    };
    Ok(SetAttributes {
        set,
        set_xattrs: r
            .set_xattrs
            .into_iter()
            .map(|(name, value)| (name.into_bytes(), value.to_vec()))
            .collect(),
        remove_xattrs: r.remove_xattrs.into_iter().map(String::into_bytes).collect(),
        precondition: precondition(r.precondition),
    })
}

/// One match.
pub(crate) fn grep_match(found: GrepMatch) -> v1::GrepMatch {
    let spans = found.spans.iter().map(|(start, end)| v1::Span { start: *start as u32, end: *end as u32 });
    v1::GrepMatch {
        path: found.path.to_text(),
        line: found.line,
        spans: spans.collect(),
        text: found.text,
        context_before: found.before,
        context_after: found.after,
        truncated: found.truncated,
    }
}

/// A failure on one of several things.
pub(crate) fn failure(error: &Error) -> v1::Failure {
    v1::Failure {
        reason: error.reason.as_str().into(),
        message: error.message().into(),
        metadata: error.metadata().iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        next_steps: vec![error.next_step().into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked() {
        assert!(digest("").unwrap().is_none());
        assert_eq!(digest(&"0a".repeat(32)).unwrap().unwrap(), [10; 32]);
        for bad in ["0a", &"zz".repeat(32), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(digest(bad).is_err(), "{bad}");
        }
    }
}
