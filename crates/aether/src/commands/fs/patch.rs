//! `aether fs patch`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::put::local;
use crate::context::Context;
use crate::output::shown;
use crate::values;
use afs_client::api;
use afs_types::{Error, Reason, Result, SessionId, limits};
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Apply a patch, all of it or nothing
#[derive(Args)]
pub(crate) struct Patch {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Unified diff, git patch, or `*** Begin Patch` format; default: stdin
    #[arg(default_value = "-")]
    patch: PathBuf,
    /// Leading path components to drop
    #[arg(long)]
    strip: Option<u32>,
    /// Show what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Only if the session is still at this revision
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
}

impl Patch {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::ApplyPatchRequest {
            session_id: self.session.to_string(),
            patch: read(&self.patch).await?,
            format: api::PatchFormat::Unspecified.into(),
            strip: self.strip,
            dry_run: self.dry_run,
            if_revision: self.if_revision,
            ..api::ApplyPatchRequest::default()
        };
        let answer = cx.client()?.apply_patch(request).await?;
        cx.out.result(&answer, |_| answer.changes.iter().map(|c| shown(&c.path) + "\n").collect());
        Ok(())
    }
}

async fn read(path: &Path) -> Result<String> {
    let mut text = Vec::new();
    let most = limits::MAX_PATCH_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        tokio::io::stdin().take(most).read_to_end(&mut text).await
    } else {
        let file = tokio::fs::File::open(path).await.map_err(|e| local(path, e))?;
        file.take(most).read_to_end(&mut text).await
    };
    read.map_err(|e| local(path, e))?;
    if text.len() > limits::MAX_PATCH_BYTES {
        return Err(Error::new(
            Reason::MessageTooLarge,
            format!("the patch has more than {} bytes", limits::MAX_PATCH_BYTES),
        )
        .next("split it"));
    }
    String::from_utf8(text).map_err(|_| Error::new(Reason::InvalidPatch, "the patch is not UTF-8"))
}
