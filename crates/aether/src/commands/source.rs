//! `aether source`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::commands::pages;
use crate::context::Context;
use crate::imports::{self, From, Naming};
use crate::output::{fields, shown};
use crate::{text, values};
use afs_client::api;
use afs_types::{Result, SourceId};
use api::source_spec::Spec;
use clap::{Args, Subcommand};

/// Bases that sessions start from
#[derive(Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    Show(One),
    Refresh(Refresh),
    Versions(Versions),
    Delete(Delete),
}

/// Import a git repository or a directory; the same one again adds a version only when it changed
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    from: From,
    /// Id to use, `src_` and then [a-z0-9_-]
    #[arg(long, value_parser = values::source_id)]
    id: Option<SourceId>,
    /// Name for people
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Do not wait for the import
    #[arg(long)]
    no_wait: bool,
}

/// List sources
#[derive(Args)]
pub(crate) struct List {
    /// Most sources to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

/// Show one source
#[derive(Args)]
pub(crate) struct One {
    /// Id of the source
    #[arg(value_parser = values::source_id)]
    source: SourceId,
}

/// Import again; running sessions keep their version
#[derive(Args)]
pub(crate) struct Refresh {
    /// Id of the source
    #[arg(value_parser = values::source_id)]
    source: SourceId,
    /// Another branch, tag or commit from now on
    #[arg(long, default_value = "", hide_default_value = true)]
    r#ref: String,
    /// Do not wait for the import
    #[arg(long)]
    no_wait: bool,
}

/// List the versions of a source, oldest first
#[derive(Args)]
pub(crate) struct Versions {
    /// Id of the source
    #[arg(value_parser = values::source_id)]
    source: SourceId,
    /// Most versions to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

/// Delete a source
#[derive(Args)]
pub(crate) struct Delete {
    /// Id of the source
    #[arg(value_parser = values::source_id)]
    source: SourceId,
    /// Also when sessions use it; they go on and can be committed, but not promoted
    #[arg(long)]
    force: bool,
}

impl Command {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        match self {
            Self::Create(c) => create(cx, c).await,
            Self::List(c) => list(cx, c.limit).await,
            Self::Show(c) => {
                let request = api::GetSourceRequest { source_id: c.source.to_string(), ..Default::default() };
                show(cx, &cx.client()?.get_source(request).await?);
                Ok(())
            }
            Self::Refresh(c) => {
                let request = api::RefreshSourceRequest { source_id: c.source.to_string(), r#ref: c.r#ref };
                let source = cx.client()?.refresh_source(request).await?;
                let source = if c.no_wait { source } else { imports::finish(cx, source).await? };
                show(cx, &source);
                Ok(())
            }
            Self::Versions(c) => versions(cx, c).await,
            Self::Delete(c) => {
                let request = api::DeleteSourceRequest { source_id: c.source.to_string(), force: c.force };
                let deleted = cx.client()?.delete_source(request).await?;
                cx.out.result(&deleted, |_| String::new());
                Ok(())
            }
        }
    }
}

async fn create(cx: &Context, c: Create) -> Result<()> {
    let source_id = c.id.map(|id| id.to_string()).unwrap_or_default();
    let naming = Naming { source_id, display_name: c.name, labels: c.labels };
    let source = imports::create(cx, &c.from, naming).await?;
    let source = if c.no_wait { source } else { imports::finish(cx, source).await? };
    cx.out.result(&source, |_| shown(&source.source_id));
    cx.out.remark(&format!("next: aether session create --source {}", source.source_id));
    Ok(())
}

async fn list(cx: &Context, limit: Option<usize>) -> Result<()> {
    let client = cx.client()?;
    let page = async |page_size, page_token| {
        let request = api::ListSourcesRequest { page_size, page_token };
        client.list_sources(request).await.map(|p| (p.sources, p.next_page_token))
    };
    let row = |s: &api::Source| {
        [
            s.source_id.clone(),
            state(s),
            spec(s),
            s.head_version_id.clone(),
            text::time(s.update_time.as_ref()),
        ]
    };
    pages::list(cx, limit, ["SOURCE", "STATE", "FROM", "VERSION", "UPDATED"], page, row).await
}

async fn versions(cx: &Context, c: Versions) -> Result<()> {
    let client = cx.client()?;
    let page = async |page_size, page_token| {
        let source_id = c.source.to_string();
        let request = api::ListSourceVersionsRequest { source_id, page_size, page_token };
        client.list_source_versions(request).await.map(|p| (p.versions, p.next_page_token))
    };
    let row = |v: &api::SourceVersion| {
        [
            v.version_id.clone(),
            v.upstream_revision.chars().take(12).collect(),
            v.file_count.to_string(),
            text::bytes(v.logical_bytes),
            text::bytes(v.stored_bytes),
            text::time(v.create_time.as_ref()),
        ]
    };
    let head = ["VERSION", "UPSTREAM", "FILES", "SIZE", "ADDED", "CREATED"];
    pages::list(cx, c.limit, head, page, row).await
}

fn show(cx: &Context, s: &api::Source) {
    cx.out.result(s, |style| {
        fields(
            style,
            [
                ("source", s.source_id.clone()),
                ("name", s.display_name.clone()),
                ("state", state(s)),
                ("from", spec(s)),
                ("version", s.head_version_id.clone()),
                ("progress", s.progress.as_ref().map(imports::progress_text).unwrap_or_default()),
                ("failure", s.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default()),
                ("labels", text::labels(&s.labels)),
                ("created", text::time(s.create_time.as_ref())),
                ("updated", text::time(s.update_time.as_ref())),
            ],
        )
    });
}

fn state(source: &api::Source) -> String {
    match source.state() {
        api::ResourceState::Running => "importing",
        api::ResourceState::Ready => "ready",
        api::ResourceState::Failed => "failed",
        api::ResourceState::Unspecified => "",
    }
    .to_owned()
}

fn spec(source: &api::Source) -> String {
    match source.spec.as_ref().and_then(|s| s.spec.as_ref()) {
        Some(Spec::Git(git)) if git.r#ref.is_empty() => format!("git {}", git.url),
        Some(Spec::Git(git)) => format!("git {}@{}", git.url, git.r#ref),
        Some(Spec::Local(local)) => format!("local {}", local.path),
        Some(Spec::Empty(_)) => "empty".to_owned(),
        None => String::new(),
    }
}
