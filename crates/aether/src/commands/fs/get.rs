//! `aether fs get`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::put::local;
use super::sparse::Sparse;
use crate::context::Context;
use crate::output::shown;
use crate::values::{Target, target};
use afs_client::{Client, api};
use afs_types::{Error, Reason, Result, SessionPath, unescape};
use clap::Args;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Copy a file, or a directory with -r, out of a session
#[derive(Args)]
pub(crate) struct Get {
    /// File or directory to copy out
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    source: Target,
    /// Local path, or - for stdout
    destination: PathBuf,
    /// Copy a directory with what is in it
    #[arg(short, long)]
    recursive: bool,
    /// Replace a local file
    #[arg(short, long)]
    force: bool,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
    at: String,
}

impl Get {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        if self.destination == Path::new("-") {
            client.download(self.read(&self.source.path), &mut cx.out.stream(), &mut |_| ()).await?;
            return Ok(());
        }
        let path = self.source.path_text();
        let request =
            api::StatRequest { session_id: self.source.session_text(), path, checkpoint_id: self.at.clone() };
        let entry = client.stat(request).await?;
        if entry.r#type() != api::EntryType::Directory {
            // Into a directory, under its own name, as `cp` does.
            let name = self.source.path.names().last().map(|n| OsStr::from_bytes(n.as_bytes()).to_owned());
            let to = match (self.destination.is_dir(), name) {
                (true, Some(name)) => self.destination.join(name),
                _ => self.destination.clone(),
            };
            self.file(&client, &self.source.path, &to, None).await?;
            cx.out.result(&entry, |_| String::new());
            return Ok(());
        }
        if !self.recursive {
            return Err(Error::new(Reason::IsADirectory, format!("{} is a directory", self.source))
                .next("copy it with -r"));
        }
        self.directory(cx, &client).await
    }

    fn read(&self, path: &SessionPath) -> api::ReadFileRequest {
        api::ReadFileRequest {
            session_id: self.source.session_text(),
            path: path.to_text(),
            checkpoint_id: self.at.clone(),
            ..api::ReadFileRequest::default()
        }
    }

    async fn directory(&self, cx: &Context, client: &Client) -> Result<()> {
        let request = api::GetManifestRequest {
            session_id: self.source.session_text(),
            checkpoint_id: self.at.clone(),
            path_prefix: self.source.path_text(),
        };
        let mut entries = client.get_manifest(request).await?;
        fs::create_dir_all(&self.destination).map_err(|e| local(&self.destination, e))?;
        // Below the directory, without it: as `fs put -r` counts.
        let mut count = 0u64;
        // Directories get their mode last: a read-only one could not be filled.
        let mut modes = Vec::new();
        while let Some(entry) = entries.next().await? {
            // Parsing refuses `..`, so nothing is ever written outside of the destination.
            let path = SessionPath::parse_text(&entry.path)?;
            let below = &path.names()[self.source.path.names().len().min(path.names().len())..];
            if below.is_empty() {
                continue;
            }
            let to = below
                .iter()
                .fold(self.destination.clone(), |dir, n| dir.join(OsStr::from_bytes(n.as_bytes())));
            match entry.r#type() {
                api::EntryType::Directory => {
                    real_dir(&to)?;
                    modes.push((to, entry.mode));
                }
                api::EntryType::Symlink => {
                    self.make_way(&to)?;
                    let target = unescape(&entry.symlink_target);
                    symlink(OsStr::from_bytes(&target), &to).map_err(|e| local(&to, e))?;
                }
                api::EntryType::File => self.file(client, &path, &to, Some(entry.mode)).await?,
                api::EntryType::Special | api::EntryType::Unspecified => {
                    let path = shown(&entry.path);
                    cx.out.remark(&format!("left out: {path} is neither file, directory nor link"));
                    continue;
                }
            }
            count += 1;
        }
        for (dir, mode) in modes.into_iter().rev() {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode & 0o777))
                .map_err(|e| local(&dir, e))?;
        }
        cx.out.result(&serde_json::json!({ "entries": count }), |_| String::new());
        cx.out.remark(&format!("{count} entries"));
        Ok(())
    }

    /// Writes beside the destination and renames, so that a break-off leaves no half file under its name.
    async fn file(&self, client: &Client, path: &SessionPath, to: &Path, mode: Option<u32>) -> Result<()> {
        self.may_replace(to)?;
        let name = to.file_name().ok_or_else(|| Error::invalid("destination", "a file name"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".aether-part");
        let part = to.with_file_name(hidden);
        let mut options = tokio::fs::OpenOptions::new();
        // A link planted under that name is not followed.
        options
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let out = options.open(&part).await.map_err(|e| local(&part, e))?;
        let mut out = Sparse::new(out.into_std().await).map_err(|e| local(&part, e))?;
        let done = client.download(self.read(path), &mut out, &mut |_| ()).await;
        let done = done.and_then(|entry| out.finish().map(|()| entry).map_err(|e| local(&part, e)));
        let entry = match done {
            Ok(entry) => entry,
            Err(error) => {
                let _ = fs::remove_file(&part); // the error that counts is the first
                return Err(error);
            }
        };
        let mode = mode.unwrap_or(entry.mode) & 0o777;
        fs::set_permissions(&part, fs::Permissions::from_mode(mode)).map_err(|e| local(&part, e))?;
        fs::rename(&part, to).map_err(|e| local(to, e))
    }

    fn may_replace(&self, to: &Path) -> Result<()> {
        match fs::symlink_metadata(to) {
            Ok(_) if !self.force => {
                Err(Error::new(Reason::AlreadyExists, format!("{} exists", to.display()))
                    .next("replace it with --force"))
            }
            _ => Ok(()),
        }
    }

    fn make_way(&self, to: &Path) -> Result<()> {
        self.may_replace(to)?;
        match fs::remove_file(to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(local(to, e)),
            _ => Ok(()),
        }
    }
}

/// A directory, not a link to one: a session that holds a link `a` and then, by a change meanwhile, files in `a/` must not
/// write through the link.
fn real_dir(to: &Path) -> Result<()> {
    match fs::create_dir(to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match fs::symlink_metadata(to) {
            Ok(meta) if meta.is_dir() => Ok(()),
            _ => Err(local(to, e)),
        },
        Err(e) => Err(local(to, e)),
    }
}
