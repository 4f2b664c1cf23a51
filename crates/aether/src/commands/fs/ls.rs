//! `aether fs ls`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::{last_name, long_listing, short_name};
use crate::commands::pages;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// List a directory
#[derive(Args)]
pub(crate) struct Ls {
    /// Directory to list
    #[arg(value_name = "SESSION:/DIR", value_parser = target())]
    dir: Target,
    /// Also mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Exact names, each ended by NUL
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
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
    let request = |page_size, page_token| api::ListDirectoryRequest {
        session_id: dir.session_text(),
        path: dir.path_text(),
        depth,
        page_size,
        page_token,
        checkpoint_id: at.to_owned(),
    };
    pages::all(async |size, token| {
        client.list_directory(request(size, token)).await.map(|p| (p.entries, p.next_page_token))
    })
    .await
}
