//! Files of a session, written `SESSION:/path`.

mod cat;
mod chmod;
mod cp;
mod edit;
mod get;
mod glob;
mod grep;
mod ln;
mod ls;
mod manifest;
mod mkdir;
mod mv;
mod patch;
mod put;
mod rm;
mod sparse;
mod stat;
mod tree;
mod write;

use crate::cli::Ended;
use crate::context::Context;
use crate::output::{shown, table};
use crate::text;
use afs_client::api;
use clap::Subcommand;

/// Files of a session, written SESSION:/path
#[derive(Subcommand)]
pub(crate) enum Command {
    Ls(ls::Ls),
    Tree(tree::Tree),
    Cat(cat::Cat),
    Stat(stat::Stat),
    Put(put::Put),
    Get(get::Get),
    Write(write::Write),
    Edit(edit::Edit),
    Patch(patch::Patch),
    Cp(cp::Cp),
    Mv(mv::Mv),
    Rm(rm::Rm),
    Mkdir(mkdir::Mkdir),
    Ln(ln::Ln),
    Chmod(chmod::Chmod),
    Glob(glob::Glob),
    Grep(grep::Grep),
    Manifest(manifest::Manifest),
}

impl Command {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        match self {
            Self::Ls(c) => c.run(cx).await?,
            Self::Tree(c) => c.run(cx).await?,
            Self::Cat(c) => return c.run(cx).await,
            Self::Stat(c) => c.run(cx).await?,
            Self::Put(c) => c.run(cx).await?,
            Self::Get(c) => c.run(cx).await?,
            Self::Write(c) => c.run(cx).await?,
            Self::Edit(c) => c.run(cx).await?,
            Self::Patch(c) => c.run(cx).await?,
            Self::Cp(c) => c.run(cx).await?,
            Self::Mv(c) => c.run(cx).await?,
            Self::Rm(c) => return c.run(cx).await,
            Self::Mkdir(c) => c.run(cx).await?,
            Self::Ln(c) => c.run(cx).await?,
            Self::Chmod(c) => c.run(cx).await?,
            Self::Glob(c) => c.run(cx).await?,
            Self::Grep(c) => c.run(cx).await?,
            Self::Manifest(c) => c.run(cx).await?,
        }
        Ok(())
    }
}

/// The answer to a change: JSON, or nothing, as `mv` and its like print nothing.
fn changed(cx: &Context, answer: &api::MutationResponse) {
    cx.out.result(answer, |_| String::new());
}

/// Mode, size, time and path.
fn long_listing(entries: &[api::Entry], shown: impl Fn(&api::Entry) -> String) -> String {
    let rows = entries.iter().map(|e| {
        let link = match e.r#type() {
            api::EntryType::Symlink => format!("{} -> {}", shown(e), e.symlink_target),
            _ => shown(e),
        };
        let owner = format!("{}:{}", e.uid, e.gid);
        [text::mode(e.mode), owner, e.size.to_string(), text::time(e.modify_time.as_ref()), link]
    });
    table(["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"], rows)
}

/// The last component, in the API's form.
fn last_name(entry: &api::Entry) -> &str {
    entry.path.rsplit('/').next().unwrap_or_default()
}

/// The last component for people, with `/` behind a directory.
fn short_name(entry: &api::Entry) -> String {
    let name = shown(last_name(entry));
    match entry.r#type() {
        api::EntryType::Directory => format!("{name}/"),
        _ => name,
    }
}
