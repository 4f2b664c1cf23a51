//! `aether completion`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::definition;
use crate::context::Context;
use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// Print a completion script, e.g. `source <(aether completion bash)`
#[derive(Args)]
pub(crate) struct Completion {
    /// Shell that reads the script
    shell: Supported,
}

#[derive(Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(self, cx: &Context) {
        let shell = match self.shell {
            Supported::Bash => Shell::Bash,
            Supported::Zsh => Shell::Zsh,
            Supported::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut definition(), "aether", &mut script);
        cx.out.bytes(&script);
    }
}
