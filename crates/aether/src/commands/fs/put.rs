//! `aether fs put`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::output::shown;
use crate::values::{Target, target};
use afs_client::{Client, api};
use afs_types::{Error, Name, Reason, Result, escape};
use clap::Args;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Copy a local file, a directory with -r, or stdin (-) into a session
#[derive(Args)]
pub(crate) struct Put {
    /// Local path, or - for stdin
    source: PathBuf,
    /// Name in the session
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    destination: Target,
    /// Copy a directory with what is in it
    #[arg(short, long)]
    recursive: bool,
    /// Make missing parent directories
    #[arg(short = 'p', long)]
    parents: bool,
}

impl Put {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        if self.source == Path::new("-") {
            let header = header(&self.destination, 0, self.parents);
            let answer = client.upload(header, &mut tokio::io::stdin(), &mut |_| ()).await?;
            changed(cx, &answer);
            return Ok(());
        }
        let meta = fs::metadata(&self.source).map_err(|e| local(&self.source, e))?;
        if !meta.is_dir() {
            let answer = file(&client, &self.source, &self.destination, self.parents).await?;
            changed(cx, &answer);
            return Ok(());
        }
        if !self.recursive {
            return Err(Error::new(
                Reason::IsADirectory,
                format!("{} is a directory", self.source.display()),
            )
            .next("copy it with -r"));
        }
        directory(cx, &client, &self.source, &self.destination, self.parents).await
    }
}

async fn directory(cx: &Context, client: &Client, from: &Path, to: &Target, parents: bool) -> Result<()> {
    // Below the directory, without it: as `fs get -r` counts.
    let mut counted = 0u64;
    let mut waiting = vec![(from.to_owned(), to.clone(), parents)];
    while let Some((from, to, parents)) = waiting.pop() {
        make_dir(client, &to, parents).await?;
        for entry in fs::read_dir(&from).map_err(|e| local(&from, e))? {
            let entry = entry.map_err(|e| local(&from, e))?;
            let path = entry.path();
            let destination = to.join(Name::new(entry.file_name().as_bytes())?);
            let kind = entry.file_type().map_err(|e| local(&path, e))?;
            if kind.is_dir() {
                waiting.push((path, destination, false));
            } else if kind.is_symlink() {
                link(client, &path, &destination).await?;
            } else if kind.is_file() {
                file(client, &path, &destination, false).await?;
            } else {
                let path = shown(&path.display().to_string());
                cx.out.remark(&format!("left out: {path} is neither file, directory nor link"));
                continue;
            }
            counted += 1;
        }
    }
    cx.out.result(&serde_json::json!({ "entries": counted }), |_| String::new());
    cx.out.remark(&format!("{counted} entries"));
    Ok(())
}

async fn make_dir(client: &Client, to: &Target, parents: bool) -> Result<()> {
    let request = api::CreateDirectoryRequest {
        session_id: to.session_text(),
        path: to.path_text(),
        parents,
        ..api::CreateDirectoryRequest::default()
    };
    match client.create_directory(request).await {
        Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

async fn link(client: &Client, from: &Path, to: &Target) -> Result<()> {
    let text = fs::read_link(from).map_err(|e| local(from, e))?;
    let request = api::CreateSymlinkRequest {
        session_id: to.session_text(),
        path: to.path_text(),
        target: escape(text.as_os_str().as_bytes()),
        ..api::CreateSymlinkRequest::default()
    };
    client.create_symlink(request).await.map(drop)
}

async fn file(client: &Client, from: &Path, to: &Target, parents: bool) -> Result<api::MutationResponse> {
    let mut input = tokio::fs::File::open(from).await.map_err(|e| local(from, e))?;
    let meta = input.metadata().await.map_err(|e| local(from, e))?;
    let mode = meta.permissions().mode() & 0o777;
    client.upload(header(to, mode, parents), &mut input, &mut |_| ()).await
}

fn header(to: &Target, mode: u32, create_parents: bool) -> api::WriteFileHeader {
    api::WriteFileHeader {
        session_id: to.session_text(),
        path: to.path_text(),
        mode,
        create_parents,
        ..api::WriteFileHeader::default()
    }
}

pub(super) fn local(path: &Path, error: std::io::Error) -> Error {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => Reason::NotFound,
        std::io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        std::io::ErrorKind::AlreadyExists => Reason::AlreadyExists,
        std::io::ErrorKind::StorageFull => Reason::NoSpace,
        _ => Reason::Io,
    };
    Error::new(reason, format!("{}: {error}", path.display())).next("check the local path")
}
