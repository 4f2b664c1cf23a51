//! Sources and versions as messages, and specs as the engine takes them.

use afs_proto::{timestamp, v1};
use afs_session::records::{ImportFailure, VersionRec};
use afs_session::{ImportSpec, SourceInfo, SourceState, without_password};
use afs_types::{Error, Reason, Result, VersionId, limits};
use std::collections::BTreeMap;
use std::path::PathBuf;
use v1::source_spec::Spec;

/// What to import.
pub(crate) fn spec(spec: Option<v1::SourceSpec>) -> Result<ImportSpec> {
    match spec.and_then(|s| s.spec) {
        Some(Spec::Git(git)) => {
            text("spec.git.url", &git.url)?;
            text("spec.git.ref", &git.r#ref)?;
            if git.url.is_empty() {
                return Err(Error::invalid("spec.git.url", "a path or URL of a git repository"));
            }
            Ok(ImportSpec::Git { url: git.url, reference: Some(git.r#ref).filter(|r| !r.is_empty()) })
        }
        Some(Spec::Local(local)) => {
            text("spec.local.path", &local.path)?;
            let path = PathBuf::from(local.path);
            if !path.is_absolute() {
                return Err(Error::invalid("spec.local.path", "an absolute path on the server's machine"));
            }
            Ok(ImportSpec::Local { path })
        }
        Some(Spec::Empty(_)) => Ok(ImportSpec::Empty),
        None => Err(Error::invalid("spec", "one of git, local, empty")),
    }
}

fn text(field: &'static str, text: &str) -> Result<()> {
    if text.len() > limits::MAX_PATH_BYTES || text.contains('\0') {
        return Err(Error::above(field, limits::MAX_PATH_BYTES, "bytes without NUL"));
    }
    Ok(())
}

/// A source as callers see it.
pub(crate) fn source(info: SourceInfo) -> v1::Source {
    let import_number = info.run.map_or(0, |run| run.last);
    let record = info.record;
    let spec = match record.kind.as_str() {
        "git" => Spec::Git(v1::GitSpec {
            url: without_password(&record.location),
            r#ref: record.reference.unwrap_or_default(),
        }),
        "local" => Spec::Local(v1::LocalSpec { path: record.location }),
        _ => Spec::Empty(v1::EmptySpec {}),
    };
    let state = match info.state {
        SourceState::Running => v1::ResourceState::Running,
        SourceState::Ready => v1::ResourceState::Ready,
        SourceState::Failed => v1::ResourceState::Failed,
    };
    let progress = info.progress.map(|p| v1::Progress {
        done: p.done,
        total: p.total.unwrap_or(0),
        unit: p.unit.into(),
        message: p.phase,
    });
    let failure = record.failure.map(failure);
    v1::Source {
        source_id: info.id.to_string(),
        display_name: record.display_name,
        spec: Some(v1::SourceSpec { spec: Some(spec) }),
        state: state.into(),
        progress,
        failure: failure.or_else(|| (info.state == SourceState::Failed).then(interrupted)),
        head_version_id: record.head.map(|v| v.to_string()).unwrap_or_default(),
        labels: record.labels,
        create_time: Some(timestamp(record.created_ns)),
        update_time: Some(timestamp(record.updated_ns)),
        import_number,
    }
}

fn failure(failure: ImportFailure) -> v1::Failure {
    let ImportFailure { reason, message, next_step } = failure;
    let step = next_step.as_deref().unwrap_or_else(|| reason.next_step());
    told(reason, message, format!("{step}; then refresh the source"))
}

/// The server ended before the import did.
fn interrupted() -> v1::Failure {
    told(Reason::Unavailable, "the import was interrupted".into(), "refresh the source".into())
}

fn told(reason: Reason, message: String, next_step: String) -> v1::Failure {
    let (reason, metadata) = (reason.as_str().into(), BTreeMap::new());
    v1::Failure { reason, message, metadata, next_steps: vec![next_step] }
}

/// One version of a source.
pub(crate) fn version((id, record): (VersionId, VersionRec)) -> v1::SourceVersion {
    v1::SourceVersion {
        version_id: id.to_string(),
        source_id: record.source.to_string(),
        upstream_revision: record.upstream.unwrap_or_default(),
        file_count: record.files,
        logical_bytes: record.bytes,
        stored_bytes: record.stored_bytes,
        create_time: Some(timestamp(record.created_ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_come_back() {
        for (url, shown) in [
            ("https://me:secret@host/x.git", "https://me:***@host/x.git"),
            ("https://token@host/x@y", "https://***@host/x@y"),
            ("https://a:b@c:d@host", "https://a:***@host"),
            ("https://host/a@b", "https://host/a@b"),
            ("HTTPS://me:secret@host/x", "HTTPS://me:***@host/x"),
            ("Http://token@host:80/x", "Http://***@host:80/x"),
            ("https://me%3Asecret@host/x", "https://me:***@host/x"),
            ("https://me:se/cret@host/x", "https://me:***@host/x"),
            ("https://me:it's secret@host/x", "https://me:***@host/x"),
            ("ssh://me:secret@host/x", "ssh://me:***@host/x"),
            ("SSH://me:secret@host/x", "SSH://me:***@host/x"),
            ("git+ssh://me:secret@host/x", "git+ssh://me:***@host/x"),
            ("ssh+git://git@host/x", "ssh+git://git@host/x"),
            ("git://me:secret@host/x", "git://me:***@host/x"),
            ("git://secret@host/x", "git://***@host/x"),
            ("file://me:secret@host/x", "file://me:***@host/x"),
            ("me:secret@host:x", "me:***@host:x"),
            ("https://[::1]:8443/a@b", "https://[::1]:8443/a@b"),
            ("file:///srv/a:b@c", "file:///srv/a:b@c"),
            ("/srv/a:b@c", "/srv/a:b@c"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("/srv/x", "/srv/x"),
            ("git@host:x", "git@host:x"),
            ("git@host:team@corp/repo.git", "git@host:team@corp/repo.git"),
            ("host:repo@v1", "host:repo@v1"),
            ("me:se@cret@host:x", "me:***@host:x"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_spec_names_one_thing() {
        let git = |url: &str| {
            Some(v1::SourceSpec {
                spec: Some(Spec::Git(v1::GitSpec { url: url.into(), r#ref: String::new() })),
            })
        };
        assert!(matches!(spec(git("/x")).unwrap(), ImportSpec::Git { reference: None, .. }));
        assert!(spec(git("")).unwrap_err().message().starts_with("spec.git.url"));
        assert!(spec(git(&"x".repeat(5000))).is_err());
        assert!(spec(None).is_err());
        let local = v1::SourceSpec { spec: Some(Spec::Local(v1::LocalSpec { path: "here".into() })) };
        assert!(spec(Some(local)).unwrap_err().message().starts_with("spec.local.path"));
    }
}
