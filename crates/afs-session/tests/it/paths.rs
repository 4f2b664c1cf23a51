//! Files by path: over a base with links, hard links and ignored files, and over an empty one.

mod etags;
mod reading;
mod search;
mod text;
mod tree;
mod writing;

use crate::rig::Rig;
use afs_session::paths::{
    By, Change, ChangeOp, ChangeSet, CopyFrom, FileEdit, Files, GlobQuery, GrepQuery, Patch, Precondition,
    Replacement, Scope, SetAttributes, View, WriteAt, WriteOptions,
};
use afs_session::{AttrSet, ChangeKind, CreateSession, CreateSource, Engine, ImportSpec};
use afs_types::{Error, Reason, RequestId, SessionId, SessionPath, limits};
use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

fn p(text: &str) -> SessionPath {
    SessionPath::parse(text.as_bytes()).unwrap()
}

fn by(request: &str) -> By {
    By { who: 0, request_id: RequestId::parse(request).unwrap() }
}

fn parents() -> WriteOptions {
    WriteOptions { create_parents: true, ..WriteOptions::default() }
}

fn write(files: &Files<'_>, path: &str, text: &str) -> String {
    let done = files.write_file(&p(path), &parents(), &By::default(), &mut text.as_bytes()).unwrap();
    done.entry.unwrap().etag
}

fn bytes(view: &View, path: &str) -> Vec<u8> {
    let reader = view.open_read(&p(path)).unwrap();
    let mut all = Vec::new();
    while (all.len() as u64) < reader.size() {
        all.extend_from_slice(&reader.read_at(all.len() as u64, 1 << 20).unwrap());
    }
    all
}

fn text(files: &Files<'_>, path: &str) -> String {
    String::from_utf8(bytes(&files.view(), path)).unwrap()
}

fn exists(files: &Files<'_>, path: &str) -> bool {
    files.stat(&p(path)).is_ok()
}

fn paths(view: &View) -> Vec<String> {
    let mut all = Vec::new();
    view.manifest(&SessionPath::root(), &mut |entry| {
        all.push(entry.path.to_text());
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    all
}

#[track_caller]
fn fails<T>(result: afs_types::Result<T>, reason: Reason) -> Error {
    let Err(error) = result else { panic!("no error, want {}", reason.as_str()) };
    assert_eq!(error.reason, reason, "{error}");
    error
}

fn files<'e>(rig: &'e Rig, id: &str) -> Files<'e> {
    rig.engine.files(&SessionId::parse(id).unwrap()).unwrap()
}

/// A session on an imported directory.
fn based<'e>(rig: &'e Rig, id: &str) -> Files<'e> {
    let dir = rig.dir.path().join("import");
    std::fs::create_dir_all(dir.join("src/deep")).unwrap();
    std::fs::create_dir_all(dir.join("target")).unwrap();
    let put = |path: &str, text: &str| std::fs::write(dir.join(path), text).unwrap();
    put("README.md", "# Title\n\nneedle one\n");
    put("src/main.rs", "fn main() {\n    let needle = 1;\n}\n");
    put("src/deep/lib.rs", "// nothing\n");
    put("src/b.txt", "b\n");
    put("target/out.rs", "needle\n");
    put(".gitignore", "/target\n*.log\n");
    put("x.log", "needle\n");
    put("bin", "needle\0needle\n");
    std::fs::set_permissions(dir.join("src/b.txt"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("src/main.rs", dir.join("link")).unwrap();
    symlink("/src", dir.join("dirlink")).unwrap();
    symlink("../../../../etc/passwd", dir.join("out")).unwrap();
    std::fs::hard_link(dir.join("src/b.txt"), dir.join("src/c.txt")).unwrap();
    import(&rig.engine, ImportSpec::Local { path: dir }, id);
    files(rig, id)
}

fn import(engine: &std::sync::Arc<Engine>, spec: ImportSpec, id: &str) {
    let want = CreateSource {
        source_id: None,
        display_name: String::new(),
        spec,
        labels: Default::default(),
        request_id: None,
    };
    let source = engine.create_source(want).unwrap();
    engine.wait_source(&source.id, Duration::from_secs(60)).unwrap();
    let session_id = Some(SessionId::parse(id).unwrap());
    engine
        .create_session(CreateSession { session_id, source: Some(source.id), ..Default::default() })
        .unwrap();
}

fn replacement(old: &str, new: &str) -> Replacement {
    Replacement { old: old.into(), new: new.into(), replace_all: false }
}

fn change(op: ChangeOp) -> Change {
    Change { op, precondition: Precondition::default() }
}
