//! `aether diff`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::{Output, shown};
use crate::values;
use afs_client::api;
use afs_types::{Result, SessionId};
use clap::Args;

/// What differs between two states of a session, by default between its base and now
#[derive(Args)]
pub(crate) struct Diff {
    /// Id of the session
    #[arg(value_parser = values::session_id)]
    session: SessionId,
    /// Only these paths and what is below them
    paths: Vec<String>,
    /// State to compare from: `base`, `live`, or a checkpoint, commit or session of the same base. A commit is the whole state that was
    /// committed, with the ignored and untracked files that its git commit does not hold
    #[arg(long, default_value = "base")]
    base: String,
    /// State to compare to
    #[arg(long, default_value = "live")]
    target: String,
    /// Only kinds and paths
    #[arg(long)]
    name_only: bool,
    /// With --name-only: exact paths, each ended by NUL and after its letter (a move: old and new path)
    #[arg(short = '0', long, requires = "name_only")]
    null: bool,
    /// Only line counts
    #[arg(long, conflicts_with = "name_only")]
    stat: bool,
    /// Lines around each change
    #[arg(short = 'U', long = "context", default_value_t = 3)]
    context: u32,
    /// Also what lies in a `.git`, which is left out otherwise unless one of the paths leads into it
    #[arg(long)]
    include_git_dir: bool,
}

impl Diff {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::DiffRequest {
            session_id: self.session.to_string(),
            base: self.base,
            target: self.target,
            paths: self.paths,
            name_only: self.name_only,
            context_lines: self.context,
            include_git_dir: self.include_git_dir,
        };
        let mut changes = cx.client()?.diff(request).await?;
        while let Some(change) = changes.next().await? {
            match (cx.out.json, self.name_only, self.stat) {
                (true, ..) => cx.out.json_value(&change),
                (_, true, _) if self.null => exact(&change, cx.out),
                (_, true, _) => cx.out.bytes(format!("{}\n", name(&change)).as_bytes()),
                (_, _, true) => cx.out.bytes(format!("{}\n", stat(&change)).as_bytes()),
                _ => cx.out.bytes(patch(&change, cx.out).as_bytes()),
            }
        }
        Ok(())
    }
}

fn letter(change: &api::FileChange) -> char {
    match change.kind() {
        api::ChangeKind::Added => 'A',
        api::ChangeKind::Modified => 'M',
        api::ChangeKind::Deleted => 'D',
        api::ChangeKind::Renamed => 'R',
        api::ChangeKind::Mode => 'T',
        api::ChangeKind::Unspecified => '?',
    }
}

fn is_move(change: &api::FileChange) -> bool {
    !change.old_path.is_empty() && change.old_path != change.path
}

fn exact(change: &api::FileChange, out: Output) {
    out.exact(&letter(change).to_string());
    if is_move(change) {
        out.exact(&change.old_path);
    }
    out.exact(&change.path);
}

fn name(change: &api::FileChange) -> String {
    let (letter, path) = (letter(change), shown(&change.path));
    match is_move(change) {
        false => format!("{letter} {path}"),
        true => format!("{letter} {} -> {path}", shown(&change.old_path)),
    }
}

fn stat(change: &api::FileChange) -> String {
    match change.binary {
        true => format!("{} (binary)", name(change)),
        false => format!("{} +{} -{}", name(change), change.lines_added, change.lines_removed),
    }
}

fn patch(change: &api::FileChange, out: Output) -> String {
    let style = out.style;
    if change.patch.is_empty() {
        return format!("{}\n", style.bold(&stat(change)));
    }
    let content = out.content(&change.patch);
    let painted = content.split_inclusive('\n').map(|line| {
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        let shown = match text.as_bytes().first() {
            _ if text.starts_with("+++") || text.starts_with("---") || text.starts_with("diff ") => {
                style.bold(text)
            }
            Some(b'+') => style.green(text),
            Some(b'-') => style.red(text),
            Some(b'@') => style.dim(text),
            _ => text.to_owned(),
        };
        shown + end
    });
    let text: String = painted.collect();
    if text.ends_with('\n') { text } else { text + "\n" }
}
