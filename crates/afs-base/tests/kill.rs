//! `kill -9` at any moment of an import: the next one succeeds, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use afs_base::{ImportDirs, ImportSpec, NoProgress};
use afs_store::{BlobStore, SimJournal};
use afs_types::SystemRng;
use common::*;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn import_in(root: &Path, blobs: &str, url: &str) -> afs_types::Result<afs_base::Imported> {
    let journal = SimJournal::new()?;
    let blobs = BlobStore::open(&root.join(blobs), [7; 32], 16 << 20, journal)?;
    let dirs = ImportDirs { mirrors: root.join("data/mirrors"), temp: root.join("data/temp") };
    let spec = ImportSpec::Git { url: url.into(), reference: None };
    afs_base::import(&spec, &dirs, &blobs, &SystemRng, NOW_NS, &NoProgress)
}

/// The body of the process that is killed; does nothing in a normal run.
#[test]
fn child() {
    let Some(root) = std::env::var_os("AFS_KILL_ROOT").map(PathBuf::from) else { return };
    let url = std::env::var("AFS_KILL_URL").unwrap();
    import_in(&root, "blobs-child", &url).unwrap();
}

#[test]
fn an_import_survives_kill_at_any_moment() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    for i in 0..3000 {
        repo.write(&format!("many/{}/{i}", i % 50), format!("{i}\n").as_bytes());
    }
    repo.commit_all("many");
    let file_url = format!("file://{}", repo.url());
    let start = |root: &Path, url: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env("AFS_KILL_ROOT", root)
            .env("AFS_KILL_URL", url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    // How long a first one takes, here and now: the kills are spread over half of that, for later ones are faster.
    let began = Instant::now();
    assert!(start(&world.path("first"), &repo.url()).wait().unwrap().success());
    let whole = began.elapsed();
    let mut killed = 0;
    // One mirror that is updated, so that both the first clone and later fetches are hit.
    for round in 0..30u32 {
        let root = world.path(&format!("root{}", round / 3));
        if round % 3 == 2 {
            repo.write("round", round.to_string().as_bytes());
            repo.commit_all("round");
        }
        let url = if round % 2 == 0 { repo.url() } else { file_url.clone() };
        let until = Instant::now() + whole * (round * 7 % 20) / 40;
        let mut child = start(&root, &url);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "round {round}: {status}");
        killed += u32::from(status.signal() == Some(9));
        let imported = import_in(&root, &format!("blobs{round}"), &url)
            .unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        assert_eq!(imported.upstream, Some(repo.head()), "round {round}");
        assert_eq!(imported.totals.files as usize, table_of(&imported).totals().files as usize);
        let left: Vec<_> =
            fs::read_dir(root.join("data/temp")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| n == "lock"), "{left:?}");
    }
    assert!(killed > 10, "only {killed} were killed in {whole:?}");
}
