//! `aether fs cp`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Copy inside of a session or between sessions, without copying bytes
#[derive(Args)]
pub(crate) struct Cp {
    /// What to copy
    #[arg(value_name = "SESSION:/FROM", value_parser = target())]
    source: Target,
    /// Name of the copy
    #[arg(value_name = "SESSION:/TO", value_parser = target())]
    destination: Target,
    /// Copy a directory with what is in it
    #[arg(short, long)]
    recursive: bool,
    /// Replace what is there
    #[arg(short = 'f', long)]
    overwrite: bool,
}

impl Cp {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let is_same = self.source.session == self.destination.session;
        let request = api::CopyPathRequest {
            session_id: self.destination.session_text(),
            source: self.source.path_text(),
            destination: self.destination.path_text(),
            source_session_id: if is_same { String::new() } else { self.source.session_text() },
            recursive: self.recursive,
            overwrite: self.overwrite,
            ..api::CopyPathRequest::default()
        };
        changed(cx, &cx.client()?.copy_path(request).await?);
        Ok(())
    }
}
