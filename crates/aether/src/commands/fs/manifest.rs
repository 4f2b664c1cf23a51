//! `aether fs manifest`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::shown;
use crate::text;
use crate::values::{Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Print every entry below a path, of one instant
#[derive(Args)]
pub(crate) struct Manifest {
    /// Where to begin
    #[arg(value_name = "SESSION:/PATH", value_parser = target())]
    path: Target,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
    at: String,
}

impl Manifest {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let request = api::GetManifestRequest {
            session_id: self.path.session_text(),
            checkpoint_id: self.at,
            path_prefix: self.path.path_text(),
        };
        let mut entries = cx.client()?.get_manifest(request).await?;
        while let Some(e) = entries.next().await? {
            match cx.out.json {
                true => cx.out.json_value(&e),
                false => {
                    let (etag, path) = (shown(&e.etag), shown(&e.path));
                    let line = format!("{} {:>12} {etag} {path}\n", text::mode(e.mode), e.size);
                    cx.out.bytes(line.as_bytes());
                }
            }
        }
        Ok(())
    }
}
