//! A real server in this process, with its mount of all sessions, and the program's mount beside it.

use crate::bed::{Bed, sh};
use afs_server::{Running, Settings, start};
use std::path::{Path, PathBuf};

/// Dropping it stops everything.
pub(crate) struct Real {
    pub(crate) bed: Bed,
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
    /// Every session as a directory.
    pub(crate) all: PathBuf,
}

impl Real {
    pub(crate) fn start() -> Self {
        assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: load the module fuse");
        let mut bed = Bed::new("");
        // After `isolate`, so that its threads see the same mounts.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let all = bed.path("all");
        let running = runtime.block_on(start(settings(&bed, "127.0.0.1:0").resolve().unwrap())).unwrap();
        bed.endpoint = format!("http://{}", running.addresses()[0]);
        Self { bed, runtime, running: Some(running), all }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Ends in order and starts again on the same data and port.
    pub(crate) fn restart(&mut self) {
        let address = self.running().addresses()[0].to_string();
        self.runtime.block_on(self.running.take().unwrap().stop()).unwrap();
        let config = settings(&self.bed, &address).resolve().unwrap();
        self.running = Some(self.runtime.block_on(start(config)).unwrap());
    }

    /// As `restart`; `meanwhile` runs from when the old server has stopped, beside the start of the new one.
    pub(crate) fn restart_beside<T: Send>(&mut self, meanwhile: impl FnOnce() -> T + Send) -> T {
        let address = self.running().addresses()[0].to_string();
        self.runtime.block_on(self.running.take().unwrap().stop()).unwrap();
        let config = settings(&self.bed, &address).resolve().unwrap();
        std::thread::scope(|scope| {
            let beside = scope.spawn(meanwhile);
            self.running = Some(self.runtime.block_on(start(config)).unwrap());
            beside.join().unwrap()
        })
    }

    /// A session of a repository, or an empty one.
    pub(crate) fn session(&self, repository: Option<&Path>) -> String {
        let made = match repository {
            Some(path) => self.bed.json(&["session", "create", "--git", path.to_str().unwrap()]),
            None => self.bed.json(&["session", "create", "--empty"]),
        };
        made["session_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn fork(&self, session: &str) -> String {
        let made = self.bed.json(&["session", "fork", session]);
        let first = made.as_array().map_or(&made, |all| &all[0]);
        first["session_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// The session in the server's mount.
    pub(crate) fn dir(&self, session: &str) -> PathBuf {
        self.all.join(session)
    }

    /// The session in a mount of its own, over the wire.
    pub(crate) fn remote(&self, session: &str) -> PathBuf {
        let name = format!("remote-{session}");
        self.bed.run(&["mount", "--session", session, &name]);
        self.bed.path(&name)
    }
}

fn settings(bed: &Bed, listen: &str) -> Settings {
    Settings {
        listen: Some(listen.into()),
        data_dir: Some(bed.path("data")),
        mount_dir: Some(bed.path("all")),
        blocking_threads: Some(8),
        ..Settings::default()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.bed.try_run(&["unmount", "--all", "--force"]);
        if let Some(running) = self.running.take() {
            let stopped = self.runtime.block_on(running.stop());
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

/// A repository: directories with files, ignore files, an executable, a link, a branch.
pub(crate) fn repository(at: &Path, dirs: usize) -> PathBuf {
    std::fs::create_dir_all(at).unwrap();
    for dir in 0..dirs {
        let path = at.join(format!("pkg-{}/mod-{dir}", dir % 7));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..8 {
            std::fs::write(path.join(format!("file-{file}.txt")), format!("{dir} {file}\n").repeat(5))
                .unwrap();
        }
        if dir % 5 == 0 {
            std::fs::write(path.join(".gitignore"), "*.log\nbuild/\n").unwrap();
        }
    }
    sh(
        at,
        "printf 'target/\\n' >.gitignore; echo 'echo hi' >run.sh; chmod +x run.sh; ln -s run.sh link
         git init -q -b main; git add -A; git commit -qm first; git branch side",
    );
    at.to_owned()
}
