//! Directories on this machine, after the XDG conventions.

use afs_types::{Error, Result};
use std::env;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `$XDG_CONFIG_HOME/aether/config.toml`.
pub(crate) fn user_config() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("aether/config.toml"))
}

/// What belongs to this project: `./.aether.toml`.
pub(crate) fn project_config() -> PathBuf {
    PathBuf::from(".aether.toml")
}

/// Records and sockets of running mounts: gone after a reboot, for this user only.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    let dir = match absolute("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("aether"),
        None => env::temp_dir().join(format!("aether-{}", rustix::process::getuid().as_raw())),
    };
    private_dir(&dir)?;
    Ok(dir)
}

/// Logs of mounts in the background.
pub(crate) fn log_dir() -> Result<PathBuf> {
    let dir = match base("XDG_STATE_HOME", ".local/state") {
        Some(dir) => dir.join("aether"),
        None => runtime_dir()?,
    };
    private_dir(&dir)?;
    Ok(dir)
}

/// A directory of somebody else in a shared place could feed us anything: refused.
fn private_dir(dir: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("make {}", dir.display()), e);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let meta = fs::symlink_metadata(dir).map_err(failed)?;
    if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
        return Err(Error::new(
            afs_types::Reason::PermissionDenied,
            format!("{} is not ours", dir.display()),
        )
        .next("remove it, or set XDG_RUNTIME_DIR to a directory of your own"));
    }
    Ok(())
}

fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute())
}
