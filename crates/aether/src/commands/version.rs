//! `aether version`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::fields;
use afs_client::api;
use afs_types::Result;
use clap::Args;
use serde_json::json;

/// Print the version of this program, and of the server if it answers
#[derive(Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let server = match cx.client() {
            Ok(client) => client.get_server_info(api::GetServerInfoRequest {}).await,
            Err(error) => Err(error),
        };
        let own = env!("CARGO_PKG_VERSION");
        let shown = match &server {
            Ok(info) => format!("{} (API {}, {})", info.version, info.api_version, cx.config.endpoint.value),
            Err(error) => format!("unknown: {error}"),
        };
        let as_json = json!({
            "client": own,
            "server": server.as_ref().ok().map(|i| &i.version),
            "api": server.as_ref().ok().map(|i| &i.api_version),
        });
        cx.out.result(&as_json, |style| fields(style, [("aether", own.to_owned()), ("server", shown)]));
        Ok(())
    }
}
