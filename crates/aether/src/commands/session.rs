//! `aether session`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::commands::pages;
use crate::commands::several::Several;
use crate::context::Context;
use crate::imports;
use crate::output::{fields, shown};
use crate::{text, values};
use afs_client::{FieldMask, api, to_duration};
use afs_types::{CheckpointId, Clock, CommitId, Error, Result, SessionId, SourceId, SystemClock};
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Copy-on-write workspaces
#[derive(Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    /// Show one session
    Show(One),
    Update(Update),
    Fork(Fork),
    /// Take a session out of the server's memory; its id and its files stay, and `resume` brings it back
    Archive(One),
    /// Bring an archived session back to work
    Resume(One),
    Delete(Delete),
}

/// What a session starts from. Exactly one.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Start {
    /// Git repository, imported first if it is not there yet
    #[arg(long, value_name = "REPOSITORY[@REF]")]
    git: Option<String>,
    /// Directory on the server's machine, imported first
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
    /// One empty directory
    #[arg(long)]
    empty: bool,
    /// Source that is there already
    #[arg(long, value_name = "SOURCE", value_parser = values::source_id)]
    source: Option<SourceId>,
}

/// Make a session and print its id
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    start: Start,
    /// Version of the source; default: the newest
    #[arg(long, requires = "source", default_value = "", hide_default_value = true)]
    version: String,
    /// Id to use, `sess_` and then [a-z0-9_-]
    #[arg(long, value_parser = values::session_id)]
    id: Option<SessionId>,
    /// Name for people
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Delete it after this time, e.g. 12h
    #[arg(long, value_parser = values::duration)]
    ttl: Option<Duration>,
}

/// List sessions
#[derive(Args)]
pub(crate) struct List {
    /// Only with this label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Only in this state
    #[arg(long)]
    state: Option<State>,
    /// Only from this source
    #[arg(long, value_parser = values::source_id)]
    source: Option<SourceId>,
    /// Only forks of this session
    #[arg(long, value_parser = values::session_id)]
    parent: Option<SessionId>,
    /// Most sessions to show; default: all
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Active,
    Archived,
}

/// One session
#[derive(Args)]
pub(crate) struct One {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
}

/// Change name, labels or expiry
#[derive(Args)]
pub(crate) struct Update {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Label to set; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Label to remove; may be given several times
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    /// Delete it after this time from now
    #[arg(long, value_parser = values::duration, conflicts_with = "no_ttl")]
    ttl: Option<Duration>,
    /// Keep it until it is deleted
    #[arg(long)]
    no_ttl: bool,
}

/// Copy a session, or a checkpoint or commit of it, and print the ids of the copies
#[derive(Args)]
pub(crate) struct Fork {
    /// Id of the session to copy
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// How many
    #[arg(short = 'n', long = "count", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Fork from this checkpoint instead of the current state
    #[arg(long, value_parser = values::checkpoint_id, conflicts_with = "commit")]
    checkpoint: Option<CheckpointId>,
    /// Fork from this commit (the whole state that was committed, ignored files too) instead of the current state
    #[arg(long, value_parser = values::commit_id)]
    commit: Option<CommitId>,
    /// Id to use; may be given as often as there are forks
    #[arg(long = "id", value_parser = values::session_id, conflicts_with = "count")]
    ids: Vec<SessionId>,
    /// Label of the forks; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Delete them after this time
    #[arg(long, value_parser = values::duration)]
    ttl: Option<Duration>,
}

/// Delete a session and its checkpoints; forks and commits stay
#[derive(Args)]
pub(crate) struct Delete {
    /// Ids of the sessions
    #[arg(required = true, value_parser = values::session_id)]
    sessions: Vec<SessionId>,
    /// Also while it is mounted
    #[arg(long)]
    force: bool,
    /// Only if it still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Command {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        match self {
            Self::Create(c) => create(cx, c).await?,
            Self::List(c) => list(cx, c).await?,
            Self::Show(c) => {
                let request = api::GetSessionRequest { session_id: c.session.to_string() };
                show(cx, &cx.client()?.get_session(request).await?);
            }
            Self::Update(c) => update(cx, c).await?,
            Self::Fork(c) => fork(cx, c).await?,
            Self::Archive(c) => {
                let request = api::ArchiveSessionRequest { session_id: c.session.to_string() };
                show(cx, &cx.client()?.archive_session(request).await?);
            }
            Self::Resume(c) => {
                let request = api::ResumeSessionRequest { session_id: c.session.to_string() };
                show(cx, &cx.client()?.resume_session(request).await?);
            }
            Self::Delete(c) => return delete(cx, c).await,
        }
        Ok(())
    }
}

async fn create(cx: &Context, c: Create) -> Result<()> {
    let source_id = match (&c.start.source, c.start.empty) {
        (Some(source), _) => source.to_string(),
        (None, true) => String::new(),
        (None, false) => {
            let from = imports::From::new(c.start.git.clone(), c.start.local.clone());
            imports::of_session(cx, &from).await?.source_id
        }
    };
    let request = api::CreateSessionRequest {
        session_id: c.id.map(|id| id.to_string()).unwrap_or_default(),
        source_id,
        source_version_id: c.version,
        display_name: c.name,
        labels: c.labels.into_iter().collect(),
        ttl: c.ttl.map(ttl),
        request_id: String::new(),
    };
    let session = cx.client()?.create_session(request).await?;
    cx.out.result(&session, |_| shown(&session.session_id));
    cx.out.remark(&format!("next: aether mount --session {} DIR", session.session_id));
    Ok(())
}

fn ttl(ttl: Duration) -> afs_client::ApiDuration {
    to_duration(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX))
}

async fn list(cx: &Context, c: List) -> Result<()> {
    let client = cx.client()?;
    let filter: Vec<String> = c.labels.iter().map(|(k, v)| format!("label.{k}={v}")).collect();
    let state = c.state.map(|s| match s {
        State::Active => api::SessionState::Active.into(),
        State::Archived => api::SessionState::Archived.into(),
    });
    let request = |page_size, page_token| api::ListSessionsRequest {
        page_size,
        page_token,
        filter: filter.join(" AND "),
        states: state.into_iter().collect(),
        source_id: c.source.as_ref().map(ToString::to_string).unwrap_or_default(),
        parent_session_id: c.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let head = ["SESSION", "STATE", "REVISION", "SOURCE", "PARENT", "LABELS", "UPDATED"];
    let page = async |size, token| {
        client.list_sessions(request(size, token)).await.map(|p| (p.sessions, p.next_page_token))
    };
    let row = |s: &api::Session| {
        [
            s.session_id.clone(),
            state_text(s).to_owned(),
            s.revision.to_string(),
            s.source_id.clone(),
            s.parent_session_id.clone(),
            text::labels(&s.labels),
            text::time(s.update_time.as_ref()),
        ]
    };
    pages::list(cx, c.limit, head, page, row).await
}

async fn update(cx: &Context, c: Update) -> Result<()> {
    let client = cx.client()?;
    let mut paths = Vec::new();
    let mut session =
        client.get_session(api::GetSessionRequest { session_id: c.session.to_string() }).await?;
    if let Some(name) = c.name {
        session.display_name = name;
        paths.push("display_name");
    }
    if !c.labels.is_empty() || !c.remove_label.is_empty() {
        session.labels.extend(c.labels);
        session.labels.retain(|key, _| !c.remove_label.contains(key));
        paths.push("labels");
    }
    if c.ttl.is_some() || c.no_ttl {
        session.expire_time = c.ttl.map(|ttl| {
            let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
            afs_client::timestamp(SystemClock.now_ns().saturating_add(ttl))
        });
        paths.push("expire_time");
    }
    if paths.is_empty() {
        return Err(Error::invalid(
            "update",
            "at least one of --name, --label, --remove-label, --ttl, --no-ttl",
        ));
    }
    // The etag read above goes along: labels changed by somebody else meanwhile are not overwritten.
    let update_mask = Some(FieldMask { paths: paths.into_iter().map(String::from).collect() });
    let request =
        api::UpdateSessionRequest { session_id: c.session.to_string(), session: Some(session), update_mask };
    show(cx, &client.update_session(request).await?);
    Ok(())
}

async fn fork(cx: &Context, c: Fork) -> Result<()> {
    let request = api::ForkSessionRequest {
        session_id: c.session.to_string(),
        checkpoint_id: c.checkpoint.map(|id| id.to_string()).unwrap_or_default(),
        commit_id: c.commit.map(|id| id.to_string()).unwrap_or_default(),
        count: if c.ids.is_empty() { c.count } else { 0 },
        new_session_ids: c.ids.iter().map(ToString::to_string).collect(),
        labels: c.labels.into_iter().collect::<BTreeMap<_, _>>(),
        ttl: c.ttl.map(ttl),
        request_id: String::new(),
    };
    let forks = cx.client()?.fork_session(request).await?.sessions;
    cx.out.result(&forks, |_| forks.iter().map(|s| shown(&s.session_id) + "\n").collect());
    Ok(())
}

async fn delete(cx: &Context, c: Delete) -> Result<(), Ended> {
    let client = cx.client()?;
    let mut several = Several::new(cx, "session_id");
    for session in &c.sessions {
        let request = api::DeleteSessionRequest {
            session_id: session.to_string(),
            force: c.force,
            etag: c.etag.clone(),
        };
        match client.delete_session(request).await {
            Ok(_) => several.done(session.as_str()),
            Err(error) => several.failed(session.as_str(), error),
        }
    }
    several.end("deleted")
}

fn show(cx: &Context, s: &api::Session) {
    let usage = s.usage.as_ref();
    cx.out.result(s, |style| {
        fields(
            style,
            [
                ("session", s.session_id.clone()),
                ("name", s.display_name.clone()),
                ("state", state_text(s).to_owned()),
                ("revision", s.revision.to_string()),
                ("source", s.source_id.clone()),
                ("version", s.source_version_id.clone()),
                ("parent", s.parent_session_id.clone()),
                ("mounts", usage.map(|u| u.mounts.to_string()).unwrap_or_default()),
                ("labels", text::labels(&s.labels)),
                ("etag", s.etag.clone()),
                ("created", text::time(s.create_time.as_ref())),
                ("updated", text::time(s.update_time.as_ref())),
                ("expires", text::time(s.expire_time.as_ref())),
            ],
        )
    });
}

fn state_text(session: &api::Session) -> &'static str {
    match session.state() {
        api::SessionState::Active => "active",
        api::SessionState::Archived => "archived",
        api::SessionState::Unspecified => "",
    }
}
