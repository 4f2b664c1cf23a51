//! What every command gets: settings, output, a client.

use crate::config::Config;
use crate::output::Output;
use afs_client::{Client, Options};
use afs_types::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The environment of one command.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) out: Output,
    pub(crate) timeout: Duration,
    /// As given, to be handed to a mount in the background.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) verbose: u8,
}

impl Context {
    /// The server of the settings.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&Options {
            endpoint: self.config.endpoint.value.clone(),
            timeout: self.timeout,
            user_agent: format!("aether/{}", env!("CARGO_PKG_VERSION")),
        })
    }
}
