//! The `git` program as a hardened child process: the only way to a network, and to packs that are not ours.
//!
//! Guarantees: no host environment or configuration reaches it but what is named in [`KEPT_ENVIRONMENT`]; no hook,
//! file monitor, helper, prompt, submodule or lazy fetch runs; it ends when the caller cancels or its
//! time is over; its words reach a caller without credentials and without control characters.
//! Deliberately absent: running git inside a session's tree. It never happens.

use crate::Progress;
use crate::url::{Remote, redact};
use afs_types::{Error, Reason, Result};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a child may know of the host: where programs are, and how this machine reaches networks.
const KEPT_ENVIRONMENT: &[&str] = &[
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// The only configuration file that the child reads besides the mirror's own. It also reaches `upload-pack` and
/// `receive-pack` in a local source, which `-c` does not.
const CONFIG: &str = "\
[safe]
\tdirectory = *
[core]
\tfsync = all
\thooksPath = /dev/null
\tfsmonitor = false
\tabbrev = 40
\tquotePath = true
[init]
\ttemplateDir =
\tdefaultBranch = main
[protocol]
\tversion = 2
[transfer]
\tbundleURI = false
\tunpackLimit = 1
\tadvertiseSID = false
[fetch]
\trecurseSubmodules = false
\tunpackLimit = 1
[receive]
\tautogc = false
[submodule]
\trecurse = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[pack]
\twriteReverseIndex = true
[http]
\tlowSpeedLimit = 1000
\tlowSpeedTime = 60
\tfollowRedirects = initial
[credential]
\thelper =
";

/// Most bytes kept of a child's standard output.
const MAX_OUTPUT: u64 = 256 << 20;
/// Most bytes kept of a child's messages.
const MAX_MESSAGES: usize = 16 << 10;

/// The `git` program with our configuration.
pub(crate) struct Git {
    config: PathBuf,
}

/// One run of git.
#[derive(Default)]
pub(crate) struct Call<'a> {
    /// `--git-dir`, when it works on a repository.
    pub(crate) git_dir: Option<&'a Path>,
    /// Whose credentials it may use.
    pub(crate) remote: Option<&'a Remote>,
    /// Its standard input. A lock file, which is empty, stays locked while an orphan still works.
    pub(crate) input: Option<&'a File>,
    /// Standard output goes to this file instead of memory.
    pub(crate) output: Option<File>,
    /// It is killed after this time.
    pub(crate) timeout: Option<Duration>,
    /// It is killed when it has said nothing, not even how far it is, for this time.
    pub(crate) silence: Option<Duration>,
}

/// What a run left behind.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// Already redacted.
    pub(crate) messages: String,
    /// The limit that it was killed at, and words on what was limited.
    pub(crate) late: Option<(Duration, &'static str)>,
}

impl Done {
    /// The error for a run that failed: `reason`, unless its time was over or git says that the disk is full.
    pub(crate) fn error(&self, reason: Reason, what: &str) -> Error {
        if let Some((limit, of)) = self.late {
            let text = format!("{what}: git was stopped after {} s{of}: {}", limit.as_secs(), self.messages);
            return Error::new(Reason::TimedOut, text)
                .with("limit", limit.as_secs().to_string())
                .next("see why the source does not answer, then try again");
        }
        let full =
            ["No space left on device", "Disk quota exceeded"].iter().any(|m| self.messages.contains(m));
        Error::new(if full { Reason::NoSpace } else { reason }, format!("{what}: {}", self.messages))
    }
}

impl Git {
    /// Writes the configuration below `dir` unless it is there.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let config = dir.join("gitconfig");
        if std::fs::read(&config).ok().as_deref() != Some(CONFIG.as_bytes()) {
            let step = |e| Error::io(format_args!("write {}", config.display()), e);
            std::fs::create_dir_all(dir).map_err(step)?;
            static UNIQUE: AtomicU64 = AtomicU64::new(0);
            let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
            let fresh = dir.join(format!("gitconfig.{}.{unique}", std::process::id()));
            std::fs::write(&fresh, CONFIG).and_then(|()| std::fs::rename(&fresh, &config)).map_err(step)?;
        }
        Ok(Self { config })
    }

    /// The command with nothing of the host in it.
    fn command(&self, call: &Call<'_>) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        command.envs(KEPT_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_DEFAULT_REF_FORMAT", "files")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15")
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C");
        if let Some(c) = call.remote.and_then(|r| r.credentials.as_ref()) {
            // Through the environment: arguments are readable by every user of the machine. Scoped to the host, so
            // that a redirect elsewhere does not get it.
            const HELPER: &str = "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \
                                  \"$AFS_GIT_USER\" \"$AFS_GIT_PASSWORD\"; }; f";
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("credential.{}.helper", c.origin))
                .env("GIT_CONFIG_VALUE_0", HELPER)
                .env("AFS_GIT_USER", &c.user)
                .env("AFS_GIT_PASSWORD", &c.password);
        }
        if let Some(dir) = call.git_dir {
            command.arg("--git-dir").arg(dir);
        }
        command.current_dir("/").process_group(0);
        command
    }

    /// Runs git to its end; an exit code other than 0 is not an error here.
    pub(crate) fn run<I, S>(&self, call: Call<'_>, args: I, progress: &dyn Progress) -> Result<Done>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(&call);
        command.args(args).stderr(Stdio::piped());
        command.stdin(match call.input.map(File::try_clone) {
            Some(input) => Stdio::from(input.map_err(|e| Error::io("share a file with git", e))?),
            None => Stdio::null(),
        });
        command.stdout(call.output.map_or_else(Stdio::piped, Stdio::from));
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Reason::Unavailable, "the git program is not on the PATH")
                    .next("install git on the server")
            }
            _ => Error::io("start git", e),
        })?;
        watch(&mut child, Limits { total: call.timeout, silence: call.silence }, progress)
    }

    /// Runs git on a repository of ours, where failure is a fault.
    pub(crate) fn must<I, S>(&self, call: Call<'_>, args: I, progress: &dyn Progress) -> Result<Vec<u8>>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let done = self.run(call, &args, progress)?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
        Err(done.error(Reason::Internal, &format!("git {}", redact(&args.join(" ")))))
    }
}

/// A caller asked to stop.
pub(crate) fn cancelled() -> Error {
    Error::new(Reason::Unavailable, "cancelled").next("start it again; what was done so far is reused")
}

enum Word {
    Line(Vec<u8>),
    Stdout(std::io::Result<Vec<u8>>),
}

/// How long a run may take.
struct Limits {
    total: Option<Duration>,
    silence: Option<Duration>,
}

impl Limits {
    /// The limit that was reached by a run that began, and last said something, at these times.
    fn reached(&self, began: Instant, spoke: Instant) -> Option<(Duration, &'static str)> {
        let total = self.total.filter(|limit| began.elapsed() > *limit).map(|limit| (limit, ""));
        let silence =
            self.silence.filter(|limit| spoke.elapsed() > *limit).map(|limit| (limit, " of silence"));
        total.or(silence)
    }
}

/// Reads both streams to their ends, reports progress, and kills the child's group when cancelled or late.
fn watch(child: &mut Child, limits: Limits, progress: &dyn Progress) -> Result<Done> {
    let (send, receive) = mpsc::channel();
    let began = Instant::now();
    let mut spoke = began;
    let (stderr, stdout) = (child.stderr.take(), child.stdout.take());
    let mut messages = String::new();
    let mut output = Ok(Vec::new());
    let (mut stopped, mut late) = (false, None);
    std::thread::scope(|scope| {
        let lines = send.clone();
        scope.spawn(move || stderr.map(|s| read_lines(s, &lines)));
        scope.spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.map_or(Ok(0), |s| s.take(MAX_OUTPUT).read_to_end(&mut bytes));
            send.send(Word::Stdout(read.map(|_| bytes)))
        });
        loop {
            match receive.recv_timeout(Duration::from_millis(50)) {
                Ok(Word::Line(line)) => {
                    spoke = Instant::now();
                    note(&line, &mut messages, progress);
                }
                Ok(Word::Stdout(bytes)) => output = bytes,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !stopped && late.is_none() {
                stopped = progress.cancelled();
                late = limits.reached(began, spoke);
                if stopped || late.is_some() {
                    kill(child);
                }
            }
        }
    });
    let status = child.wait().map_err(|e| Error::io("wait for git", e))?;
    if stopped {
        return Err(cancelled());
    }
    let stdout = output.map_err(|e| Error::io("read from git", e))?;
    if late.is_some() {
        messages.push_str("fatal: no answer in time\n");
    }
    Ok(Done { status, stdout, messages: for_people(&messages), late })
}

fn kill(child: &Child) {
    if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
        // It may have ended by itself in between: nothing to do then.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// Cuts a stream at `\n` and `\r`, which git uses for progress.
fn read_lines(mut stream: impl Read, lines: &mpsc::Sender<Word>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        for &b in &buffer[..n] {
            if b != b'\n' && b != b'\r' {
                pending.push(b);
                continue;
            }
            let line = std::mem::take(&mut pending);
            if !line.is_empty() && lines.send(Word::Line(line)).is_err() {
                return;
            }
        }
        if n == 0 || pending.len() > MAX_MESSAGES {
            let _ = lines.send(Word::Line(std::mem::take(&mut pending)));
        }
        if n == 0 {
            return;
        }
    }
}

/// A line is progress (`Receiving objects:  45% (9/20)`) or a message.
fn note(line: &[u8], messages: &mut String, progress: &dyn Progress) {
    let text = String::from_utf8_lossy(line);
    match parse_progress(&text) {
        Some((phase, done, total)) => progress.update(&phase, done, total),
        None if messages.len() < MAX_MESSAGES && !text.trim().is_empty() => {
            messages.push_str(text.trim());
            messages.push('\n');
        }
        None => {}
    }
}

fn parse_progress(line: &str) -> Option<(String, u64, Option<u64>)> {
    let line = line.strip_prefix("remote: ").unwrap_or(line);
    let (phase, rest) = line.split_once(": ")?;
    if phase.is_empty() || !phase.bytes().all(|b| b.is_ascii_alphabetic() || b == b' ') {
        return None;
    }
    let rest = rest.trim_start();
    if let Some((percent, counts)) = rest.split_once("% (") {
        percent.trim().parse::<u8>().ok()?;
        let (done, total) = counts.split(')').next()?.split_once('/')?;
        return Some((phase.to_lowercase(), done.parse().ok()?, Some(total.parse().ok()?)));
    }
    let number = rest.trim_end_matches(", done.").split([',', ' ']).next()?;
    Some((phase.to_lowercase(), number.parse().ok()?, None))
}

/// What git said that matters: its `fatal:`, `error:` and `remote:` lines, or all of it; redacted, one line.
fn for_people(messages: &str) -> String {
    let important = |l: &&str| ["fatal:", "error:", "remote:", "! ", "ssh:"].iter().any(|p| l.starts_with(p));
    let lines: Vec<&str> = messages.lines().collect();
    let mut kept: Vec<&str> = lines.iter().copied().filter(important).collect();
    if kept.is_empty() {
        kept = lines;
    }
    let from = kept.len().saturating_sub(8);
    let text: String =
        redact(&kept[from..].join("; ")).chars().filter(|c| !c.is_control()).take(1000).collect();
    if text.is_empty() { "git failed without a message".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_git() {
        let parse = parse_progress;
        assert_eq!(
            parse("Receiving objects:  45% (9/20), 1.2 MiB | 3 MiB/s"),
            Some(("receiving objects".into(), 9, Some(20)))
        );
        assert_eq!(
            parse("remote: Counting objects: 100% (7/7), done."),
            Some(("counting objects".into(), 7, Some(7)))
        );
        assert_eq!(
            parse("remote: Enumerating objects: 5, done."),
            Some(("enumerating objects".into(), 5, None))
        );
        for line in ["fatal: no", "error: x: 12", "hint: 12 things", "", ": 1", "remote: a%: 1% (2/3)"] {
            let got = parse(line);
            assert!(got.is_none() || line.starts_with("hint"), "{line:?} {got:?}");
        }
    }

    #[test]
    fn who_says_nothing_for_too_long_is_late_and_who_goes_on_is_not() {
        // A shell instead of git.
        let run = |script: &str, limits: Limits| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).process_group(0);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            watch(&mut command.spawn().unwrap(), limits, &crate::NoProgress).unwrap()
        };
        let moment = Duration::from_secs(1);
        let (silence, total) = (Some(moment), Some(moment));
        let talk = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i >&2; sleep 0.2; done";
        let done = run(talk, Limits { total: None, silence });
        assert!(done.status.success() && done.late.is_none(), "{}", done.messages);
        let late = [
            run(&format!("{talk}; sleep 60"), Limits { total: None, silence }),
            run(&format!("{talk}; {talk}; sleep 60"), Limits { total, silence: None }),
        ];
        for done in late {
            assert!(!done.status.success());
            let error = done.error(Reason::SourceUnavailable, "x");
            assert_eq!(error.reason, Reason::TimedOut, "{error:?}");
            assert!(error.metadata().iter().any(|(name, _)| *name == "limit"), "{error:?}");
        }
    }

    #[test]
    fn messages_are_clean() {
        let text = for_people("Cloning\nfatal: cannot reach https://me:pw@h/x\u{7}\nremote: \u{1b}[31mno\n");
        assert_eq!(text, "fatal: cannot reach https://h/x; remote: [31mno");
    }
}
