//! A server over a damaged journal: it refuses to start, says why and what to do, and never goes back silently.

use crate::programs::Server;
use afs_client::{Client, Options, api};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;

const FILES: usize = 200;
const SESSION: &str = "sess_damage";

/// A server that was killed after it had acknowledged [`FILES`] files.
struct Bed {
    home: tempfile::TempDir,
    server: Server,
    client: Client,
    runtime: Runtime,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut server = Server::new(home.path(), false);
        server.start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let timeout = Duration::from_secs(20);
        let options = Options { endpoint: server.endpoint(), timeout, user_agent: "afs-crash".into() };
        let client = runtime.block_on(async { Client::new(&options) }).unwrap();
        let want = api::CreateSessionRequest { session_id: SESSION.into(), ..Default::default() };
        runtime.block_on(client.create_session(want)).unwrap();
        for number in 0..FILES {
            let path = format!("/file-{number}");
            let header = api::WriteFileHeader { session_id: SESSION.into(), path, ..Default::default() };
            runtime.block_on(client.upload(header, &mut &b"acknowledged"[..], &mut |_| {})).unwrap();
        }
        server.kill();
        Self { home, server, client, runtime }
    }

    fn journal(&self) -> PathBuf {
        self.server.data_dir().join("journal")
    }

    /// The write-ahead log that holds the newest batches.
    fn log(&self) -> PathBuf {
        let files = fs::read_dir(self.journal().join("rocks")).unwrap().flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|ext| ext == "log"));
        logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
    }

    fn copy(&self, from: &Path, to: &Path) {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }

    /// Damages the journal, and expects a refusal with these words; then puts back what was there, and expects all of it.
    fn refused(&mut self, damage: impl FnOnce(&Self), words: &[&str]) {
        let backup = self.home.path().join("backup");
        self.copy(&self.journal(), &backup);
        damage(self);
        for start in ["first", "second"] {
            let (code, said) = self.server.refuses_to_start();
            assert!(code.is_some_and(|code| code > 0), "{start}: {code:?}\n{said}");
            for word in words.iter().chain(&["afs-server: ", "next: ", "journal"]) {
                assert!(said.contains(word), "{start}: no {word:?} in\n{said}");
            }
            assert!(!said.contains("panicked"), "{said}");
        }
        fs::remove_dir_all(self.journal()).unwrap();
        fs::rename(&backup, self.journal()).unwrap();
        self.server.start();
        let want = api::GetManifestRequest { session_id: SESSION.into(), ..Default::default() };
        let entries = self.runtime.block_on(async { self.client.get_manifest(want).await?.collect().await });
        assert_eq!(entries.unwrap().len(), FILES, "every file that was acknowledged");
        self.server.kill();
    }
}

#[test]
fn a_log_that_was_cut_is_refused() {
    let cut = |bed: &Bed| {
        let log = fs::File::options().write(true).open(bed.log()).unwrap();
        log.set_len(log.metadata().unwrap().len() / 2).unwrap();
    };
    Bed::new().refused(cut, &["acknowledged", "backup"]);
}

#[test]
fn a_log_that_was_deleted_is_refused() {
    Bed::new().refused(|bed| fs::remove_file(bed.log()).unwrap(), &["backup"]);
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_refused() {
    let flip = |bed: &Bed| {
        let log = fs::File::options().read(true).write(true).open(bed.log()).unwrap();
        let (mut byte, at) = ([0], log.metadata().unwrap().len() / 2);
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    };
    Bed::new().refused(flip, &["backup"]);
}

#[test]
fn a_mark_or_a_database_that_is_gone_is_refused() {
    let mut bed = Bed::new();
    bed.refused(|bed| fs::remove_file(bed.journal().join("MARK")).unwrap(), &["MARK", "backup"]);
    bed.refused(|bed| fs::remove_dir_all(bed.journal().join("rocks")).unwrap(), &["rocks", "backup"]);
}
