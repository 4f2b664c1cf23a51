//! `aether fs mkdir`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{self, Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Make a directory
#[derive(Args)]
pub(crate) struct Mkdir {
    /// Directory to make
    #[arg(value_name = "SESSION:/DIR", value_parser = target())]
    dir: Target,
    /// Also missing parents; an existing directory is no error
    #[arg(short, long)]
    parents: bool,
    /// Permission bits
    #[arg(long, value_parser = values::permissions, default_value = "755")]
    mode: u32,
}

impl Mkdir {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::CreateDirectoryRequest {
            session_id: self.dir.session_text(),
            path: self.dir.path_text(),
            mode: self.mode,
            parents: self.parents,
            ..api::CreateDirectoryRequest::default()
        };
        changed(cx, &cx.client()?.create_directory(request).await?);
        Ok(())
    }
}
