//! What a remote mount learns of changes that were answered, not durable, and lost: always, and never somebody else's bytes.

use crate::programs::{RemoteMount, Server, eventually, pause, signal};
use afs_client::{Client, Options, api};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

const SESSION: &str = "sess_lost";
/// A kill may come after the group was written, and then nothing is lost: so it is tried again.
const TRIES: u32 = 30;

struct Bed {
    remote: RemoteMount,
    server: Server,
    client: Client,
    runtime: Runtime,
    _home: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        crate::isolation::isolate();
        let home = tempfile::tempdir().unwrap();
        let mut server = Server::new(home.path(), false);
        server.start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (endpoint, timeout) = (server.endpoint(), Duration::from_secs(20));
        let options = Options { endpoint: endpoint.clone(), timeout, user_agent: "afs-crash".into() };
        let client = runtime.block_on(async { Client::new(&options) }).unwrap();
        let want = api::CreateSessionRequest { session_id: SESSION.into(), ..Default::default() };
        runtime.block_on(client.create_session(want)).unwrap();
        let remote = RemoteMount::start(home.path(), &endpoint, SESSION);
        Self { remote, server, client, runtime, _home: home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.remote.dir.join(name)
    }

    fn put(&self, path: &str, mut bytes: &[u8]) {
        let header =
            api::WriteFileHeader { session_id: SESSION.into(), path: path.into(), ..Default::default() };
        self.runtime.block_on(self.client.upload(header, &mut bytes, &mut |_| {})).unwrap();
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        let want =
            api::ReadFileRequest { session_id: SESSION.into(), path: path.into(), ..Default::default() };
        let mut bytes = Vec::new();
        self.runtime.block_on(self.client.download(want, &mut bytes, &mut |_| {})).ok().map(|_| bytes)
    }

    /// Kills the server at once, and keeps the mount's process from learning of it until `meanwhile` has been done on the new one.
    fn kill_behind_its_back(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.server.kill();
        signal(self.remote.pid(), "-STOP");
        self.server.start();
        meanwhile(self);
        signal(self.remote.pid(), "-CONT");
    }
}

#[test]
fn what_was_lost_is_said_even_when_others_wrote_more_since() {
    let mut bed = Bed::new();
    for number in 1..=TRIES {
        let name = format!("lost-{number}");
        let mut file = File::create(bed.path("kept")).unwrap();
        let (other, dir) = (File::open(bed.path("kept")).unwrap(), File::open(&bed.remote.dir).unwrap());
        file.sync_all().unwrap();
        File::create(bed.path(&name)).unwrap();
        file.write_all(b"answered, not durable").unwrap();
        bed.kill_behind_its_back(|bed| {
            // The session's revision is soon beyond everything that this mount has ever seen.
            (0..10).for_each(|other| bed.put(&format!("/other-{other}"), b"x"));
        });
        let is_lost = bed.get(&format!("/{name}")).is_none();
        let synced = file.sync_all();
        if is_lost {
            assert!(synced.is_err(), "a file is lost, and fsync succeeds");
            file.sync_all().expect("said once is enough");
            for handle in [other, dir] {
                assert!(handle.sync_all().is_err(), "one handle was told, and another's fsync succeeds");
                handle.sync_all().expect("said once is enough");
            }
            drop(file);
            let (status, said) = bed.remote.stop();
            assert!(status.code() == Some(1) && said.contains("lost changes"), "{status}: {said}");
            return;
        }
    }
    panic!("{TRIES} kills lost nothing");
}

#[test]
fn the_number_of_a_lost_file_never_leads_to_another_one() {
    let mut bed = Bed::new();
    for number in 1..=TRIES {
        let (lost, other) = (format!("lost-{number}"), format!("/other-{number}"));
        // The first file of a server's life, whose number is the first of its supply.
        let mut file = File::create(bed.path(&lost)).unwrap();
        bed.kill_behind_its_back(|bed| bed.put(&other, b"of somebody else"));
        let is_lost = bed.get(&format!("/{lost}")).is_none();
        let written = file.write_all(b"of the lost file");
        assert_eq!(
            bed.get(&other).as_deref(),
            Some(&b"of somebody else"[..]),
            "bytes went into another file"
        );
        if is_lost {
            assert!(written.is_err(), "a file is lost, and a write to it succeeds");
            return;
        }
        pause(Duration::from_millis(1));
    }
    panic!("{TRIES} kills lost nothing");
}

#[test]
fn a_mount_whose_server_is_killed_in_the_middle_of_a_call_neither_hangs_nor_fails() {
    let mut bed = Bed::new();
    let dir = bed.remote.dir.clone();
    let writer = std::thread::spawn(move || {
        for number in 0..200 {
            std::fs::write(dir.join(format!("file-{}", number % 10)), format!("{number}"))?;
        }
        Ok::<_, std::io::Error>(())
    });
    for _ in 0..3 {
        pause(Duration::from_millis(30));
        bed.server.kill();
        bed.server.start();
    }
    // A create or a write may be said to have an unknown outcome; it may not hang.
    eventually("the writer ends", || writer.is_finished());
    drop(writer.join().unwrap());
    std::fs::write(bed.path("after"), "works").unwrap();
    eventually("the mount works on", || bed.get("/after").as_deref() == Some(b"works"));
}
