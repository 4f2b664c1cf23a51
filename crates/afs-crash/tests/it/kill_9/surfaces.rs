//! The ways into a session: gRPC, HTTP, and a directory of a mount (the server's own, or a remote one).

use super::area::Step;
use super::chance::Skills;
use super::http::Http;
use afs_client::{Client, api};
use afs_types::{Error, Reason};
use api::change::Op;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tokio::runtime::Handle;

const ETIMEDOUT: i32 = 110;

/// Why a step was not answered with success.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a finding is printed")]
pub(super) enum Trouble {
    /// The server went away: nobody knows whether the step happened.
    Gone(String),
    /// A mount says that nobody knows whether the step happened.
    Unknown(String),
    /// The server said no.
    Refused(Reason, String),
}

pub(super) type Outcome<T> = Result<T, Trouble>;

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.reason {
            Reason::Unavailable | Reason::TimedOut => Self::Gone(error.to_string()),
            reason => Self::Refused(reason, error.to_string()),
        }
    }
}

/// One way into one area.
pub(super) enum Surface {
    Grpc { client: Client, runtime: Handle, session: String, area: String },
    Http { http: Http, session: String, area: String, is_durable: bool },
    Mount { dir: PathBuf },
}

impl Surface {
    pub(super) fn skills(&self) -> Skills {
        match self {
            Self::Grpc { .. } => Skills::Grpc,
            Self::Http { .. } => Skills::Http,
            Self::Mount { .. } => Skills::Mount,
        }
    }

    /// Carries a step out. `key` makes a retry safe where the surface has that.
    pub(super) fn perform(&mut self, step: &Step, key: &str) -> Outcome<()> {
        match self {
            Self::Grpc { client, runtime, session, area } => {
                runtime.block_on(Rpc { client, session, area, key }.perform(step)).map_err(Trouble::from)
            }
            Self::Http { http, session, area, is_durable } => {
                WebCall { http, session, area, key, is_durable: *is_durable }.perform(step)
            }
            Self::Mount { dir } => syscalls(dir, step).map_err(|e| match e.raw_os_error() {
                Some(ETIMEDOUT) => Trouble::Unknown(e.to_string()),
                _ => Trouble::Gone(e.to_string()),
            }),
        }
    }

    /// Makes everything answered so far durable; none where each answer already means that.
    pub(super) fn sync(&mut self) -> Option<io::Result<()>> {
        match self {
            Self::Grpc { .. } | Self::Http { .. } => None,
            Self::Mount { dir } => Some(File::open(dir).and_then(|dir| dir.sync_all())),
        }
    }

    /// The server was restarted.
    pub(super) fn forget(&mut self) {
        if let Self::Http { http, .. } = self {
            http.forget();
        }
    }
}

/// One call over gRPC, through the client library.
struct Rpc<'a> {
    client: &'a Client,
    session: &'a str,
    area: &'a str,
    key: &'a str,
}

impl Rpc<'_> {
    fn path(&self, path: &str) -> String {
        format!("/{}/{path}", self.area)
    }

    async fn perform(&self, step: &Step) -> Result<(), Error> {
        let (session_id, request_id) = (self.session.to_owned(), self.key.to_owned());
        match step {
            Step::Create(_)
            | Step::Write { .. }
            | Step::Append { .. }
            | Step::Replace { .. }
            | Step::Log(_) => self.upload(step).await,
            Step::Edit { path, old, new } => {
                let (path, edits) = (self.path(path), vec![replacement(old, new)]);
                let want = api::EditFileRequest { session_id, path, edits, request_id, ..Default::default() };
                self.client.edit_file(want).await.map(drop)
            }
            Step::Truncate { path, size } => {
                let (path, size) = (self.path(path), Some(*size as u64));
                let want =
                    api::SetAttributesRequest { session_id, path, size, request_id, ..Default::default() };
                self.client.set_attributes(want).await.map(drop)
            }
            Step::Rename { from, to } => {
                let (source, destination) = (self.path(from), self.path(to));
                let want = api::MovePathRequest {
                    session_id,
                    source,
                    destination,
                    overwrite: true,
                    request_id,
                    ..Default::default()
                };
                self.client.move_path(want).await.map(drop)
            }
            Step::Link { from, to } => {
                let (source, path) = (self.path(from), self.path(to));
                let want =
                    api::CreateHardLinkRequest { session_id, source, path, request_id, ..Default::default() };
                self.client.create_hard_link(want).await.map(drop)
            }
            Step::Symlink { path, target } => self.symlink(self.path(path), target.clone()).await,
            Step::Unlink(path) | Step::Rmdir(path) => {
                let path = self.path(path);
                let want = api::RemovePathRequest { session_id, path, request_id, ..Default::default() };
                self.client.remove_path(want).await.map(drop)
            }
            Step::Mkdir(path) => {
                let path = self.path(path);
                let want = api::CreateDirectoryRequest { session_id, path, request_id, ..Default::default() };
                self.client.create_directory(want).await.map(drop)
            }
            Step::Set(steps) => {
                let changes = steps.iter().map(|step| self.change(step)).collect();
                let want =
                    api::SubmitChangesRequest { session_id, changes, request_id, ..Default::default() };
                self.client.submit_changes(want).await.map(drop)
            }
            Step::Restore { checkpoint, .. } => {
                let checkpoint_id = checkpoint.clone();
                let want = api::RestoreCheckpointRequest {
                    session_id,
                    checkpoint_id,
                    request_id,
                    ..Default::default()
                };
                self.client.restore_checkpoint(want).await.map(drop)
            }
        }
    }

    async fn symlink(&self, path: String, target: String) -> Result<(), Error> {
        let (session_id, request_id) = (self.session.to_owned(), self.key.to_owned());
        let want = api::CreateSymlinkRequest { session_id, path, target, request_id, ..Default::default() };
        self.client.create_symlink(want).await.map(drop)
    }

    /// What is a stream of bytes.
    async fn upload(&self, step: &Step) -> Result<(), Error> {
        let mut header = api::WriteFileHeader {
            session_id: self.session.to_owned(),
            request_id: self.key.to_owned(),
            ..Default::default()
        };
        let mut bytes: &[u8] = match step {
            Step::Create(path) => {
                header.path = self.path(path);
                header.precondition = Some(api::Precondition { if_absent: true, ..Default::default() });
                &[]
            }
            Step::Write { path, offset, bytes } => {
                header.path = self.path(path);
                header.offset = Some(*offset as u64);
                bytes
            }
            Step::Append { path, bytes } => {
                header.path = self.path(path);
                header.append = true;
                bytes
            }
            Step::Replace { path, bytes } => {
                header.path = self.path(path);
                bytes
            }
            Step::Log(line) => {
                header.path = "/log".into();
                header.append = true;
                line.as_bytes()
            }
            other => unreachable!("{other:?} is no stream of bytes"),
        };
        self.client.upload(header, &mut bytes, &mut |_| {}).await.map(drop)
    }

    fn change(&self, step: &Step) -> api::Change {
        let op = match step {
            Step::Replace { path, bytes } => Op::Write(api::WriteOp {
                path: self.path(path),
                content: bytes.clone().into(),
                ..Default::default()
            }),
            Step::Edit { path, old, new } => {
                Op::Edit(api::EditOp { path: self.path(path), edits: vec![replacement(old, new)] })
            }
            Step::Rename { from, to } => {
                Op::Move(api::MoveOp { source: self.path(from), destination: self.path(to), overwrite: true })
            }
            Step::Unlink(path) => Op::Remove(api::RemoveOp { path: self.path(path), recursive: false }),
            Step::Symlink { path, target } => {
                Op::Symlink(api::SymlinkOp { path: self.path(path), target: target.clone() })
            }
            other => unreachable!("{other:?} is in no change set"),
        };
        api::Change { op: Some(op), precondition: None }
    }
}

fn replacement(old: &str, new: &str) -> api::Replacement {
    api::Replacement { old_text: old.to_owned(), new_text: new.to_owned(), replace_all: false }
}

/// One call over HTTP: raw bytes where there is a route for them, else JSON.
struct WebCall<'a> {
    http: &'a mut Http,
    session: &'a str,
    area: &'a str,
    key: &'a str,
    is_durable: bool,
}

impl WebCall<'_> {
    fn path(&self, path: &str) -> String {
        format!("/{}/{path}", self.area)
    }

    fn perform(self, step: &Step) -> Outcome<()> {
        match step {
            Step::Create(path) => self.put(path, &[("if-none-match", "*")], &[]),
            Step::Replace { path, bytes } => self.put(path, &[], bytes),
            Step::Edit { path, old, new } => {
                let body = json!({"path": self.path(path), "edits": [{"old_text": old, "new_text": new}]});
                self.post("edit", body)
            }
            Step::Truncate { path, size } => {
                let body = json!({"path": self.path(path), "size": size.to_string()});
                self.post("setattr", body)
            }
            Step::Rename { from, to } => {
                let body =
                    json!({"source": self.path(from), "destination": self.path(to), "overwrite": true});
                self.post("move", body)
            }
            Step::Link { from, to } => {
                let body = json!({"source": self.path(from), "path": self.path(to)});
                self.post("link", body)
            }
            Step::Symlink { path, target } => {
                let body = json!({"path": self.path(path), "target": target});
                self.post("symlink", body)
            }
            Step::Unlink(path) | Step::Rmdir(path) => {
                let body = json!({"path": self.path(path)});
                self.post("remove", body)
            }
            Step::Mkdir(path) => {
                let body = json!({"path": self.path(path)});
                self.post("mkdir", body)
            }
            Step::Set(steps) => {
                let changes: Vec<Value> = steps.iter().map(|step| self.change(step)).collect();
                self.post("changes", json!({"changes": changes}))
            }
            other => unreachable!("HTTP is not asked for {other:?}"),
        }
    }

    fn change(&self, step: &Step) -> Value {
        match step {
            // Bytes are base64 in JSON; an edit of text needs none, so whole files go as text that is encoded here.
            Step::Replace { path, bytes } => {
                json!({"write": {"path": self.path(path), "content": base64(bytes)}})
            }
            Step::Edit { path, old, new } => {
                json!({"edit": {"path": self.path(path), "edits": [{"old_text": old, "new_text": new}]}})
            }
            Step::Rename { from, to } => {
                json!({"move": {"source": self.path(from), "destination": self.path(to), "overwrite": true}})
            }
            Step::Unlink(path) => json!({"remove": {"path": self.path(path)}}),
            Step::Symlink { path, target } => json!({"symlink": {"path": self.path(path), "target": target}}),
            other => unreachable!("{other:?} is in no change set"),
        }
    }

    fn put(self, path: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Outcome<()> {
        let mut target = format!("/v1/sessions/{}/files{}", self.session, self.path(path));
        let mut headers = headers.to_vec();
        if self.is_durable {
            headers.push(("idempotency-key", self.key));
        } else {
            // With a key the server waits for the disk all the same.
            target += "?durability=accepted";
        }
        told(self.http.send("PUT", &target, &headers, bytes))
    }

    fn post(self, method: &str, mut body: Value) -> Outcome<()> {
        match self.is_durable {
            true => body["request_id"] = self.key.into(),
            false => body["durability"] = "DURABILITY_ACCEPTED".into(),
        }
        let target = format!("/v1/sessions/{}/{method}", self.session);
        let headers = [("content-type", "application/json")];
        told(self.http.send("POST", &target, &headers, body.to_string().as_bytes()))
    }
}

fn told(answer: io::Result<(u16, Vec<u8>)>) -> Outcome<()> {
    let (status, body) = answer.map_err(|e| Trouble::Gone(e.to_string()))?;
    if status < 400 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = problem["reason"].as_str().and_then(Reason::from_wire).unwrap_or(Reason::Internal);
    Err(Error::new(reason, format!("{status}: {text}")).into())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let bits =
            piece.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for digit in 0..4 {
            match digit <= piece.len() {
                true => text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char),
                false => text.push('='),
            }
        }
    }
    text
}

/// A step by system calls, one of which makes the change.
fn syscalls(dir: &std::path::Path, step: &Step) -> io::Result<()> {
    let at = |path: &str| dir.join(path);
    match step {
        Step::Create(path) => File::create_new(at(path)).map(drop),
        Step::Write { path, offset, bytes } => {
            OpenOptions::new().write(true).open(at(path))?.write_all_at(bytes, *offset as u64)
        }
        Step::Append { path, bytes } => OpenOptions::new().append(true).open(at(path))?.write_all(bytes),
        Step::Truncate { path, size } => OpenOptions::new().write(true).open(at(path))?.set_len(*size as u64),
        Step::Rename { from, to } => fs::rename(at(from), at(to)),
        Step::Link { from, to } => fs::hard_link(at(from), at(to)),
        Step::Symlink { path, target } => std::os::unix::fs::symlink(target, at(path)),
        Step::Unlink(path) => fs::remove_file(at(path)),
        Step::Mkdir(path) => fs::create_dir(at(path)),
        Step::Rmdir(path) => fs::remove_dir(at(path)),
        Step::Log(line) => OpenOptions::new().append(true).open(at("../log"))?.write_all(line.as_bytes()),
        Step::Replace { .. } | Step::Edit { .. } | Step::Set(_) | Step::Restore { .. } => {
            unreachable!("a mount is not asked for {step:?}")
        }
    }
}
