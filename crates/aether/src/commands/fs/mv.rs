//! `aether fs mv`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::{Error, Reason, Result};
use clap::Args;

/// Rename a file or directory, whatever its size, in one step
#[derive(Args)]
pub(crate) struct Mv {
    /// What to rename
    #[arg(value_name = "SESSION:/FROM", value_parser = target())]
    source: Target,
    /// Its new name, in the same session
    #[arg(value_name = "SESSION:/TO", value_parser = target())]
    destination: Target,
    /// Replace what is there
    #[arg(short = 'f', long)]
    overwrite: bool,
}

impl Mv {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        if self.source.session != self.destination.session {
            return Err(Error::new(
                Reason::CrossSession,
                format!("{} and {} are in different sessions", self.source, self.destination),
            )
            .next("copy with `aether fs cp`, then remove the source"));
        }
        let request = api::MovePathRequest {
            session_id: self.source.session_text(),
            source: self.source.path_text(),
            destination: self.destination.path_text(),
            overwrite: self.overwrite,
            ..api::MovePathRequest::default()
        };
        changed(cx, &cx.client()?.move_path(request).await?);
        Ok(())
    }
}
