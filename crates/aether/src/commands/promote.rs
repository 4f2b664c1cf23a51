//! `aether promote`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::fields;
use crate::values;
use afs_client::api;
use afs_types::{CommitId, Result};
use clap::Args;

/// Push a commit as a branch to the source it came from; never over somebody else's commit
#[derive(Args)]
pub(crate) struct Promote {
    /// Id of the commit
    #[arg(value_parser = values::commit_id)]
    commit: CommitId,
    /// Branch to push; default: aether/SESSION
    #[arg(long, value_parser = values::branch)]
    branch: Option<String>,
    /// Replace the branch only if it is still at this git commit, also when that is no fast-forward
    #[arg(long, default_value = "", hide_default_value = true, value_name = "OID")]
    if_branch_oid: String,
    /// Only if there is no such branch yet
    #[arg(long, conflicts_with = "if_branch_oid")]
    if_branch_absent: bool,
}

impl Promote {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::PromoteRequest {
            commit_id: self.commit.to_string(),
            branch: self.branch.unwrap_or_default(),
            if_branch_oid: self.if_branch_oid,
            if_branch_absent: self.if_branch_absent,
        };
        let done = cx.client()?.promote(request).await?;
        cx.out.result(&done, |style| {
            fields(
                style,
                [
                    ("branch", done.branch.clone()),
                    ("git commit", done.git_oid.clone()),
                    ("was at", done.previous_git_oid.clone()),
                    ("repository", done.remote_url.clone()),
                ],
            )
        });
        Ok(())
    }
}
