//! What a remote mount learns of changes that were answered, not durable, and lost: always, and never somebody else's bytes.

use crate::programs::{RemoteMount, Server, eventually, pause, signal};
use afs_client::{Client, Options, api};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

const SESSION: &str = "sess_lost";
/// A kill may come after the group was written, and then nothing is lost: so it is tried again.
const TRIES: u32 = 30;
const ETIMEDOUT: i32 = 110;

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

/// Programs under kills found it: changes that the server had got, and not answered when it was killed, failed with ETIMEDOUT as soon as
/// the next one was there. The server is stopped first, so that each is on its way to it for certain.
#[test]
fn what_is_under_way_in_a_kill_is_made_once() {
    let mut bed = Bed::new();
    for round in 0..3 {
        let top = bed.path(&format!("round-{round}"));
        let changes = once_only(&top);
        // Nothing is lost, so nothing may fail; and all names are known, so that no look-up waits in front of a change.
        for dir in [&top, &bed.remote.dir] {
            File::open(dir).unwrap().sync_all().unwrap();
        }
        signal(bed.server.pid(), "-STOP");
        let run = |(name, change): (&'static str, Change)| std::thread::spawn(move || (name, change()));
        let under_way: Vec<_> = changes.into_iter().map(run).collect();
        pause(Duration::from_millis(500));
        bed.server.kill();
        bed.server.start();
        for change in under_way {
            let (name, outcome) = change.join().unwrap();
            assert!(outcome.is_ok(), "round {round}: {name}: {outcome:?}");
        }
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        for (dir, left) in LEFT {
            let mut names: Vec<_> = fs::read_dir(top.join(dir)).unwrap().map(name).collect();
            names.sort();
            assert_eq!(names, *left, "round {round}: {dir}");
        }
        assert_eq!(fs::read_to_string(top.join("append/f")).unwrap(), "f+", "round {round}");
    }
}

type Change = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// What is in the directory of each change afterwards.
const LEFT: &[(&str, &[&str])] = &[
    ("append", &["f"]),
    ("create", &["f", "new"]),
    ("link", &["f", "new"]),
    ("mkdir", &["f", "new"]),
    ("rename", &["new"]),
    ("symlink", &["f", "new"]),
    ("unlink", &[]),
];

/// Changes that cannot be made twice, each in a directory of its own with a file `f`: in one, the kernel would let them wait for each other.
fn once_only(top: &Path) -> Vec<(&'static str, Change)> {
    fs::create_dir(top).unwrap();
    for (dir, _) in LEFT {
        let dir = top.join(dir);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), "f").unwrap();
        assert!(fs::metadata(dir.join("f")).is_ok() && fs::metadata(dir.join("new")).is_err());
    }
    let at = |dir: &str| (top.join(dir).join("f"), top.join(dir).join("new"));
    let mut file = File::options().append(true).open(at("append").0).unwrap();
    let [create, link, mkdir, rename, symlink, unlink] =
        ["create", "link", "mkdir", "rename", "symlink", "unlink"].map(at);
    vec![
        ("append", Box::new(move || file.write_all(b"+"))),
        ("create", Box::new(move || File::create_new(create.1).map(drop))),
        ("link", Box::new(move || fs::hard_link(link.0, link.1))),
        ("mkdir", Box::new(move || fs::create_dir(mkdir.1))),
        ("rename", Box::new(move || fs::rename(rename.0, rename.1))),
        ("symlink", Box::new(move || std::os::unix::fs::symlink("f", symlink.1))),
        ("unlink", Box::new(move || fs::remove_file(unlink.0))),
    ]
}

#[test]
fn a_mount_whose_server_is_killed_in_the_middle_of_a_call_neither_hangs_nor_fails() {
    let mut bed = Bed::new();
    let dir = bed.remote.dir.clone();
    let writer = std::thread::spawn(move || {
        for number in 0..200 {
            fs::write(dir.join(format!("file-{}", number % 10)), format!("{number}"))?;
        }
        Ok::<_, std::io::Error>(())
    });
    for _ in 0..3 {
        pause(Duration::from_millis(30));
        bed.server.kill();
        bed.server.start();
    }
    eventually("the writer ends", || writer.is_finished());
    // What a kill took back is said; that nobody knows what became of a change is not, since the server does.
    if let Err(error) = writer.join().unwrap() {
        assert_ne!(error.raw_os_error(), Some(ETIMEDOUT), "{error}");
    }
    fs::write(bed.path("after"), "works").unwrap();
    eventually("the mount works on", || bed.get("/after").as_deref() == Some(b"works"));
}
