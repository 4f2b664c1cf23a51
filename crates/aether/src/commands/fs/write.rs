//! `aether fs write`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use super::changed;
use crate::context::Context;
use crate::values::{self, Target, target};
use afs_client::api;
use afs_types::Result;
use clap::Args;

/// Write a file from stdin or --content, as a whole
#[derive(Args)]
pub(crate) struct Write {
    /// File to write
    #[arg(value_name = "SESSION:/FILE", value_parser = target())]
    file: Target,
    /// Text to write instead of stdin
    #[arg(long)]
    content: Option<String>,
    /// Add at the end
    #[arg(short, long, conflicts_with = "offset")]
    append: bool,
    /// Overwrite from this byte on and keep the rest
    #[arg(long)]
    offset: Option<u64>,
    /// Permission bits of a new file
    #[arg(long, value_parser = values::permissions, default_value = "0", hide_default_value = true)]
    mode: u32,
    /// Make missing parent directories
    #[arg(short = 'p', long)]
    parents: bool,
    /// Only if the file still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    if_etag: String,
    /// Only if there is no such file
    #[arg(long, conflicts_with = "if_etag")]
    if_absent: bool,
}

impl Write {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let header = api::WriteFileHeader {
            session_id: self.file.session_text(),
            path: self.file.path_text(),
            precondition: Some(api::Precondition { if_etag: self.if_etag, if_absent: self.if_absent }),
            mode: self.mode,
            append: self.append,
            offset: self.offset,
            create_parents: self.parents,
            ..api::WriteFileHeader::default()
        };
        let client = cx.client()?;
        let answer = match self.content {
            Some(text) => client.upload(header, &mut text.as_bytes(), &mut |_| ()).await?,
            None => client.upload(header, &mut tokio::io::stdin(), &mut |_| ()).await?,
        };
        changed(cx, &answer);
        Ok(())
    }
}
