//! `afs-server`: reads settings, starts the server, says how to use it, and stops it cleanly.

#![allow(clippy::print_stdout, reason = "a binary's own output module")]

use afs_server::{Config, LogFormat, Running, Settings, repair, start};
use afs_types::{Error, Reason, Result};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Many threads make and drop small things, some of them each other's. A fork in process was some tenth quicker with this one than with the C
/// library's allocator when it was chosen (`cargo xtask bench fork`, which uses it, too).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The AetherFS server.
#[derive(Parser)]
#[command(name = "afs-server", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a server for trying out and development: everything below one directory, settings by flags.
    Dev(Flags),
    /// Runs a server from a configuration file (afs-server.toml) and the environment (AFS_SERVER_*).
    Serve {
        /// The configuration file; without it, afs-server.toml in the current directory if there is one.
        #[arg(long, value_name = "FILE", env = "AFS_SERVER_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Builds the index of blobs of a stopped server anew from what is on disk, and says what is damaged.
    Repair {
        /// The server's data directory.
        #[arg(long = "data", value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Prints the OpenAPI document of the HTTP surface.
    Openapi,
}

/// Settings on the command line win over all others.
#[derive(Args)]
struct Flags {
    /// Where everything is kept; made if it is not there.
    #[arg(long = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; loopback only. Port 0 takes a free one. [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Show every session as a directory there.
    #[arg(long = "mount", value_name = "DIR")]
    mount_dir: Option<PathBuf>,
    /// How log lines look: text or json.
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// Which log lines are written: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn log_format(text: &str) -> std::result::Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("want text or json".into()),
    }
}

impl Flags {
    fn settings(self) -> Settings {
        Settings {
            listen: self.listen,
            data_dir: self.data_dir,
            mount_dir: self.mount_dir,
            log_format: self.log_format,
            log_level: self.log_level,
            ..Settings::default()
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afs-server: {error}\n  next: {}", error.next_step());
            match error.reason.kind() {
                afs_types::Kind::Invalid | afs_types::Kind::Denied => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<()> {
    let env = |key: &str| std::env::var(key).ok();
    let config = match command {
        Command::Openapi => {
            print!("{}", afs_proto::openapi_json());
            return Ok(());
        }
        Command::Repair { data_dir } => return mend(&data_dir),
        Command::Dev(flags) => flags.settings().over(Settings::from_env(env)?).resolve()?,
        Command::Serve { config, flags } => {
            let default = PathBuf::from("afs-server.toml");
            let file = match config.or_else(|| default.exists().then_some(default)) {
                Some(path) => Settings::from_file(&path)?,
                None => Settings::default(),
            };
            flags.settings().over(Settings::from_env(env)?).over(file).resolve()?
        }
    };
    log_to_stderr(&config)?;
    abort_on_panic();
    raise_open_files(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(config.max_blocking_threads())
        .thread_name("afs-async")
        .build()
        .map_err(|e| Error::io("start the async runtime", e))?;
    runtime.block_on(serve(config))
}

fn mend(data_dir: &std::path::Path) -> Result<()> {
    let rebuilt = repair(data_dir)?;
    let (blobs, packs, raw) = (rebuilt.blobs, rebuilt.packs, rebuilt.raw_files);
    println!("{blobs} blobs are in the index: read {packs} packs and {raw} raw files");
    for damage in &rebuilt.damaged {
        println!("left out: {} at byte {}: {}", damage.file.display(), damage.offset, damage.what);
    }
    Ok(())
}

async fn serve(config: Config) -> Result<()> {
    let failed = |e| Error::io("listen for signals", e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let running = start(config).await?;
    // Somebody who reads only the first line has closed the pipe: no reason to stop.
    let _ = std::io::stdout().lock().write_all(welcome(&running).as_bytes());
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!("{name}: finishing requests and writing everything down");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = terminate.recv() => Err(impatient()),
        _ = interrupt.recv() => Err(impatient()),
    }
}

fn impatient() -> Error {
    Error::new(Reason::Unavailable, "stopped before everything was written down")
        .next("start it again: what was acknowledged as durable is there")
}

/// How to connect, and what to type next.
fn welcome(running: &Running) -> String {
    let endpoint = running.addresses().first().map(|a| format!("http://{a}")).unwrap_or_default();
    let mount = match running.mount_dir() {
        Some(dir) => format!("sessions:  {}/<session-id>\n", dir.display()),
        None => String::new(),
    };
    format!(
        "afs-server {version} is ready\n\
         endpoint:  {endpoint}   (gRPC and HTTP)\n\
         {mount}\
         api:       {endpoint}/openapi.json\n\
         \n\
         try:\n  \
           curl -s {endpoint}/v1/server\n  \
           export AFS_AETHER_SERVER_ENDPOINT={endpoint}\n  \
           aether session create --git PATH\n  \
           aether mount --session SESSION-ID ./workdir\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn log_to_stderr(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|e| {
        Error::new(Reason::InvalidArgument, format!("log_level: {e}")).with("field", "log_level")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()));
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// A file or another program gets plain text, and so does who asked for it (no-color.org).
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Every connection takes a descriptor; many systems allow a program 1024 unless it asks for what it may have.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now }) {
        tracing::warn!(%error, "raise the limit of open files");
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if most < config.max_connections as u64 * 2 {
        tracing::warn!(
            most,
            connections = config.max_connections,
            "few open files for so many connections: raise `ulimit -n`"
        );
    }
}

/// A panic may have left state in RAM half changed; what is on disk is whole. So: stop at once and start again from there.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        tracing::error!(panic = %info, "aborting; start the server again, what was acknowledged as durable is there");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        let set = |text: &'static str| Some(OsStr::new(text));
        assert!(has_colours(true, None) && has_colours(true, set("")));
        assert!(!has_colours(true, set("1")) && !has_colours(true, set("0")));
        assert!(!has_colours(false, None) && !has_colours(false, set("")));
    }
}
