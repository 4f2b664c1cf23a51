//! `aether fs chmod`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{self, Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Change permission bits
#[derive(Args)]
pub(crate) struct Chmod {
    /// Octal permission bits, e.g. 755; symbolic ones (u+x) are not taken
    #[arg(value_parser = values::permissions)]
    mode: u32,
    /// File or directory
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    path: Target,
}

impl Chmod {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::SetAttributesRequest {
            session_id: self.path.session_text(),
            path: self.path.path_text(),
            mode: Some(self.mode),
            ..api::SetAttributesRequest::default()
        };
        changed(cx, &cx.client()?.set_attributes(request).await?);
        Ok(())
    }
}
