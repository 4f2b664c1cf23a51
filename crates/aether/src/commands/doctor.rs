//! `aether doctor`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::context::Context;
use crate::mount::forget_dead;
use crate::output::{Style, shown};
use crate::paths;
use afs_client::api;
use afs_fuse::Health;
use afs_types::Result;
use clap::Args;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Check everything that a mount needs, and say what to do about what is wrong
#[derive(Args)]
pub(crate) struct Doctor {
    /// Remove stale mounts and what ended processes have left
    #[arg(long)]
    fix: bool,
}

/// One check. The states are those of the server's own checks.
#[derive(Serialize)]
struct Check {
    name: String,
    status: &'static str,
    message: String,
    /// Empty when ok.
    next_step: String,
}

impl Check {
    fn ok(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.into(), status: "ok", message: message.into(), next_step: String::new() }
    }
    fn warning(name: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name: name.into(), status: "warning", message: message.into(), next_step: next.into() }
    }
    fn failed(name: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name: name.into(), status: "failed", message: message.into(), next_step: next.into() }
    }
}

impl Doctor {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let mut checks = vec![Check::ok(
            "settings",
            format!("endpoint {} ({})", cx.config.endpoint.value, cx.config.endpoint.origin),
        )];
        checks.extend(server(cx).await);
        checks.extend([kernel(), device(), helper(), directories()]);
        let fix = self.fix;
        // Dead or stopped mounts are asked from a thread of their own.
        let stale = tokio::task::spawn_blocking(move || stale_mounts(fix)).await;
        checks.extend(stale.unwrap_or_else(|e| vec![Check::failed("mounts", e.to_string(), "report it")]));
        cx.out.result(&checks, |style| checks.iter().map(|c| line(c, style)).collect());
        match checks.iter().any(|c| c.status == "failed") {
            true => Err(Ended::Reported(1)),
            false => Ok(()),
        }
    }
}

fn line(check: &Check, style: &Style) -> String {
    let status = match check.status {
        "ok" => style.green("ok     "),
        "warning" => style.yellow("warning"),
        _ => style.red("failed "),
    };
    let next = if check.next_step.is_empty() {
        String::new()
    } else {
        format!("\n        next: {}", shown(&check.next_step))
    };
    format!("{status} {}: {}{next}\n", shown(&check.name), shown(&check.message))
}

async fn server(cx: &Context) -> Vec<Check> {
    let client = match cx.client() {
        Ok(client) => client,
        Err(error) => return vec![Check::failed("server", error.message(), error.next_step())],
    };
    let begin = Instant::now();
    let info = match client.get_server_info(api::GetServerInfoRequest {}).await {
        Ok(info) => info,
        Err(error) => {
            return vec![Check::failed("server", error.message(), error.next_step())];
        }
    };
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    let mut checks = vec![Check::ok("server", format!("version {} answers in {took:.1} ms", info.version))];
    if is_older(env!("CARGO_PKG_VERSION"), &info.min_client_version) {
        let message = format!(
            "this program is {}, the server wants {}",
            env!("CARGO_PKG_VERSION"),
            info.min_client_version
        );
        checks.push(Check::failed("version", message, "install a newer aether"));
    }
    match client.check_readiness(api::CheckReadinessRequest {}).await {
        Ok(answer) => checks.extend(answer.checks.into_iter().map(|c| {
            let name = format!("server {}", c.name);
            match c.status.as_str() {
                "ok" => Check::ok(&name, c.message),
                "warning" => Check::warning(&name, c.message, c.next_step),
                _ => Check::failed(&name, c.message, c.next_step),
            }
        })),
        Err(error) => checks.push(Check::failed("server checks", error.message(), error.next_step())),
    }
    checks
}

fn is_older(own: &str, wanted: &str) -> bool {
    let parts = |v: &str| v.split('.').map(|p| p.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    !wanted.is_empty() && parts(own) < parts(wanted)
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    match is_older(release.split('-').next().unwrap_or_default(), "5.16") {
        true => {
            Check::warning("kernel", release, "Linux 5.16 or newer saves a request per close and per write")
        }
        false => Check::ok("kernel", release),
    }
}

fn device() -> Check {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::ok("fuse device", "/dev/fuse can be opened"),
        Err(e) if e.kind() == ErrorKind::NotFound => Check::failed(
            "fuse device",
            "/dev/fuse does not exist",
            "load the module (modprobe fuse), or give the container the device (--device /dev/fuse)",
        ),
        Err(e) => {
            Check::failed("fuse device", format!("/dev/fuse: {e}"), "chmod 666 /dev/fuse, or mount as root")
        }
    }
}

fn helper() -> Check {
    const INSTALL: &str = "install fuse3 (Debian: apt-get install fuse3)";
    let root = rustix::process::geteuid().is_root();
    match Command::new("fusermount3").arg("--version").output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let places = ["/usr/bin/fusermount3", "/bin/fusermount3"].map(Path::new);
            let is_setuid =
                places.iter().any(|p| p.metadata().is_ok_and(|m| m.permissions().mode() & 0o4000 != 0));
            match root || is_setuid {
                true => Check::ok("fusermount3", said),
                false => Check::failed("fusermount3", "is not set-user-id root", INSTALL),
            }
        }
        Err(_) if root => Check::warning(
            "fusermount3",
            "not installed; only root can mount, without --auto-unmount",
            INSTALL,
        ),
        Err(_) => Check::failed("fusermount3", "not installed", INSTALL),
    }
}

fn directories() -> Check {
    match paths::runtime_dir().and_then(|runtime| Ok((runtime, paths::log_dir()?))) {
        Ok((runtime, logs)) => {
            Check::ok("directories", format!("{}, logs in {}", runtime.display(), logs.display()))
        }
        Err(error) => Check::failed("directories", error.message(), error.next_step()),
    }
}

fn stale_mounts(fix: bool) -> Vec<Check> {
    let mounts = match afs_fuse::mounts() {
        Ok(mounts) => mounts,
        Err(error) => return vec![Check::failed("mounts", error.message(), error.next_step())],
    };
    let mut checks = Vec::new();
    let total = mounts.len();
    for mount in mounts {
        let shown = format!("{} ({})", mount.dir.display(), mount.name);
        checks.push(match afs_fuse::health(&mount.dir) {
            Health::Alive => continue,
            Health::Dead if fix => match afs_fuse::sweep(&mount.dir) {
                Ok(_) => Check::ok("stale mount", format!("{shown}: removed")),
                Err(error) => Check::failed("stale mount", format!("{shown}: {error}"), error.next_step()),
            },
            Health::Dead => {
                Check::failed("stale mount", format!("{shown}: its process is gone"), "aether doctor --fix")
            }
            Health::Unresponsive => Check::failed(
                "mount",
                format!("{shown}: does not answer"),
                format!(
                    "look at its process; `aether unmount --force {}` frees those who wait",
                    mount.dir.display()
                ),
            ),
        });
    }
    if fix && let Ok(count @ 1..) = forget_dead() {
        checks.push(Check::ok("records", format!("removed {count} of processes that are gone")));
    }
    if checks.is_empty() {
        checks.push(Check::ok("mounts", format!("{total}, all answer")));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions() {
        assert!(is_older("0.1.0", "0.2.0") && is_older("5.4.0", "5.16") && !is_older("6.1.0", "5.16"));
        assert!(!is_older("0.1.0", "") && !is_older("0.1.0", "0.1.0"));
    }
}
