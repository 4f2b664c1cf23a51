//! `aether fs stat`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::fields;
use crate::text;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Show one entry; a symbolic link is not followed
#[derive(Args)]
pub(crate) struct Stat {
    /// Entry to show
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    path: Target,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
    at: String,
}

impl Stat {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::StatRequest {
            session_id: self.path.session_text(),
            path: self.path.path_text(),
            checkpoint_id: self.at,
        };
        let e = cx.client()?.stat(request).await?;
        cx.out.result(&e, |style| {
            let layer = match e.layer() {
                api::Layer::Base => "base",
                api::Layer::Overlay => "session",
                api::Layer::Unspecified => "",
            };
            fields(
                style,
                [
                    ("path", e.path.clone()),
                    ("mode", format!("{} ({:04o})", text::mode(e.mode), e.mode & 0o7777)),
                    ("owner", format!("{}:{}", e.uid, e.gid)),
                    ("size", format!("{} ({})", e.size, text::bytes(e.size))),
                    ("links", e.link_count.to_string()),
                    ("inode", e.inode.to_string()),
                    ("target", e.symlink_target.clone()),
                    ("modified", text::time(e.modify_time.as_ref())),
                    ("from", layer.to_owned()),
                    ("etag", e.etag.clone()),
                ],
            )
        });
        Ok(())
    }
}
