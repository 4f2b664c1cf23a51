//! Settings: flag, then environment (`AFS_SERVER_*`), then `afs-server.toml`, then default.
//!
//! Guarantees: an unknown key, a value of the wrong type and an address beyond loopback are errors that say where the
//! value came from. Deliberately absent: reloading; a changed setting needs a restart.

use afs_types::{Error, Reason, Result, limits};
use serde::Deserialize;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = afs_types::DEFAULT_ADDRESS;

/// Everything that can be set, each from one place.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `ADDRESS:PORT`; port 0 takes a free one.
    pub listen: Option<String>,
    /// Where everything is kept.
    pub data_dir: Option<PathBuf>,
    /// Show every session as a directory there.
    pub mount_dir: Option<PathBuf>,
    /// Bytes of small files kept in RAM.
    pub cache_bytes: Option<u64>,
    /// Most sessions kept in RAM.
    pub resident_sessions: Option<usize>,
    /// Bytes of RAM for what all sessions changed.
    pub all_overlays_bytes: Option<u64>,
    /// A session leaves RAM after being idle for this long.
    pub idle_after_seconds: Option<u64>,
    /// Calls that may wait for the disk at once; as many streams and uploads beside them.
    pub blocking_threads: Option<usize>,
    /// Connections served at once.
    pub max_connections: Option<usize>,
    /// `text` or `json`.
    pub log_format: Option<LogFormat>,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter per module.
    pub log_level: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Settings with every value filled in and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// All on loopback.
    pub listen: Vec<SocketAddr>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Show every session as a directory there.
    pub mount_dir: Option<PathBuf>,
    /// Bytes of small files kept in RAM.
    pub cache_bytes: u64,
    /// Most sessions kept in RAM.
    pub resident_sessions: usize,
    /// Bytes of RAM for what all sessions changed.
    pub all_overlays_bytes: u64,
    /// A session leaves RAM after being idle for this long.
    pub idle_after: Duration,
    /// Calls that may wait for the disk at once; as many streams and uploads beside them.
    pub blocking_threads: usize,
    /// Connections served at once.
    pub max_connections: usize,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: String,
}

impl Settings {
    /// From a file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::new(Reason::InvalidArgument, format!("configuration {}: {e}", path.display()))
                .next("name a readable file with --config, or leave it out")
        })?;
        toml::from_str(&text).map_err(|e| {
            Error::new(
                Reason::InvalidArgument,
                format!("configuration {}: {}", path.display(), e.to_string().trim()),
            )
            .next("correct the file")
        })
    }

    /// From the environment; `get` is `std::env::var` outside of tests.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut table = toml::Table::new();
        for (key, numeric) in KEYS {
            let name = format!("AFS_SERVER_{}", key.to_uppercase());
            let Some(text) = get(&name) else { continue };
            let value = if numeric {
                let number: i64 = text.parse().map_err(|_| {
                    Error::new(Reason::InvalidArgument, format!("{name}: want a number, got {text:?}"))
                })?;
                toml::Value::Integer(number)
            } else {
                toml::Value::String(text)
            };
            table.insert(key.to_owned(), value);
        }
        table.try_into().map_err(|e| {
            Error::new(Reason::InvalidArgument, format!("environment AFS_SERVER_*: {}", e.to_string().trim()))
        })
    }

    /// `self` where it says something, else `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            data_dir: self.data_dir.or(below.data_dir),
            mount_dir: self.mount_dir.or(below.mount_dir),
            cache_bytes: self.cache_bytes.or(below.cache_bytes),
            resident_sessions: self.resident_sessions.or(below.resident_sessions),
            all_overlays_bytes: self.all_overlays_bytes.or(below.all_overlays_bytes),
            idle_after_seconds: self.idle_after_seconds.or(below.idle_after_seconds),
            blocking_threads: self.blocking_threads.or(below.blocking_threads),
            max_connections: self.max_connections.or(below.max_connections),
            log_format: self.log_format.or(below.log_format),
            log_level: self.log_level.or(below.log_level),
        }
    }

    /// With defaults, checked.
    pub fn resolve(self) -> Result<Config> {
        let data_dir = self.data_dir.ok_or_else(|| {
            Error::new(Reason::InvalidArgument, "no data directory is set").with("field", "data_dir").next(
                "pass --data DIR, set AFS_SERVER_DATA_DIR, or write data_dir = \"...\" in afs-server.toml",
            )
        })?;
        Ok(Config {
            listen: loopback(self.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
            data_dir,
            mount_dir: self.mount_dir,
            cache_bytes: self.cache_bytes.unwrap_or(256 << 20),
            resident_sessions: within(
                "resident_sessions",
                self.resident_sessions.unwrap_or(100_000),
                1,
                10_000_000,
            )?,
            all_overlays_bytes: overlays(self.all_overlays_bytes)?,
            idle_after: Duration::from_secs(self.idle_after_seconds.unwrap_or(600)),
            blocking_threads: within("blocking_threads", self.blocking_threads.unwrap_or(64), 2, 1024)?,
            max_connections: within(
                "max_connections",
                self.max_connections.unwrap_or(limits::DEFAULT_CONNECTIONS),
                1,
                1 << 20,
            )?,
            log_format: self.log_format.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_else(|| "info".into()),
        })
    }
}

impl Config {
    /// Most threads that block at once: the pool's, and a few for the runtime itself.
    pub fn max_blocking_threads(&self) -> usize {
        crate::pool::threads(self.blocking_threads) + 8
    }
}

/// Keys of the environment, and whether their values are numbers.
const KEYS: [(&str, bool); 11] = [
    ("listen", false),
    ("data_dir", false),
    ("mount_dir", false),
    ("cache_bytes", true),
    ("resident_sessions", true),
    ("all_overlays_bytes", true),
    ("idle_after_seconds", true),
    ("blocking_threads", true),
    ("max_connections", true),
    ("log_format", false),
    ("log_level", false),
];

/// Least bytes for what all sessions changed: some hundred thousand files.
const MIN_OVERLAYS_BYTES: u64 = 64 << 20;

/// Half of the RAM unless something else is set.
fn overlays(bytes: Option<u64>) -> Result<u64> {
    let bytes = bytes.unwrap_or_else(|| (crate::ram::total_bytes() / 2).max(MIN_OVERLAYS_BYTES));
    if bytes >= MIN_OVERLAYS_BYTES {
        return Ok(bytes);
    }
    Err(Error::invalid("all_overlays_bytes", format!("at least {MIN_OVERLAYS_BYTES}")))
}

fn within(key: &'static str, value: usize, min: usize, max: usize) -> Result<usize> {
    if (min..=max).contains(&value) { Ok(value) } else { Err(Error::invalid(key, format!("{min} to {max}"))) }
}

/// The addresses of `listen`, all on loopback: whoever reaches the server may do everything.
fn loopback(listen: &str) -> Result<Vec<SocketAddr>> {
    let found = listen.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let addresses = found.map_err(|e| {
        Error::new(Reason::InvalidArgument, format!("listen: want ADDRESS:PORT, got {listen:?} ({e})"))
            .with("field", "listen")
    })?;
    match addresses.iter().find(|a| !a.ip().is_loopback()) {
        None => Ok(addresses),
        Some(open) => Err(Error::new(
            Reason::NotPermitted,
            format!("refuse to listen on {open}: it can be reached from other machines, and this version has no authentication"),
        )
        .with("field", "listen")
        .next("listen on 127.0.0.1 or [::1], and let others in through an SSH tunnel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Settings {
        Settings { data_dir: Some("/d".into()), ..Settings::default() }
    }

    #[test]
    fn nearer_places_win() {
        let file: Settings =
            toml::from_str("listen = \"127.0.0.1:1\"\ncache_bytes = 5\nlog_format = \"json\"").unwrap();
        let env = Settings::from_env(|k| (k == "AFS_SERVER_LISTEN").then(|| "127.0.0.1:2".into())).unwrap();
        let config = data().over(env).over(file).resolve().unwrap();
        assert_eq!(config.listen[0].port(), 2);
        assert_eq!((config.cache_bytes, config.log_format), (5, LogFormat::Json));
    }

    /// A setting that is not described is one that nobody finds.
    #[test]
    fn all_are_described() {
        let text = include_str!("../../../docs/configuration.md");
        for (key, _) in KEYS {
            let line = format!("| `{key}` | `AFS_SERVER_{}` |", key.to_uppercase());
            assert!(text.contains(&line), "docs/configuration.md lacks: {line}");
        }
    }

    #[test]
    fn overlays_have_some_room_whatever_is_set() {
        let set = |bytes| Settings { all_overlays_bytes: bytes, ..data() }.resolve();
        assert!(set(None).unwrap().all_overlays_bytes >= MIN_OVERLAYS_BYTES);
        assert_eq!(set(Some(1 << 30)).unwrap().all_overlays_bytes, 1 << 30);
        assert!(set(Some(1000)).unwrap_err().message().contains("all_overlays_bytes"));
    }

    #[test]
    fn only_loopback() {
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
            let error = Settings { listen: Some(open.into()), ..data() }.resolve().unwrap_err();
            assert_eq!(error.reason, Reason::NotPermitted, "{open}");
        }
        for good in ["127.0.0.1:0", "[::1]:0", "localhost:0", "127.9.9.9:1"] {
            assert!(Settings { listen: Some(good.into()), ..data() }.resolve().is_ok(), "{good}");
        }
    }

    #[test]
    fn wrong_settings_say_where() {
        assert!(toml::from_str::<Settings>("colour = 1").is_err());
        let wrong =
            Settings::from_env(|k| (k == "AFS_SERVER_CACHE_BYTES").then(|| "lots".into())).unwrap_err();
        assert!(wrong.message().contains("AFS_SERVER_CACHE_BYTES"), "{wrong}");
        let wrong = Settings::from_env(|k| (k == "AFS_SERVER_LOG_FORMAT").then(|| "xml".into())).unwrap_err();
        assert!(wrong.message().contains("log_format") || wrong.message().contains("xml"), "{wrong}");
        assert!(Settings { listen: Some("nonsense".into()), ..data() }.resolve().is_err());
        assert!(Settings { blocking_threads: Some(0), ..data() }.resolve().is_err());
        let none = Settings::default().resolve().unwrap_err();
        assert!(none.next_step().contains("--data"));
    }
}
