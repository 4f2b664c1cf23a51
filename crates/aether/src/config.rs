//! Settings, each with where it came from: flag > environment > `./.aether.toml` > user's file > default.
//!
//! A key that does not exist is an error naming the file: a typing mistake must not be a silent default.

use crate::paths;
use afs_types::{Error, Reason, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Overrides `bridge.server_endpoint` of the files.
pub(crate) const ENDPOINT_VARIABLE: &str = "AFS_AETHER_SERVER_ENDPOINT";

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) endpoint: Setting<String>,
    pub(crate) log_format: Setting<LogFormat>,
    pub(crate) metrics_addr: Setting<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    bridge: Bridge,
    #[serde(default)]
    logging: Logging,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Bridge {
    server_endpoint: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Logging {
    format: Option<LogFormat>,
    metrics_addr: Option<String>,
}

/// What may override the files.
#[derive(Default)]
pub(crate) struct Overrides {
    pub(crate) endpoint: Option<String>,
    /// This file instead of the project's and the user's.
    pub(crate) file: Option<PathBuf>,
    pub(crate) variable: Option<String>,
}

impl Config {
    /// Reads the files, highest first.
    pub(crate) fn load(overrides: Overrides) -> Result<Self> {
        let candidates = match &overrides.file {
            Some(file) => vec![file.clone()],
            None => [Some(paths::project_config()), paths::user_config()].into_iter().flatten().collect(),
        };
        let mut files = Vec::new();
        for path in candidates {
            let is_asked_for = overrides.file.is_some();
            if let Some(file) = read(&path, is_asked_for)? {
                files.push((path, file));
            }
        }
        let endpoint = overrides
            .endpoint
            .map(|value| Setting { value, origin: Origin::Flag("--endpoint") })
            .or_else(|| {
                let value = overrides.variable.filter(|v| !v.is_empty())?;
                Some(Setting { value, origin: Origin::Variable(ENDPOINT_VARIABLE) })
            })
            .or_else(|| first(&files, |f| f.bridge.server_endpoint.clone()));
        Ok(Self {
            endpoint: endpoint.unwrap_or_else(|| default(default_endpoint())),
            log_format: first(&files, |f| f.logging.format).unwrap_or_else(|| default(LogFormat::Text)),
            metrics_addr: first(&files, |f| f.logging.metrics_addr.clone())
                .unwrap_or_else(|| default(String::new())),
        })
    }
}

/// Where a server of this machine listens unless told otherwise.
fn default_endpoint() -> String {
    format!("http://{}", afs_types::DEFAULT_ADDRESS)
}

fn default<T>(value: T) -> Setting<T> {
    Setting { value, origin: Origin::Default }
}

fn first<T>(files: &[(PathBuf, File)], get: impl Fn(&File) -> Option<T>) -> Option<Setting<T>> {
    files
        .iter()
        .find_map(|(path, file)| Some(Setting { value: get(file)?, origin: Origin::File(path.clone()) }))
}

fn read(path: &Path, must_exist: bool) -> Result<Option<File>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(e) => {
            return Err(Error::new(Reason::InvalidArgument, format!("read {}: {e}", path.display()))
                .next("check the path and its permissions"));
        }
    };
    toml::from_str(&text).map(Some).map_err(|e| {
        Error::new(Reason::InvalidArgument, format!("{}: {}", path.display(), e.to_string().trim()))
            .next("known keys: [bridge] server_endpoint, [logging] format, metrics_addr")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
[bridge]
server_endpoint = "https://your-service.example.com"
[logging]
format = "text"
metrics_addr = "127.0.0.1:9464"
"#;

    fn load(file: &str, flag: Option<&str>, variable: Option<&str>) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, file).unwrap();
        Config::load(Overrides {
            endpoint: flag.map(Into::into),
            file: Some(path),
            variable: variable.map(Into::into),
        })
    }

    #[test]
    fn the_product_s_own_example() {
        let config = load(EXAMPLE, None, None).unwrap();
        assert_eq!(config.endpoint.value, "https://your-service.example.com");
        assert!(matches!(config.endpoint.origin, Origin::File(_)));
        assert_eq!(config.log_format.value, LogFormat::Text);
        assert_eq!(config.metrics_addr.value, "127.0.0.1:9464");
    }

    #[test]
    fn layers() {
        let endpoint = |flag, variable| load(EXAMPLE, flag, variable).unwrap().endpoint;
        assert_eq!(endpoint(Some("http://f"), Some("http://v")).origin, Origin::Flag("--endpoint"));
        assert_eq!(endpoint(None, Some("http://v")).value, "http://v");
        assert_eq!(load("", None, Some("")).unwrap().endpoint, default(default_endpoint()));
    }

    #[test]
    fn mistakes_are_errors_that_name_the_file_and_the_keys() {
        for bad in ["[bridge]\nendpoint = \"x\"", "[bridg]", "[logging]\nformat = \"xml\"", "not toml"] {
            let error = load(bad, None, None).unwrap_err();
            assert!(
                error.message().contains("c.toml") && error.next_step().contains("server_endpoint"),
                "{error}"
            );
        }
        let missing = Overrides { file: Some("/nonexistent/x.toml".into()), ..Overrides::default() };
        assert!(Config::load(missing).is_err());
    }
}
