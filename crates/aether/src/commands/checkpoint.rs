//! `aether checkpoint`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::commands::pages;
use crate::context::Context;
use crate::output::{fields, paragraph, shown};
use crate::{text, values};
use afs_client::api;
use afs_types::{CheckpointId, Result, SessionId};
use clap::{Args, Subcommand};

/// Named instants of a session
#[derive(Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    /// Show one checkpoint
    Show(One),
    Restore(Restore),
    /// Delete one checkpoint
    Delete(One),
}

/// Name the current instant and print the checkpoint's id
#[derive(Args)]
pub(crate) struct Create {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
}

/// List checkpoints
#[derive(Args)]
pub(crate) struct List {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Also those that the server made before a restore
    #[arg(long)]
    automatic: bool,
    /// Most checkpoints to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

/// One checkpoint
#[derive(Args)]
pub(crate) struct One {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Id of the checkpoint
    #[arg(value_parser = values::checkpoint_id)]
    checkpoint: CheckpointId,
}

/// Take a session back to a checkpoint; the state before is kept as an automatic checkpoint
#[derive(Args)]
pub(crate) struct Restore {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Id of the checkpoint
    #[arg(value_parser = values::checkpoint_id)]
    checkpoint: CheckpointId,
    /// Only if the session is still at this revision
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
}

impl Command {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        match self {
            Self::Create(c) => {
                let request = api::CreateCheckpointRequest {
                    session_id: c.session.to_string(),
                    name: c.name,
                    message: c.message,
                    request_id: String::new(),
                };
                let made = client.create_checkpoint(request).await?;
                cx.out.result(&made, |_| shown(&made.checkpoint_id));
            }
            Self::List(c) => return list(cx, c).await,
            Self::Show(c) => {
                let (session_id, checkpoint_id) = (c.session.to_string(), c.checkpoint.to_string());
                show(
                    cx,
                    &client.get_checkpoint(api::GetCheckpointRequest { session_id, checkpoint_id }).await?,
                );
            }
            Self::Restore(c) => {
                let request = api::RestoreCheckpointRequest {
                    session_id: c.session.to_string(),
                    checkpoint_id: c.checkpoint.to_string(),
                    if_revision: c.if_revision,
                    request_id: String::new(),
                };
                let restored = client.restore_checkpoint(request).await?;
                cx.out.result(&restored, |style| {
                    fields(
                        style,
                        [
                            ("revision", restored.revision.to_string()),
                            ("files changed", restored.files_changed.to_string()),
                            ("state before", restored.safety_checkpoint_id.clone()),
                        ],
                    )
                });
            }
            Self::Delete(c) => {
                let (session_id, checkpoint_id) = (c.session.to_string(), c.checkpoint.to_string());
                let request = api::DeleteCheckpointRequest { session_id, checkpoint_id };
                let deleted = client.delete_checkpoint(request).await?;
                cx.out.result(&deleted, |_| String::new());
            }
        }
        Ok(())
    }
}

async fn list(cx: &Context, c: List) -> Result<()> {
    let client = cx.client()?;
    let request = |page_size, page_token| api::ListCheckpointsRequest {
        session_id: c.session.to_string(),
        page_size,
        page_token,
        include_automatic: c.automatic,
    };
    let page = async |size, token| {
        client.list_checkpoints(request(size, token)).await.map(|p| (p.checkpoints, p.next_page_token))
    };
    let row = |k: &api::Checkpoint| {
        let kind = if k.automatic { "automatic" } else { "" };
        [
            k.checkpoint_id.clone(),
            k.name.clone(),
            k.revision.to_string(),
            kind.to_owned(),
            text::time(k.create_time.as_ref()),
        ]
    };
    pages::list(cx, c.limit, ["CHECKPOINT", "NAME", "REVISION", "KIND", "CREATED"], page, row).await
}

fn show(cx: &Context, k: &api::Checkpoint) {
    cx.out.result(k, |style| {
        fields(
            style,
            [
                ("checkpoint", k.checkpoint_id.clone()),
                ("session", k.session_id.clone()),
                ("name", k.name.clone()),
                ("revision", k.revision.to_string()),
                ("created", text::time(k.create_time.as_ref())),
            ],
        ) + &paragraph(style, "message", &k.message)
    });
}
