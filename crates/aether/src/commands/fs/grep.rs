//! `aether fs grep`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::{Output, shown};
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Find lines that match a regular expression
#[derive(Args)]
pub(crate) struct Grep {
    /// Regular expression
    pattern: String,
    /// File, or directory to look in
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    path: Target,
    /// Only files that fit, e.g. `*.rs`; with `!` in front: not those; may be given several times
    #[arg(short, long = "glob", value_name = "GLOB")]
    globs: Vec<String>,
    /// The pattern is plain text
    #[arg(short = 'F', long)]
    fixed: bool,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Matches may span lines
    #[arg(short = 'U', long)]
    multiline: bool,
    /// Lines before and after each match
    #[arg(short = 'C', long, default_value_t = 0, hide_default_value = true)]
    context: u32,
    /// Only the paths of files that match
    #[arg(short = 'l', long)]
    files: bool,
    /// With --files: exact paths, each ended by NUL
    #[arg(short = '0', long, requires = "files")]
    null: bool,
    /// Leave out .git and what .gitignore files name
    #[arg(long)]
    gitignore: bool,
    /// Only what differs from the session's base
    #[arg(long)]
    changed: bool,
    /// Most matches; 0 = the server's limit
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    max_count: u32,
}

impl Grep {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::GrepRequest {
            session_id: self.path.session_text(),
            pattern: self.pattern,
            path: self.path.path_text(),
            globs: self.globs,
            fixed_string: self.fixed,
            ignore_case: self.ignore_case,
            multiline: self.multiline,
            before: self.context,
            after: self.context,
            max_count: self.max_count,
            respect_gitignore: self.gitignore,
            changed_only: self.changed,
        };
        let mut matches = cx.client()?.grep(request).await?;
        let mut last_path = String::new();
        while let Some(found) = matches.next().await? {
            if cx.out.json {
                cx.out.json_value(&found);
            } else if !self.files {
                cx.out.bytes(lines(&found, cx.out).as_bytes());
            } else if found.path != last_path {
                match self.null {
                    true => cx.out.exact(&found.path),
                    false => cx.out.bytes(format!("{}\n", shown(&found.path)).as_bytes()),
                }
                last_path.clone_from(&found.path);
            }
            if found.truncated {
                cx.out.remark("the limit was reached: there may be more matches");
            }
        }
        Ok(())
    }
}

fn lines(found: &api::GrepMatch, out: Output) -> String {
    let path = out.style.bold(&shown(&found.path));
    let first = found.line.saturating_sub(found.context_before.len() as u64);
    let before =
        found.context_before.iter().zip(first..).map(|(t, n)| format!("{path}-{n}-{}\n", out.content(t)));
    let own = found.text.lines().zip(found.line..).map(|(t, n)| format!("{path}:{n}:{}\n", out.content(t)));
    let next = found.line + found.text.lines().count().max(1) as u64;
    let after =
        found.context_after.iter().zip(next..).map(|(t, n)| format!("{path}-{n}-{}\n", out.content(t)));
    before.chain(own).chain(after).collect()
}
