//! `aether fs edit`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Replace text that occurs exactly once
#[derive(Args)]
pub(crate) struct Edit {
    /// Text file to change
    #[arg(value_name = "SESSION:/FILE", value_parser = target())]
    file: Target,
    /// Text to replace
    #[arg(long)]
    old: String,
    /// Text to put there
    #[arg(long)]
    new: String,
    /// Every occurrence, not exactly one
    #[arg(long)]
    all: bool,
    /// Only if the file still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    if_etag: String,
    /// Show the change, make none
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::EditFileRequest {
            session_id: self.file.session_text(),
            path: self.file.path_text(),
            edits: vec![api::Replacement { old_text: self.old, new_text: self.new, replace_all: self.all }],
            precondition: Some(api::Precondition { if_etag: self.if_etag, if_absent: false }),
            dry_run: self.dry_run,
            ..api::EditFileRequest::default()
        };
        let answer = cx.client()?.edit_file(request).await?;
        cx.out.result(&answer, |_| cx.out.content(&answer.diff).into_owned());
        Ok(())
    }
}
