//! `aether commit`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::commands::pages;
use crate::context::Context;
use crate::output::{fields, paragraph, shown};
use crate::{text, values};
use afs_client::api;
use afs_types::{CommitId, Result, SessionId};
use clap::{Args, Subcommand};

/// Durable outcomes of a session
#[derive(Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    Show(Show),
}

/// Make a git commit of the session's tracked content and print the commit's id; nothing leaves the server
#[derive(Args)]
pub(crate) struct Create {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Commit message
    #[arg(short, long)]
    message: String,
    /// Author's name
    #[arg(long, default_value = "", hide_default_value = true)]
    author_name: String,
    /// Author's address
    #[arg(long, default_value = "", hide_default_value = true)]
    author_email: String,
    /// Also when nothing changed
    #[arg(long)]
    allow_empty: bool,
    /// Only if the session is still at this revision
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
}

/// List commits
#[derive(Args)]
pub(crate) struct List {
    /// Only of this session
    #[arg(value_parser = values::session_id)]
    session: Option<SessionId>,
    /// Most commits to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

/// Show one commit
#[derive(Args)]
pub(crate) struct Show {
    /// Id of the commit
    #[arg(value_parser = values::commit_id)]
    commit: CommitId,
}

impl Command {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        match self {
            Self::Create(c) => {
                let git = api::GitTarget { author_name: c.author_name, author_email: c.author_email };
                let request = api::CreateCommitRequest {
                    session_id: c.session.to_string(),
                    message: c.message,
                    if_revision: c.if_revision,
                    target: Some(api::create_commit_request::Target::Git(git)),
                    request_id: String::new(),
                    allow_empty: c.allow_empty,
                };
                let made = client.create_commit(request).await?;
                cx.out.result(&made, |_| shown(&made.commit_id));
                cx.out.remark(&format!(
                    "git commit {}, {} files changed\nnext: aether promote {}",
                    made.git_oid, made.files_changed, made.commit_id
                ));
            }
            Self::List(c) => {
                let page = async |page_size, page_token| {
                    let session_id = c.session.as_ref().map(ToString::to_string).unwrap_or_default();
                    let request = api::ListCommitsRequest { session_id, page_size, page_token };
                    client.list_commits(request).await.map(|p| (p.commits, p.next_page_token))
                };
                let head = ["COMMIT", "GIT", "SESSION", "FILES", "BRANCH", "MESSAGE", "CREATED"];
                pages::list(cx, c.limit, head, page, row).await?;
            }
            Self::Show(c) => {
                let request = api::GetCommitRequest { commit_id: c.commit.to_string() };
                show(cx, &client.get_commit(request).await?);
            }
        }
        Ok(())
    }
}

fn row(c: &api::Commit) -> [String; 7] {
    [
        c.commit_id.clone(),
        c.git_oid.chars().take(12).collect(),
        c.session_id.clone(),
        c.files_changed.to_string(),
        c.pushed_ref.clone(),
        c.message.lines().next().unwrap_or_default().chars().take(50).collect(),
        text::time(c.create_time.as_ref()),
    ]
}

fn show(cx: &Context, c: &api::Commit) {
    cx.out.result(c, |style| {
        fields(
            style,
            [
                ("commit", c.commit_id.clone()),
                ("git commit", c.git_oid.clone()),
                ("git tree", c.git_tree_oid.clone()),
                ("session", c.session_id.clone()),
                ("revision", c.revision.to_string()),
                ("source", c.source_id.clone()),
                ("version", c.source_version_id.clone()),
                ("files changed", c.files_changed.to_string()),
                ("parents", c.parent_commit_ids.join(", ")),
                ("branch", c.pushed_ref.clone()),
                ("created", text::time(c.create_time.as_ref())),
            ],
        ) + &paragraph(style, "message", &c.message)
    });
}
