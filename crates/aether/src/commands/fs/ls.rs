//! `aether fs ls`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::{last_name, long_listing, short_name};
use crate::commands::all_pages;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// List a directory
#[derive(Args)]
pub(crate) struct Ls {
    #[arg(value_name = "SESSION:/DIR", value_parser = target())]
    dir: Target,
    /// Also mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Exact names, each ended by NUL
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    /// Look at this checkpoint, this commit, or `base`
    #[arg(long, default_value = "")]
    at: String,
}

impl Ls {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let entries = entries(cx, &self.dir, 1, &self.at).await?;
        if self.null && !cx.out.json {
            entries.iter().for_each(|e| cx.out.exact(last_name(e)));
            return Ok(());
        }
        cx.out.result(&entries, |_| match self.long {
            true => long_listing(&entries, short_name),
            false => entries.iter().map(|e| short_name(e) + "\n").collect(),
        });
        Ok(())
    }
}

/// Entries below a directory, down to a depth.
pub(super) async fn entries(cx: &Context, dir: &Target, depth: u32, at: &str) -> Result<Vec<api::Entry>> {
    let client = cx.client()?;
    let request = |page_token| api::ListDirectoryRequest {
        session_id: dir.session_text(),
        path: dir.path_text(),
        depth,
        page_size: 1000,
        page_token,
        checkpoint_id: at.to_owned(),
    };
    Ok(all_pages!(usize::MAX, |token| client.list_directory(request(token)), entries))
}
