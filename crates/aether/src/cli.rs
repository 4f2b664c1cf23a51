//! Arguments in, exit code out.

use crate::commands::Command;
use crate::config::{Config, ENDPOINT_VARIABLE, LogFormat, Overrides};
use crate::context::{Context, GoingOn};
use crate::failure;
use crate::imports;
use crate::output::Output;
use crate::values;
use afs_types::{Error, Reason, Result};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Workspaces for agents: sessions over a shared base, forked in microseconds.
#[derive(Parser)]
#[command(
    name = "aether",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable, 8 quota, 130 interrupted, 143 ended by SIGTERM."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Server to talk to, e.g. http://127.0.0.1:7440 [env: AFS_AETHER_SERVER_ENDPOINT]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    endpoint: Option<String>,
    /// Settings file to use instead of ./.aether.toml and the user's own
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Print JSON; failures are problem objects on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// No remarks and no progress
    #[arg(short, long, global = true, help_heading = "Global options")]
    quiet: bool,
    /// Log more to stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
    /// No colours (also: NO_COLOR=1)
    #[arg(long, global = true, help_heading = "Global options")]
    no_color: bool,
    /// Longest wait for one answer of the server, e.g. 5s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = values::duration, help_heading = "Global options")]
    timeout: Duration,
}

/// Runs the program.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, args.iter().any(|a| a == "--json")),
    };
    let out = Output::new(cli.global.json, cli.global.quiet, cli.global.no_color);
    match execute(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Reported(code)) => ExitCode::from(code),
        Err(Ended::Failed(error)) => {
            out.complain(&failure::describe(&error, out.json, &out.talk_style));
            ExitCode::from(failure::exit_code(error.reason))
        }
    }
}

/// Why a command did not end well.
pub(crate) enum Ended {
    Failed(Error),
    /// The result itself says it (a failed check); nothing is to be added.
    Reported(u8),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Help and version are answers; anything else is a mistake, told as text or as a problem.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() || !json {
        // Nobody is left to tell when the output is closed.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let problem = usage_problem(error);
    let out = Output::new(true, false, true);
    out.complain(&failure::describe(&problem, true, &out.talk_style));
    ExitCode::from(2)
}

/// The whole of what is said, on one line, and which argument it is about.
fn usage_problem(error: &clap::Error) -> Error {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("Usage:")).collect();
    let said: Vec<&str> = said.into_iter().filter(|line| !line.starts_with("For more information")).collect();
    let message = said.join(" ");
    let mut problem = Error::new(Reason::InvalidArgument, message.trim_start_matches("error: "))
        .next("correct the arguments; `--help` behind the command describes them");
    for (key, kind) in [
        ("field", ContextKind::InvalidArg),
        ("value", ContextKind::InvalidValue),
        ("command", ContextKind::InvalidSubcommand),
        ("conflict", ContextKind::PriorArg),
        ("suggestion", ContextKind::SuggestedArg),
    ] {
        problem = match error.get(kind) {
            Some(ContextValue::String(one)) => problem.with(key, one),
            Some(ContextValue::Strings(several)) => problem.with(key, several.join(", ")),
            _ => problem,
        };
    }
    problem
}

fn execute(cli: Cli, out: Output) -> Result<(), Ended> {
    let Global { endpoint, config: file, verbose, timeout, .. } = cli.global;
    let variable = match std::env::var(ENDPOINT_VARIABLE) {
        Ok(value) => Some(value),
        Err(std::env::VarError::NotPresent) => None,
        Err(e) => return Err(Error::new(Reason::InvalidArgument, format!("{ENDPOINT_VARIABLE}: {e}")).into()),
    };
    let config = Config::load(Overrides { endpoint, file: file.clone(), variable })?;
    start_logging(verbose, config.log_format.value);
    let going_on = GoingOn::default();
    let context = Context { config, out, timeout, config_file: file, verbose, going_on };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("start the runtime", e))?;
    let ended = runtime.block_on(async {
        // A mount has its own way to end: it must take the mount away first.
        if cli.command.handles_signals() {
            return cli.command.run(&context).await;
        }
        let stop = stop_signal(cli.command.starts_imports())?;
        tokio::select! {
            ended = cli.command.run(&context) => ended,
            code = stop => {
                imports::say_that_it_goes_on(&context);
                Err(Ended::Reported(code))
            }
        }
    });
    // A thread that still waits for stdin or a stopped mount must not keep the program.
    runtime.shutdown_background();
    ended
}

/// The exit code of the first signal that asks for the end. SIGTERM ends the program by itself, unless there is something to say.
fn stop_signal(is_terminate_told: bool) -> Result<impl Future<Output = u8>> {
    let listen = |kind| signal(kind).map_err(|e| Error::io("listen for signals", e));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = is_terminate_told.then(|| listen(SignalKind::terminate())).transpose()?;
    Ok(async move {
        let terminated = async {
            match &mut terminate {
                Some(terminate) => terminate.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => failure::INTERRUPTED,
            _ = terminated => failure::TERMINATED,
        }
    })
}

fn start_logging(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => "warn",
        1 => "info,afs_client=debug,afs_fuse=debug,aether=debug",
        _ => "trace,h2=info,hyper=info,hyper_util=info,tower=info,rustls=info",
    };
    let filter = EnvFilter::try_from_env("AETHER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// The command line as clap knows it, for completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    /// Looks at a command and all below it.
    fn each(command: &clap::Command, path: &str, see: &mut dyn FnMut(&str, &clap::Command)) {
        let path = format!("{path} {}", command.get_name());
        see(&path, command);
        command.get_subcommands().for_each(|below| each(below, &path, see));
    }

    #[test]
    fn every_argument_is_described_and_no_command_has_the_words_of_its_sibling() {
        let mut seen = 0;
        each(&definition(), "", &mut |path, command| {
            for arg in command.get_arguments() {
                seen += 1;
                assert!(arg.get_help().is_some(), "{path}: {}", arg.get_id());
                let has_empty = arg.get_default_values().iter().any(|value| value.is_empty() || value == "0");
                assert!(!has_empty || arg.is_hide_default_value_set(), "{path}: {}", arg.get_id());
            }
            let mut abouts = std::collections::HashSet::new();
            for below in command.get_subcommands() {
                let about = below.get_about().map(ToString::to_string).unwrap_or_default();
                let is_own = !about.is_empty() && abouts.insert(about);
                assert!(is_own, "{path} {}", below.get_name());
            }
        });
        assert!(seen > 80, "{seen} arguments");
    }
}
