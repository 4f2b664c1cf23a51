//! One file per command; `run` dispatches.

mod checkpoint;
mod commit;
mod completion;
mod config;
mod diff;
mod doctor;
mod fs;
mod mount;
mod pages;
mod promote;
mod session;
mod several;
mod source;
mod status;
mod unmount;
mod version;

use crate::cli::Ended;
use crate::context::Context;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(subcommand)]
    Source(source::Command),
    #[command(subcommand)]
    Session(session::Command),
    Mount(mount::Mount),
    Unmount(unmount::Unmount),
    Status(status::Status),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Fs(fs::Command),
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    #[command(subcommand)]
    Commit(commit::Command),
    Promote(promote::Promote),
    Diff(diff::Diff),
    #[command(subcommand)]
    Config(config::Command),
    Version(version::Version),
    Completion(completion::Completion),
}

impl Command {
    /// Whether it starts something at the server that goes on when it is interrupted.
    pub(crate) fn starts_imports(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Session(_))
    }

    /// Whether it must tidy up when interrupted.
    pub(crate) fn handles_signals(&self) -> bool {
        matches!(self, Self::Mount(_))
    }

    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        match self {
            Self::Source(command) => command.run(cx).await?,
            Self::Session(command) => return command.run(cx).await,
            Self::Mount(command) => command.run(cx).await?,
            Self::Unmount(command) => return command.run(cx).await,
            Self::Status(command) => return command.run(cx).await,
            Self::Doctor(command) => return command.run(cx).await,
            Self::Fs(command) => return command.run(cx).await,
            Self::Checkpoint(command) => command.run(cx).await?,
            Self::Commit(command) => command.run(cx).await?,
            Self::Promote(command) => command.run(cx).await?,
            Self::Diff(command) => command.run(cx).await?,
            Self::Config(command) => command.run(cx)?,
            Self::Version(command) => command.run(cx).await?,
            Self::Completion(command) => command.run(cx),
        }
        Ok(())
    }
}
