//! `aether fs glob`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::commands::all_pages;
use crate::context::Context;
use crate::output::shown;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Find entries whose path fits a pattern
#[derive(Args)]
pub(crate) struct Glob {
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
    /// Most entries to show
    #[arg(long, default_value_t = 100_000)]
    limit: usize,
}

impl Glob {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let request = |page_token| api::GlobRequest {
            session_id: self.dir.session_text(),
            pattern: self.pattern.clone(),
            path: self.dir.path_text(),
            page_size: 1000,
            page_token,
            respect_gitignore: self.gitignore,
            changed_only: self.changed,
        };
        let entries = all_pages!(self.limit, |token| client.glob(request(token)), entries);
        if self.null && !cx.out.json {
            entries.iter().for_each(|e| cx.out.exact(&e.path));
            return Ok(());
        }
        cx.out.result(&entries, |_| entries.iter().map(|e| shown(&e.path) + "\n").collect());
        Ok(())
    }
}
