//! `aether fs ln`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{Target, parse_target, target};
use afs_client::api;
use afs_types::{Error, Reason, Result, escape};
use clap::Args;

/// Make a second name for a file, or a symbolic link with -s
#[derive(Args)]
pub(crate) struct Ln {
    /// SESSION:/FILE, or with -s the text of the link
    target: String,
    /// The new name
    #[arg(value_name = "SESSION:/NAME", value_parser = target())]
    name: Target,
    /// Symbolic link
    #[arg(short, long)]
    symbolic: bool,
}

impl Ln {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let (session_id, path) = (self.name.session_text(), self.name.path_text());
        let answer = if self.symbolic {
            let target = escape(self.target.as_bytes());
            let request = api::CreateSymlinkRequest { session_id, path, target, ..Default::default() };
            client.create_symlink(request).await?
        } else {
            let existing =
                parse_target(self.target.as_bytes()).map_err(|e| Error::new(Reason::InvalidArgument, e))?;
            if existing.session != self.name.session {
                return Err(Error::new(Reason::CrossSession, "a hard link stays inside of one session"));
            }
            let source = existing.path_text();
            let request = api::CreateHardLinkRequest { session_id, source, path, ..Default::default() };
            client.create_hard_link(request).await?
        };
        changed(cx, &answer);
        Ok(())
    }
}
