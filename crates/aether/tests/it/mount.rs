//! `aether mount` against a server that is stopped, restarted, and loses answers.

use crate::bed::{Bed, eventually, pause, sh};
use crate::bridge::{Server, World};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

struct Mount {
    bed: Bed,
    world: Arc<World>,
    server: Option<Server>,
    dir: PathBuf,
}

fn mounted(flags: &[&str]) -> Mount {
    assert!(std::path::Path::new("/dev/fuse").exists(), "/dev/fuse is missing: load the module fuse");
    let world = World::new();
    let server = Server::start(&world, None);
    let bed = Bed::new(&server.endpoint());
    let dir = bed.path("m");
    let shown = bed.json(&[&["mount", "--session", "sess_test", "m"], flags].concat());
    assert_eq!(shown["dir"], dir.to_str().unwrap());
    Mount { bed, world, server: Some(server), dir }
}

impl Mount {
    fn restart(&mut self) {
        let address = self.server.take().unwrap().kill();
        self.server = Some(Server::start(&self.world, Some(address)));
    }

    fn live(&self) -> serde_json::Value {
        let (_, out, _) = self.bed.try_run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mounts = status["mounts"].as_array().unwrap();
        mounts.iter().find(|m| m["dir"] == self.dir.to_str().unwrap()).unwrap()["live"].clone()
    }
}

#[test]
fn ordinary_tools_over_the_wire() {
    let m = mounted(&[]);
    let out = sh(
        &m.dir,
        "mkdir -p a/b; echo one >a/b/f; echo two >>a/b/f; mv a x; ln x/b/f hard; ln -s x/b/f soft; cat soft; stat -c %h hard
         sed -i s/one/1/ hard; cat hard; head -c 300000 /dev/urandom >big; cp big copy; cmp big copy; rm -r x; ls
         git init -q r; cd r; echo x >f; git add f; git commit -qm x; git status --porcelain; git log --oneline | wc -l",
    );
    assert_eq!(out, "one\ntwo\n2\n1\ntwo\nbig\ncopy\nhard\nsoft\n1\n");
    let live = m.live();
    assert_eq!(live["connected"], true);
    assert!(live["counters"]["writes"].as_u64().unwrap() > 5, "{live}");
    m.bed.run(&["unmount", "m"]);
    assert!(fs::read_dir(&m.dir).unwrap().next().is_none());
    assert_eq!(m.bed.try_run(&["unmount", "m"]).0, 3);
    // The process is gone, and with it its record.
    let files = fs::read_dir(m.bed.path("../aether")).unwrap().flatten();
    let left: Vec<_> =
        files.map(|f| f.file_name()).filter(|n| n.to_string_lossy().contains("mount-")).collect();
    assert!(left.is_empty(), "{left:?}");
    // Mounted again, everything is there.
    m.bed.run(&["mount", "--session", "sess_test", "m", "--read-only"]);
    assert_eq!(sh(&m.dir, "cat hard; echo x >new 2>/dev/null || echo refused"), "1\ntwo\nrefused\n");
    m.bed.run(&["unmount", "--all"]);
}

#[test]
fn changes_by_others_become_visible() {
    let m = mounted(&[]);
    m.world.fs.remote_write(1, b"f", b"one");
    assert_eq!(fs::read_to_string(m.dir.join("f")).unwrap(), "one");
    let open = File::open(m.dir.join("f")).unwrap();
    m.world.fs.remote_write(1, b"f", b"two, longer");
    eventually("the new content is seen", || fs::read(m.dir.join("f")).unwrap() == b"two, longer");
    eventually("also through an open descriptor", || {
        let mut bytes = [0; 11];
        std::os::unix::fs::FileExt::read_at(&open, &mut bytes, 0).unwrap() == 11 && &bytes == b"two, longer"
    });
    m.world.fs.remote_unlink(1, b"f");
    eventually("it is gone", || !m.dir.join("f").exists());
}

#[test]
fn a_lost_answer_is_no_second_effect() {
    let m = mounted(&[]);
    sh(&m.dir, "echo start >log");
    for i in 0..5 {
        m.world.lose_answers.store(1, Ordering::SeqCst);
        sh(&m.dir, &format!("echo line{i} >>log"));
        m.world.lose_answers.store(2, Ordering::SeqCst);
        sh(&m.dir, &format!("mkdir d{i}; ln log link{i}; mv link{i} moved{i}; rm moved{i}"));
    }
    assert_eq!(
        sh(&m.dir, "cat log; ls"),
        "start\nline0\nline1\nline2\nline3\nline4\nd0\nd1\nd2\nd3\nd4\nlog\n"
    );
}

#[test]
fn a_restarted_server_costs_a_pause_and_no_error() {
    let mut m = mounted(&[]);
    sh(&m.dir, "echo before >f; cat f");
    let mut open = File::options().append(true).open(m.dir.join("f")).unwrap();
    let unlinked = File::open(m.dir.join("f")).unwrap();
    for round in 0..3 {
        m.restart();
        // While the connection was away somebody else changed a file that the kernel has cached.
        m.world.fs.silent_write(1, b"g", format!("round {round}").as_bytes());
        sh(&m.dir, &format!("echo {round} >r{round}; cat f >/dev/null"));
        eventually("what was missed is seen", || {
            fs::read_to_string(m.dir.join("g")).is_ok_and(|t| t == format!("round {round}"))
        });
    }
    open.write_all(b"after\n").unwrap();
    assert_eq!(sh(&m.dir, "cat f r0 r1 r2"), "before\nafter\n0\n1\n2\n");
    drop(unlinked);
    assert_eq!(m.live()["reconnects"], 3);
    m.bed.run(&["unmount", "m", "--force"]);
}

#[test]
fn a_server_that_stays_away_is_an_error_within_bounds_and_then_at_once() {
    let mut m = mounted(&["--patience", "2s"]);
    sh(&m.dir, "echo x >f; cat f");
    let address = m.server.take().unwrap().kill();
    let begin = Instant::now();
    let error = fs::write(m.dir.join("new"), "x").unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    pause(Duration::from_secs(2));
    let begin = Instant::now();
    for i in 0..20 {
        assert!(fs::metadata(m.dir.join(format!("other{i}"))).is_err());
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let live = m.live();
    assert_eq!(live["connected"], false);
    assert!(live["trouble"].as_str().unwrap().contains("refused"), "{live}");
    m.server = Some(Server::start(&m.world, Some(address)));
    eventually("it works again by itself", || fs::write(m.dir.join("new"), "x").is_ok());
    // And without a server it can be unmounted.
    m.server.take().unwrap().kill();
    let begin = Instant::now();
    m.bed.try_run(&["unmount", "m", "--force"]);
    assert!(!afs_fuse::mounts().unwrap().iter().any(|mount| mount.dir == m.dir));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[test]
fn changes_lost_in_a_crash_are_reported_by_the_next_fsync() {
    let mut m = mounted(&[]);
    let mut file = File::create(m.dir.join("f")).unwrap();
    file.write_all(b"acknowledged, not durable").unwrap();
    file.sync_all().unwrap();
    let address = m.server.take().unwrap().kill();
    m.world.revision.store(1, Ordering::SeqCst); // what a crash does to changes that were only accepted
    m.server = Some(Server::start(&m.world, Some(address)));
    eventually("it is connected again", || m.live()["connected"] == true);
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    file.sync_all().unwrap(); // said once
}

#[test]
fn a_killed_mount_process_leaves_what_doctor_can_mend() {
    let m = mounted(&[]);
    sh(&m.dir, "echo x >f");
    let status = m.bed.try_run(&["status", "--json"]).1;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let mounts = status["mounts"].as_array().unwrap();
    let own = mounts.iter().find(|o| o["dir"] == m.dir.to_str().unwrap()).unwrap();
    let pid = own["process"]["pid"].as_i64().unwrap();
    sh(&m.bed.path(""), &format!("kill -9 {pid}"));
    eventually("it is dead", || fs::read_dir(&m.dir).is_err_and(|e| e.raw_os_error() == Some(107)));
    let stale = |args: &[&str]| {
        let (_, out, _) = m.bed.try_run(args);
        out.lines().find(|l| l.contains(m.dir.to_str().unwrap())).unwrap_or_default().to_owned()
    };
    assert!(stale(&["doctor"]).contains("its process is gone"));
    assert!(stale(&["doctor", "--fix"]).contains("removed"));
    assert_eq!(stale(&["doctor"]), "");
    m.bed.run(&["mount", "--session", "sess_test", "m"]);
    assert_eq!(sh(&m.dir, "cat f"), "x\n");
}

#[test]
fn errors_of_mounting() {
    let m = mounted(&[]);
    let (code, _, stderr) = m.bed.try_run(&["mount", "--session", "sess_none", "n"]);
    assert!(code == 3 && stderr.contains("sess_none"), "{code} {stderr}");
    let (code, _, stderr) = m.bed.try_run(&["mount", "--session", "sess_test", "m"]);
    assert!(code == 4 && stderr.contains("already"), "{code} {stderr}");
    let file = File::create(m.dir.join("f")).unwrap();
    let (code, _, stderr) = m.bed.try_run(&["unmount", "m"]);
    assert!(code == 4 && stderr.contains(&std::process::id().to_string()), "{code} {stderr}");
    drop(file);
    m.bed.run(&["unmount", "m"]);
}
