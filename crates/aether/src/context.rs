//! What every command gets: settings, output, a client.

use crate::config::Config;
use crate::output::Output;
use afs_client::{Client, Options};
use afs_types::Result;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// The environment of one command.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) out: Output,
    pub(crate) timeout: Duration,
    /// As given, to be handed to a mount in the background.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) verbose: u8,
    /// What goes on at the server should this command end now.
    pub(crate) going_on: GoingOn,
}

/// An import that a command waits for: it does not end with the command.
#[derive(Default)]
pub(crate) struct GoingOn(Mutex<Option<Import>>);

/// An import that runs at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) source_id: String,
    /// The source has no version yet: nobody needs it, and deleting it stops the import.
    pub(crate) is_first: bool,
}

impl GoingOn {
    pub(crate) fn set(&self, import: Option<Import>) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = import;
    }

    pub(crate) fn get(&self) -> Option<Import> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Context {
    /// The server of the settings.
    pub(crate) fn client(&self) -> Result<Client> {
        self.client_within(self.timeout)
    }

    /// The same, with another longest wait for one answer.
    pub(crate) fn client_within(&self, timeout: Duration) -> Result<Client> {
        Client::new(&Options {
            endpoint: self.config.endpoint.value.clone(),
            timeout,
            user_agent: format!("aether/{}", env!("CARGO_PKG_VERSION")),
        })
    }
}
