//! Power cuts under the engine: nothing that was acknowledged as durable is lost, the rest is a prefix, all or nothing.

use afs_crash::{Ledger, Node, NodeOptions, Workload};
use afs_powercut::{PowerCut, Recording, States};
use parking_lot::Mutex;
use std::path::Path;
use std::process::Command;

const DISK_MB: u64 = 192;
const STEPS: usize = 250;
const THREADS: u64 = 2;

/// A repository of a few files, small and large (a raw file of its own).
fn base(dir: &Path) {
    std::fs::create_dir_all(dir.join("src")).unwrap();
    for number in 0..6 {
        std::fs::write(dir.join(format!("file-{number}")), format!("content {number}\n").repeat(400))
            .unwrap();
    }
    std::fs::write(dir.join("src/large"), vec![b'l'; 300 << 10]).unwrap();
    let author = ["-c", "user.name=T", "-c", "user.email=t@example.invalid"];
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "base"]] {
        let git = Command::new("git").current_dir(dir).args(author).args(arguments).output().unwrap();
        assert!(git.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&git.stderr));
    }
}

/// A directory to import while everything else goes on.
fn another_base(dir: &Path) {
    std::fs::create_dir_all(dir.join("more")).unwrap();
    for number in 0..20 {
        std::fs::write(dir.join(format!("more/{number}")), format!("{number}\n").repeat(number * 50))
            .unwrap();
    }
}

/// Works on a logging disk and returns what was acknowledged and everything that was written.
fn record(scratch: &Path, seed: u64, options: NodeOptions) -> (Ledger, Recording) {
    let from = scratch.join("base");
    base(&from);
    let mut cut = PowerCut::start(scratch, DISK_MB).unwrap();
    let home = cut.mount_path().join("node");
    std::fs::create_dir(&home).unwrap();
    std::fs::File::open(cut.mount_path()).unwrap().sync_all().unwrap();
    let ledger = Mutex::new(Ledger::default());
    let node = Node::open(&home, options).unwrap();
    let source = node.import_git(&from).unwrap();
    let mark = |number| cut.mark(number);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (node, ledger, mark, source) = (&node, &ledger, &mark, &source);
            let imports = scratch.join(format!("imports-{thread}"));
            another_base(&imports);
            scope.spawn(move || {
                let session = node.session(source).unwrap();
                let work = Workload::new(node, ledger, mark, session, seed * 100 + thread).unwrap();
                work.importing(imports).run(STEPS).unwrap();
            });
        }
    });
    cut.no_cuts_after_this();
    node.close().unwrap();
    let recording = cut.finish().unwrap();
    println!("seed {seed}: {:?} writes and flushes", recording.counts());
    (ledger.into_inner(), recording)
}

/// What is wrong after each of the cuts.
fn findings(ledger: &Ledger, states: States<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let (mut cuts, mut acknowledged) = (0, 0);
    for state in states {
        let state = state.unwrap();
        let told = state.describe();
        let mounted = match state.mount() {
            Ok(mounted) => mounted,
            // On an honest disk ext4 always comes back; on a lying one it may not.
            Err(error) => {
                found.push(format!("{told}: {error}"));
                continue;
            }
        };
        let marks = mounted.state().marks().to_vec();
        (cuts, acknowledged) = (cuts + 1, acknowledged + marks.len());
        let home = mounted.path().join("node");
        let checked = Node::open(&home, NodeOptions::default()).and_then(|node| {
            let findings = ledger.check(&node, &marks)?;
            node.close()?;
            Ok(findings)
        });
        let wrong = match checked {
            Ok(wrong) => wrong,
            Err(error) => vec![format!("does not open: {error}")],
        };
        found.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", mounted.state().describe())));
    }
    // Cuts at which nothing had been acknowledged would check nothing.
    println!("{cuts} cuts, {} acknowledgements before one on average", acknowledged / cuts.max(1));
    assert!(cuts == 0 || acknowledged / cuts >= STEPS / 10, "the cuts say too little");
    found
}

#[test]
fn a_hundred_power_cuts_lose_nothing_acknowledged() {
    for seed in 1..=2 {
        let scratch = tempfile::tempdir().unwrap();
        let (ledger, recording) = record(scratch.path(), seed, NodeOptions::default());
        let found = findings(&ledger, recording.states(seed, 50).unwrap());
        assert!(found.is_empty(), "seed {seed}, {} findings:\n{}", found.len(), found.join("\n"));
        // Negative control: the same recording on a disk that ignores flushes.
        let found = findings(&ledger, recording.states_of_a_lying_disk(seed, 10).unwrap());
        assert!(!found.is_empty(), "a disk that ignores flushes must be caught");
    }
}

#[test]
fn with_sync_switched_off_the_power_cut_suite_fails() {
    let scratch = tempfile::tempdir().unwrap();
    let (ledger, recording) = record(scratch.path(), 3, NodeOptions { sync: false });
    let found = findings(&ledger, recording.states(3, 10).unwrap());
    assert!(!found.is_empty(), "a journal that does not sync must be caught within ten cuts");
}
