//! `aether mount` against a server that is stopped, restarted, and loses answers.

use crate::bed::{Bed, eventually, pause, sh};
use crate::bridge::{Server, World};
use crate::real::{Real, repository};
use afs_types::Reason;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
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

    fn shown(&self) -> serde_json::Value {
        let (_, out, _) = self.bed.try_run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mounts = status["mounts"].as_array().unwrap();
        mounts.iter().find(|m| m["dir"] == self.dir.to_str().unwrap()).unwrap().clone()
    }

    fn live(&self) -> serde_json::Value {
        self.shown()["live"].clone()
    }

    fn kill_process(&self) {
        let pid = self.shown()["process"]["pid"].as_i64().unwrap();
        sh(&self.bed.path(""), &format!("kill -9 {pid}"));
        eventually("it is dead", || fs::read_dir(&self.dir).is_err_and(|e| e.raw_os_error() == Some(107)));
    }

    /// A crash takes back what was accepted and not durable; returns when the mount knows.
    fn crash(&mut self, crashes: u64) {
        let address = self.server.take().unwrap().kill();
        self.world.revision.store(1, Ordering::SeqCst);
        self.server = Some(Server::start(&self.world, Some(address)));
        eventually("it is connected again", || {
            let live = self.live();
            live["connected"] == true && live["reconnects"].as_u64() >= Some(crashes)
        });
    }

    fn is_mounted(&self) -> bool {
        afs_fuse::mounts().unwrap().iter().any(|mount| mount.dir == self.dir)
    }
}

/// The problem objects among what a program said.
fn problems(stderr: &str) -> Vec<serde_json::Value> {
    let values = stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    values.filter(|value| value["reason"].is_string()).collect()
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
        FileExt::read_at(&open, &mut bytes, 0).unwrap() == 11 && &bytes == b"two, longer"
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

/// The mount itself was asked how it is; with its server gone that question was held for as long as the mount has patience, and the program with it.
#[test]
fn status_without_a_server_takes_seconds_and_says_what_is_known() {
    let mut m = mounted(&[]);
    m.server.take().unwrap().kill();
    eventually("the mount is shown as disconnected", || {
        let begin = Instant::now();
        let shown = m.shown();
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
        shown["state"] == "disconnected"
    });
    let (code, out, _) = m.bed.try_run(&["status"]);
    assert!(code == 6 && out.contains("disconnected") && out.contains("refused"), "{code} {out}");
    // Neither does one whose process is stopped hold it.
    let pid = m.shown()["process"]["pid"].as_i64().unwrap();
    sh(&m.bed.path(""), &format!("kill -STOP {pid}"));
    let begin = Instant::now();
    let (_, out, _) = m.bed.try_run(&["status"]);
    let took = begin.elapsed();
    sh(&m.bed.path(""), &format!("kill -CONT {pid}"));
    assert!(out.contains("no answer") && out.contains(&format!("process {pid} does not answer")), "{out}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_quiet_mount_says_nothing() {
    let m = mounted(&[]);
    m.bed.run(&["unmount", "m"]);
    let (code, out, err) = m.bed.try_run(&["mount", "-q", "--session", "sess_test", "m"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    assert!(m.is_mounted());
    m.bed.run(&["unmount", "m"]);
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

/// Two hundred kills found it: a truncation by inode came after a crash that had taken back the renaming before it, and hit a file of another name.
#[test]
fn a_change_under_way_is_not_made_where_a_crash_took_back_what_was_before_it() {
    for lost in [false, true] {
        let mut m = mounted(&[]);
        fs::write(m.dir.join("f"), "0123456789").unwrap();
        let file = File::options().write(true).open(m.dir.join("f")).unwrap();
        let address = m.server.take().unwrap().kill();
        let under_way = std::thread::spawn(move || file.set_len(3));
        // Long enough for it to have begun; it waits for the server.
        pause(Duration::from_secs(1));
        if lost {
            m.world.revision.store(1, Ordering::SeqCst);
        }
        m.server = Some(Server::start(&m.world, Some(address)));
        let outcome = under_way.join().unwrap();
        let content = fs::read_to_string(m.dir.join("f")).unwrap();
        if lost {
            assert_eq!((outcome.unwrap_err().raw_os_error(), &content[..]), (Some(5), "0123456789"));
            // What begins now is made.
            fs::write(m.dir.join("f"), "new").unwrap();
            assert_eq!(fs::read_to_string(m.dir.join("f")).unwrap(), "new");
        } else {
            outcome.unwrap();
            assert_eq!(content, "012");
        }
    }
}

#[test]
fn an_open_file_without_a_name_outlives_a_restart_of_the_server() {
    let mut real = Real::start();
    let session = real.session(None);
    let dir = real.remote(&session);
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("f")).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    fs::remove_file(dir.join("f")).unwrap();
    real.restart();
    fs::write(dir.join("g"), "a change in the new life of the server").unwrap();
    file.write_all_at(b"K", 0).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, file.metadata().unwrap().nlink()), (b"Kept", 0));
    assert!(!dir.join("f").exists());
}

#[test]
fn every_handle_from_before_a_loss_is_told_once() {
    let mut m = mounted(&[]);
    let mut a = File::create(m.dir.join("a")).unwrap();
    let b = File::create(m.dir.join("b")).unwrap();
    let dir = File::open(&m.dir).unwrap();
    let read = File::open(m.dir.join("a")).unwrap();
    for file in [&a, &b, &dir, &read] {
        file.sync_all().unwrap();
    }
    a.write_all(b"acknowledged, not durable").unwrap();
    m.crash(1);
    let code = |file: &File| file.sync_all().map_err(|e| e.raw_os_error());
    assert_eq!(code(&a), Err(Some(5)), "the first to ask");
    let late = [File::open(m.dir.join("b")).unwrap(), File::open(&m.dir).unwrap()];
    assert_eq!(code(&a), Ok(()), "said once");
    for (file, what) in
        [(&b, "another file"), (&dir, "the directory"), (&read, "another handle of the first file")]
    {
        assert_eq!(code(file), Err(Some(5)), "{what}: whatever the first was told");
        assert_eq!(code(file), Ok(()), "{what}: said once");
    }
    assert_eq!((code(&late[0]), code(&late[1])), (Ok(()), Ok(())), "opened afterwards");
    a.write_all(b"again").unwrap();
    m.crash(2);
    for file in [&a, &b, &dir, &read, &late[0], &late[1]] {
        assert_eq!((code(file), code(file)), (Err(Some(5)), Ok(())), "each loss is said");
    }
    // A program that writes, closes, opens again and then syncs must hear of it, too.
    a.write_all(b"once more").unwrap();
    m.crash(3);
    let early = File::open(m.dir.join("a")).unwrap();
    assert_eq!(
        (code(&early), code(&early)),
        (Err(Some(5)), Ok(())),
        "nobody had been told when it was opened"
    );
}

#[test]
fn unmounting_without_a_server_says_that_the_last_changes_may_be_lost() {
    let mut m = mounted(&["--patience", "1s"]);
    // That one would wait for its server for much longer than anybody waits for an unmount.
    m.bed.run(&["mount", "--session", "sess_test", "n", "--patience", "60s"]);
    fs::write(m.dir.join("f"), "accepted").unwrap();
    m.server.take().unwrap().kill();
    let (code, out, stderr) = m.bed.try_run(&["unmount", "--all", "--json"]);
    assert_eq!(code, 6, "{out}\n{stderr}");
    let told = problems(&stderr);
    assert_eq!(told.len(), 2, "each is told: {stderr}");
    for problem in &told {
        assert_eq!(problem["reason"], "UNAVAILABLE", "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("not known to be on the server's disk"), "{detail}");
        assert!(problem["next_steps"][0].as_str().unwrap().contains("aether status"), "{problem}");
    }
    assert_ne!(told[0]["metadata"]["dir"], told[1]["metadata"]["dir"]);
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out["unmounted"].as_array().unwrap().len(), 2, "they are gone all the same: {out}");
    assert!(!m.is_mounted());
}

#[test]
fn unmounting_says_that_a_crash_took_changes_back() {
    let mut m = mounted(&[]);
    let file = File::create(m.dir.join("f")).unwrap();
    m.crash(1);
    // Another one was told, who may not be the one who unmounts.
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    drop(file);
    let (code, _, stderr) = m.bed.try_run(&["unmount", "m"]);
    assert!(code == 1 && stderr.contains("lost changes") && stderr.contains("next:"), "{code} {stderr}");
    assert!(!m.is_mounted());
    m.bed.run(&["mount", "--session", "sess_test", "m"]);
    fs::write(m.dir.join("f"), "kept").unwrap();
    m.bed.run(&["unmount", "m"]);
}

#[test]
fn a_mount_whose_process_was_killed_is_unmounted_without_a_promise() {
    let m = mounted(&[]);
    sh(&m.dir, "echo x >f");
    m.kill_process();
    let (code, _, stderr) = m.bed.try_run(&["unmount", "m"]);
    assert!(code == 6 && stderr.contains("was killed") && stderr.contains("not known"), "{code} {stderr}");
    assert!(!m.is_mounted());
}

#[test]
fn an_open_that_crosses_a_new_attachment_is_held_once() {
    let m = mounted(&[]);
    sh(&m.dir, "echo x >f");
    let ino = fs::metadata(m.dir.join("f")).unwrap().ino();
    eventually("the shell's is closed", || m.world.held(ino) == 0);
    m.world.forget_at_open.store(1, Ordering::SeqCst);
    let file = File::open(m.dir.join("f")).unwrap();
    assert_eq!(m.live()["reconnects"], 1, "it crossed one");
    assert_eq!(m.world.held(ino), 1);
    drop(file);
    eventually("it is closed", || m.world.held(ino) == 0);
}

#[test]
fn a_close_that_crosses_a_new_attachment_ends_its_own_hold_only() {
    let mut m = mounted(&[]);
    sh(&m.dir, "echo x >f");
    let ino = fs::metadata(m.dir.join("f")).unwrap().ino();
    eventually("the shell's is closed", || m.world.held(ino) == 0);
    let [first, second] = [(); 2].map(|()| File::open(m.dir.join("f")).unwrap());
    assert_eq!(m.world.held(ino), 2);
    let closed = m.live()["counters"]["releases"].as_u64().unwrap();
    let address = m.server.take().unwrap().kill();
    drop(first);
    eventually("the kernel has closed it", || m.live()["counters"]["releases"].as_u64().unwrap() > closed);
    m.server = Some(Server::start(&m.world, Some(address)));
    eventually("it is connected again", || m.live()["reconnects"] == 1);
    // What waited to be sent has been, when what came after it is answered.
    drop(File::create(m.dir.join("g")).unwrap());
    let other = fs::metadata(m.dir.join("g")).unwrap().ino();
    eventually("a later close arrives", || m.world.held(other) == 0);
    assert_eq!(m.world.held(ino), 1);
    drop(second);
    eventually("it is closed", || m.world.held(ino) == 0);
}

#[test]
fn a_killed_mount_process_leaves_what_doctor_can_mend() {
    let m = mounted(&[]);
    sh(&m.dir, "echo x >f");
    m.kill_process();
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

#[test]
fn what_the_server_has_no_room_for_is_sent_again() {
    let m = mounted(&["--patience", "5s"]);
    m.world.refuse_ops.store(3, Ordering::SeqCst);
    let before = m.world.applied.load(Ordering::SeqCst);
    fs::create_dir(m.dir.join("d")).unwrap();
    assert_eq!(m.world.refuse_ops.load(Ordering::SeqCst), 0, "it was refused");
    assert_eq!(m.world.applied.load(Ordering::SeqCst), before + 1, "once");
    fs::write(m.dir.join("log"), "start\n").unwrap();
    let mut log = File::options().append(true).open(m.dir.join("log")).unwrap();
    for line in ["one\n", "two\n"] {
        m.world.refuse_ops.store(2, Ordering::SeqCst);
        log.write_all(line.as_bytes()).unwrap();
    }
    drop(log);
    assert_eq!(fs::read_to_string(m.dir.join("log")).unwrap(), "start\none\ntwo\n");
    // A server that has none for good is an error, within bounds.
    m.world.refuse_ops.store(1 << 40, Ordering::SeqCst);
    let begin = Instant::now();
    let error = fs::create_dir(m.dir.join("e")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Reason::QueueFull.errno()), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    m.world.refuse_ops.store(0, Ordering::SeqCst);
    fs::create_dir(m.dir.join("e")).unwrap();
}

#[test]
fn a_close_that_the_server_has_no_room_for_is_not_forgotten() {
    let m = mounted(&["--patience", "1s"]);
    fs::write(m.dir.join("f"), "x").unwrap();
    let file = File::open(m.dir.join("f")).unwrap();
    let ino = file.metadata().unwrap().ino();
    eventually("the first is closed", || m.world.held(ino) == 1);
    // For longer than the patience of one call.
    m.world.refuse_ops.store(12, Ordering::SeqCst);
    drop(file);
    eventually("it is closed", || m.world.held(ino) == 0);
    assert_eq!(m.world.refuse_ops.load(Ordering::SeqCst), 0);
}

#[test]
fn what_was_open_is_held_again_when_there_is_room() {
    let mut m = mounted(&[]);
    fs::write(m.dir.join("f"), "x").unwrap();
    let files = [(); 2].map(|()| File::open(m.dir.join("f")).unwrap());
    let ino = files[0].metadata().unwrap().ino();
    eventually("the first is closed", || m.world.held(ino) == 2);
    m.world.refuse_ops.store(3, Ordering::SeqCst);
    m.restart();
    eventually("it is connected again", || m.live()["reconnects"] == 1);
    assert_eq!((m.world.refuse_ops.load(Ordering::SeqCst), m.world.held(ino)), (0, 2));
}

#[test]
fn a_server_that_dies_during_an_unmount_is_not_waited_for() {
    let mut m = mounted(&["--patience", "60s"]);
    fs::write(m.dir.join("f"), "accepted").unwrap();
    m.world.hang_at_detach.store(true, Ordering::SeqCst);
    let (server, bed, world) = (m.server.take().unwrap(), &m.bed, &m.world);
    let (code, _, stderr) = std::thread::scope(|scope| {
        let unmounting = scope.spawn(|| bed.try_run(&["unmount", "m", "--json"]));
        eventually("the end is asked for", || world.detaching.load(Ordering::SeqCst));
        server.kill();
        unmounting.join().unwrap()
    });
    let told = problems(&stderr);
    assert_eq!((code, told.len()), (6, 1), "{stderr}");
    // A process that still talked to the server when the unmount gave up would be TIMED_OUT.
    assert_eq!(told[0]["reason"], "UNAVAILABLE", "{stderr}");
    assert!(!m.is_mounted());
}

#[test]
fn a_mount_whose_status_socket_cannot_be_made_is_unmounted_like_any_other() {
    let world = World::new();
    let server = Server::start(&world, None);
    let bed = Bed::new(&server.endpoint());
    // Longer than the address of a socket may be.
    let runtime = bed.path(&"r".repeat(120));
    fs::create_dir(&runtime).unwrap();
    let run = |args: &[&str]| {
        let output = bed.command(args).env("XDG_RUNTIME_DIR", &runtime).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["mount", "--session", "sess_test", "m"]);
    fs::write(bed.path("m/f"), "x").unwrap();
    let left = || {
        let files = fs::read_dir(runtime.join("aether")).unwrap().flatten();
        files.map(|file| file.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(left().iter().all(|name| !name.ends_with(".sock")), "it could be made: {:?}", left());
    run(&["unmount", "m"]);
    run(&["mount", "--session", "sess_test", "m"]);
    run(&["unmount", "--all"]);
    assert!(!afs_fuse::mounts().unwrap().iter().any(|mount| mount.dir == bed.path("m")), "--all knows it");
    assert!(left().is_empty(), "{:?}", left());
}

#[test]
fn doctor_keeps_what_a_mount_said_at_its_end() {
    let m = mounted(&[]);
    let pid = m.shown()["process"]["pid"].as_u64().unwrap();
    let record = m.bed.path("../aether").join(format!("mount-{pid}.json"));
    let text = || fs::read_to_string(&record).unwrap_or_default();
    // Another program takes it away: nobody has asked yet how it ended.
    afs_fuse::unmount_path(&m.dir, false).unwrap();
    let has_ended = || text().contains("\"ended\":");
    eventually("it says how it ended", has_ended);
    // Nobody may have collected it.
    let is_gone = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
    eventually("it is gone", || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, is_gone));
    m.bed.try_run(&["doctor", "--fix"]);
    assert!(has_ended(), "whoever waits for it would be told that it was killed");
    sh(&m.bed.path(""), &format!("touch -d '1 hour ago' '{}'", record.display()));
    m.bed.try_run(&["doctor", "--fix"]);
    assert!(!record.exists(), "nobody waits for so long");
}

fn is_stale<T: std::fmt::Debug>(what: &str, answer: std::io::Result<T>) {
    let error = answer.expect_err(what);
    assert_eq!(error.raw_os_error(), Some(Reason::Stale.errno()), "{what}: {error}");
}

#[test]
fn nothing_of_a_deleted_session_is_said_to_be_on_disk() {
    let real = Real::start();
    let session = real.session(None);
    let dir = real.remote(&session);
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("f")).unwrap();
    file.write_all_at(b"written and gone", 0).unwrap();
    let top = File::open(&dir).unwrap();
    real.bed.run(&["session", "delete", "--force", &session]);
    is_stale("fsync", file.sync_all());
    is_stale("fsync of the directory", top.sync_all());
    is_stale("write", file.write_all_at(b"x", 0));
    is_stale("truncate", file.set_len(0));
    eventually("what the kernel has cached is taken back", || file.metadata().is_err());
    is_stale("attributes", file.metadata());
    is_stale("a new file", File::create(dir.join("g")));
    drop((file, top));
    let (code, _, stderr) = real.bed.try_run(&["unmount", dir.to_str().unwrap()]);
    assert!(
        code == 1 && stderr.contains("gone with its session") && stderr.contains("next:"),
        "{code} {stderr}"
    );
    assert!(
        !afs_fuse::mounts().unwrap().iter().any(|mount| mount.dir == dir),
        "it is unmounted all the same"
    );
}

#[test]
fn an_old_remote_mount_never_reaches_a_new_session_with_the_same_id() {
    let mut real = Real::start();
    let repo = repository(&real.bed.path("repo"), 3);
    let (repo, id) = (repo.to_str().unwrap(), "sess_mounted_twice");
    let create = ["session", "create", "--git", repo, "--id", id];
    real.bed.json(&create);
    let dir = real.remote(id);
    let old = File::options().read(true).write(true).open(dir.join("run.sh")).unwrap();
    old.write_all_at(b"echo HI\n", 0).unwrap();
    real.bed.run(&["session", "delete", "--force", id]);
    real.bed.json(&create);
    is_stale("the old one is still attached to what is gone", old.write_all_at(b"overwritten", 0));
    // A server that restarts knows no attachments: this one is renewed, and the inode has the same number in both.
    real.restart();
    is_stale("write", old.write_all_at(b"overwritten", 0));
    is_stale("truncate", old.set_len(0));
    is_stale("fsync", old.sync_all());
    is_stale("a name", File::create(dir.join("new")));
    assert_eq!(real.bed.run(&["fs", "cat", &format!("{id}:/run.sh")]), "echo hi\n");
    drop(old);
    let (code, _, stderr) = real.bed.try_run(&["unmount", dir.to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("another session"), "{code} {stderr}");
    // The new one is mounted like any other.
    real.bed.run(&["mount", "--session", id, dir.to_str().unwrap()]);
    fs::write(dir.join("run.sh"), "new\n").unwrap();
    real.bed.run(&["unmount", dir.to_str().unwrap()]);
    assert_eq!(real.bed.run(&["fs", "cat", &format!("{id}:/run.sh")]), "new\n");
}
