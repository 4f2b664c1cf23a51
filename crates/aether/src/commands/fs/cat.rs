//! `aether fs cat`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::commands::several::Several;
use crate::context::Context;
use crate::values::{Target, target};
use afs_client::api;
use clap::Args;

/// Print the bytes of files
#[derive(Args)]
pub(crate) struct Cat {
    /// Files to print, one after the other
    #[arg(value_name = "SESSION:/FILE", value_parser = target(), required = true)]
    files: Vec<Target>,
    /// First byte
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    offset: u64,
    /// Most bytes; 0 = to the end
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    limit: u64,
    /// Look at this checkpoint, this commit (the whole state that was committed, ignored files too), or `base`
    #[arg(long, default_value = "", hide_default_value = true)]
    at: String,
}

impl Cat {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let client = cx.client()?;
        let mut several = Several::new(cx, "target");
        for file in &self.files {
            let request = api::ReadFileRequest {
                session_id: file.session_text(),
                path: file.path_text(),
                offset: self.offset,
                limit: self.limit,
                if_none_match: String::new(),
                checkpoint_id: self.at.clone(),
            };
            // The bytes are the data here; with --json too, since JSON cannot hold them.
            if let Err(error) = client.download(request, &mut cx.out.stream(), &mut |_| ()).await {
                several.failed(file.to_string(), error);
            }
        }
        several.end_silently()
    }
}
