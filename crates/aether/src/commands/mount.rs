//! `aether mount`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::mount::{Record, Serve, serve};
use crate::output::fields;
use crate::{failure, paths, values};
use afs_client::Problem;
use afs_types::{Error, Reason, Result, SessionId};
use clap::Args;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the process that serves a mount in the background: it reports on its stdout.
const BACKGROUND_VARIABLE: &str = "AETHER_MOUNT_BACKGROUND";

/// Mount a session at a directory
///
/// Returns when the mount works; a process in the background serves it until `aether unmount`.
#[derive(Args)]
pub(crate) struct Mount {
    /// Session to mount
    #[arg(long, value_parser = values::session_id)]
    session: SessionId,
    /// Where; made if it is not there
    dir: PathBuf,
    /// No changes through this mount
    #[arg(long)]
    read_only: bool,
    /// Serve from this process, until it is interrupted
    #[arg(long)]
    foreground: bool,
    /// Let other users in (not only root: needs user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    allow_other: bool,
    /// Keep a helper that removes the mount should the serving process be killed
    #[arg(long)]
    auto_unmount: bool,
    /// How long a file operation may wait for a server that is gone
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = values::duration)]
    patience: Duration,
}

impl Mount {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        make_dir(&self.dir)?;
        let is_background = std::env::var_os(BACKGROUND_VARIABLE).is_some();
        match self.foreground || is_background {
            true => self.serve(cx, is_background).await,
            false => self.start(cx),
        }
    }

    async fn serve(self, cx: &Context, is_background: bool) -> Result<()> {
        let root = rustix::process::geteuid().is_root();
        let how = Serve {
            session: self.session.to_string(),
            dir: std::path::absolute(&self.dir).map_err(|e| Error::io("find the working directory", e))?,
            read_only: self.read_only,
            allow_other: self.allow_other || root,
            auto_unmount: self.auto_unmount,
            patience: self.patience,
            log: std::env::var_os(BACKGROUND_VARIABLE).map(PathBuf::from),
        };
        if is_background {
            // Of our own: no terminal's signals, no directory kept busy.
            let _ = rustix::process::setsid(); // fails only if we are the leader already
            std::env::set_current_dir("/").map_err(|e| Error::io("leave the working directory", e))?;
        }
        let out = cx.out;
        let served = serve(cx.client()?, how, |record| {
            if is_background {
                out.json_value(record);
                return let_go_of_stdout();
            }
            out.remark(&format!(
                "{} is mounted at {}; stop with ctrl-C",
                record.session,
                record.dir.display()
            ));
            Ok(())
        });
        served.await
    }

    /// Starts the process that serves, and waits until it says that the mount works, or why not.
    fn start(self, cx: &Context) -> Result<()> {
        let log = paths::log_dir()?.join(format!("mount-{}.log", self.session));
        let mut child =
            self.command(cx, &log)?.spawn().map_err(|e| Error::io("start the mount process", e))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|e| Error::io("hear from the mount process", e))?;
        }
        match serde_json::from_str::<Record>(&line) {
            Ok(_) if cx.out.quiet && !cx.out.json => Ok(()),
            Ok(record) => {
                cx.out.result(&record, |style| {
                    fields(
                        style,
                        [
                            ("mounted", record.dir.display().to_string()),
                            ("session", record.session.clone()),
                            ("process", record.pid.to_string()),
                        ],
                    )
                });
                cx.out.remark(&format!("next: cd {0}; later: aether unmount {0}", self.dir.display()));
                Ok(())
            }
            Err(_) => {
                let status = child.wait().map_err(|e| Error::io("wait for the mount process", e))?;
                Err(why_not(&log, status))
            }
        }
    }

    fn command(&self, cx: &Context, log: &Path) -> Result<Command> {
        let failed = |e| Error::io(format!("open {}", log.display()), e);
        let log_file: File = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(log)
            .map_err(failed)?;
        let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
        let mut command = Command::new(program);
        command.arg("mount").arg("--json").arg("--session").arg(self.session.as_str());
        command.arg("--endpoint").arg(&cx.config.endpoint.value);
        command.arg("--timeout").arg(format!("{}ms", cx.timeout.as_millis()));
        command.arg("--patience").arg(format!("{}ms", self.patience.as_millis()));
        if let Some(file) = &cx.config_file {
            command
                .arg("--config")
                .arg(std::path::absolute(file).map_err(|e| Error::io("find the settings", e))?);
        }
        let flags = [
            ("--read-only", self.read_only),
            ("--allow-other", self.allow_other),
            ("--auto-unmount", self.auto_unmount),
        ];
        command.args(flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
        command.args(std::iter::repeat_n("-v", usize::from(cx.verbose.max(1))));
        command.arg("--").arg(&self.dir).env(BACKGROUND_VARIABLE, log);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        Ok(command)
    }
}

/// Does not look into the directory: there may be a dead or stopped mount, which the mount itself deals with.
fn make_dir(dir: &Path) -> Result<()> {
    let made = match fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => fs::create_dir_all(dir),
        other => other,
    };
    made.map_err(|e| Error::io(format!("make {}", dir.display()), e))
}

/// The pipe to the one who started us: closed, so that a script which waits for its end goes on.
fn let_go_of_stdout() -> Result<()> {
    let null = File::options().write(true).open("/dev/null").map_err(|e| Error::io("open /dev/null", e))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| Error::io("let go of stdout", e.into()))
}

/// The last problem object in the log, or its last line.
fn why_not(log: &Path, status: std::process::ExitStatus) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let problem = text.lines().rev().find_map(|line| serde_json::from_str::<Problem>(line).ok());
    let Some(problem) = problem else {
        let last = text.lines().last().unwrap_or("it said nothing");
        return Error::new(Reason::Internal, format!("the mount process ended ({status}): {last}"))
            .with("log", log.display().to_string());
    };
    failure::error_of(problem)
}
