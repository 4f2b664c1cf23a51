//! What a session shows to anybody who asks, read through the API.

use super::area::Shown;
use afs_client::{Client, api};
use afs_types::Error;
use api::EntryType;
use std::collections::BTreeMap;

/// The areas of a session, by name.
pub(super) type Areas = BTreeMap<String, Shown>;

/// Reads all of a session as it is now, or as it was at a checkpoint or commit.
pub(super) async fn observe(client: &Client, session: &str, at: &str) -> Result<Areas, Error> {
    let want = api::GetManifestRequest {
        session_id: session.to_owned(),
        checkpoint_id: at.to_owned(),
        ..Default::default()
    };
    let entries = client.get_manifest(want).await?.collect().await?;
    let mut areas = Areas::new();
    let mut firsts: BTreeMap<u64, String> = BTreeMap::new();
    let mut log = String::new();
    let mut sorted: Vec<&api::Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for entry in sorted {
        let path = entry.path.trim_start_matches('/');
        if path == "log" {
            log = String::from_utf8_lossy(&read(client, session, at, &entry.path).await?).into_owned();
            continue;
        }
        let Some((area, path)) = path.split_once('/') else {
            if entry.r#type() == EntryType::Directory {
                areas.entry(path.to_owned()).or_default();
            }
            continue;
        };
        let shown = match entry.r#type() {
            EntryType::Directory => Shown::dir(),
            EntryType::Symlink => Shown::symlink(&entry.symlink_target),
            _ => {
                let bytes = read(client, session, at, &entry.path).await?;
                let first = firsts.entry(entry.inode).or_insert_with(|| path.to_owned());
                Shown::file(&bytes, entry.link_count, first)
            }
        };
        areas.entry(area.to_owned()).or_default().paths.insert(path.to_owned(), shown);
    }
    for line in log.split_inclusive('\n') {
        let area = line.split(' ').next().and_then(|tag| areas.get_mut(tag));
        let area =
            area.ok_or_else(|| Error::new(afs_types::Reason::Corrupt, format!("a torn line: {line:?}")))?;
        area.lines.push_str(line);
    }
    Ok(areas)
}

async fn read(client: &Client, session: &str, at: &str, path: &str) -> Result<Vec<u8>, Error> {
    let want = api::ReadFileRequest {
        session_id: session.to_owned(),
        path: path.to_owned(),
        checkpoint_id: at.to_owned(),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    client.download(want, &mut bytes, &mut |_| {}).await?;
    Ok(bytes)
}
