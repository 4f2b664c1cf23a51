//! `aether fs tree`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::{ls, short_name};
use crate::context::Context;
use crate::values::{Target, target};
use afs_types::Result;
use clap::Args;

/// Show a directory as a tree
#[derive(Args)]
pub(crate) struct Tree {
    /// Directory to begin with
    #[arg(value_name = "SESSION:/DIR", value_parser = target())]
    dir: Target,
    /// How many levels
    #[arg(short = 'L', long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
    at: String,
}

impl Tree {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let mut entries = ls::entries(cx, &self.dir, self.depth, &self.at).await?;
        // Depth first: a directory's own path sorts before what is below it, component by component.
        entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        let base = self.dir.path.names().len();
        cx.out.result(&entries, |_| {
            let lines = entries.iter().map(|e| {
                let level = e.path.matches('/').count().saturating_sub(base + 1);
                format!("{}{}\n", "  ".repeat(level), short_name(e))
            });
            lines.collect()
        });
        Ok(())
    }
}
