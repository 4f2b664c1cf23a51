//! `aether fs rm`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::commands::several::Several;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Reason;
use clap::Args;

/// Remove files, or directories with -r
#[derive(Args)]
pub(crate) struct Rm {
    /// What to remove
    #[arg(value_name = "SESSION:/PATH", value_parser = target(), required = true)]
    paths: Vec<Target>,
    /// Also directories with what is in them
    #[arg(short, long)]
    recursive: bool,
    /// No error for what is not there
    #[arg(short, long)]
    force: bool,
    /// Only if the entry still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    if_etag: String,
}

impl Rm {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let client = cx.client()?;
        let mut several = Several::new(cx, "target");
        for path in &self.paths {
            let request = api::RemovePathRequest {
                session_id: path.session_text(),
                path: path.path_text(),
                recursive: self.recursive,
                precondition: Some(api::Precondition { if_etag: self.if_etag.clone(), if_absent: false }),
                ..api::RemovePathRequest::default()
            };
            match client.remove_path(request).await {
                Ok(_) => several.done(path.to_string()),
                Err(error) if self.force && error.reason == Reason::NotFound => {}
                Err(error) => several.failed(path.to_string(), error),
            }
        }
        several.end("removed")
    }
}
