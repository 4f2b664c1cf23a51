//! `aether config`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::output::table;
use afs_types::Result;
use clap::{Args, Subcommand};
use serde_json::json;

/// Settings
#[derive(Subcommand)]
pub(crate) enum Command {
    Show(Show),
}

/// Print the settings in effect
#[derive(Args)]
pub(crate) struct Show {
    /// Also say where each one comes from
    #[arg(long)]
    origin: bool,
}

impl Command {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let Self::Show(Show { origin }) = self;
        let c = &cx.config;
        let settings = [
            ("bridge.server_endpoint", json!(c.endpoint.value), &c.endpoint.origin),
            ("logging.format", json!(c.log_format.value), &c.log_format.origin),
            ("logging.metrics_addr", json!(c.metrics_addr.value), &c.metrics_addr.origin),
        ];
        let as_json: serde_json::Map<String, serde_json::Value> = settings
            .iter()
            .map(|(key, value, from)| {
                let shown =
                    if origin { json!({"value": value, "origin": from.to_string()}) } else { value.clone() };
                ((*key).to_owned(), shown)
            })
            .collect();
        cx.out.result(&as_json, |_| match origin {
            true => table(
                ["SETTING", "VALUE", "ORIGIN"],
                settings.iter().map(|(k, v, from)| [(*k).to_owned(), v.to_string(), from.to_string()]),
            ),
            false => settings.iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect(),
        });
        Ok(())
    }
}
