//! `aether fs glob`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::commands::pages;
use crate::context::Context;
use crate::output::shown;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Find entries whose path fits a pattern
#[derive(Args)]
pub(crate) struct Glob {
    /// Directory to look in
    #[arg(value_name = "SESSION:/DIR", value_parser = target())]
    dir: Target,
    /// e.g. `**/*.rs`
    pattern: String,
    /// Leave out .git and what .gitignore files name
    #[arg(long)]
    gitignore: bool,
    /// Only what differs from the session's base
    #[arg(long)]
    changed: bool,
    /// Exact paths, each ended by NUL
    #[arg(short = '0', long)]
    null: bool,
    /// Most entries to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

impl Glob {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let request = |page_size, page_token| api::GlobRequest {
            session_id: self.dir.session_text(),
            pattern: self.pattern.clone(),
            path: self.dir.path_text(),
            page_size,
            page_token,
            respect_gitignore: self.gitignore,
            changed_only: self.changed,
        };
        let page = async |size, token| {
            client.glob(request(size, token)).await.map(|p| (p.entries, p.next_page_token))
        };
        let mut kept = Vec::new();
        let more = pages::pages(self.limit, page, |entries| match (cx.out.json, self.null) {
            (true, _) => kept.extend(entries),
            (false, true) => entries.iter().for_each(|e| cx.out.exact(&e.path)),
            (false, false) => {
                let lines: String = entries.iter().map(|e| shown(&e.path) + "\n").collect();
                cx.out.bytes(lines.as_bytes());
            }
        });
        let more = more.await?;
        if cx.out.json {
            cx.out.json_value(&kept);
        }
        if more {
            pages::cut(cx, self.limit);
        }
        Ok(())
    }
}
