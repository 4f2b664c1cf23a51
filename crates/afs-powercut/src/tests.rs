//! The simulator itself: an honest program survives every cut, one without fsync does not, and a lying disk catches both.

use super::*;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

/// Appends numbered lines to a file, each acknowledged (marked) after an fsync, or without one.
fn append_lines(cut: &PowerCut, lines: u64, is_synced: bool) {
    let mut file = OpenOptions::new().create(true).append(true).open(cut.mount_path().join("lines")).unwrap();
    File::open(cut.mount_path()).unwrap().sync_all().unwrap();
    for number in 1..=lines {
        file.write_all(format!("{number:>7}\n").as_bytes()).unwrap();
        if is_synced {
            file.sync_data().unwrap();
        }
        cut.mark(number);
    }
}

/// How many of the acknowledged lines a state lacks.
fn lost_lines(mounted: &Mounted) -> u64 {
    let marked = mounted.marked().unwrap_or(0);
    let text = fs::read(mounted.path().join("lines")).unwrap_or_default();
    let whole = text
        .chunks(8)
        .zip(1..)
        .take_while(|(line, number)| *line == format!("{number:>7}\n").as_bytes())
        .count();
    marked.saturating_sub(whole as u64)
}

fn losses(states: States<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for state in states {
        let mounted = state.unwrap().mount().unwrap();
        let lost = lost_lines(&mounted);
        if lost > 0 {
            found.push(format!("{lost} lines lost, {}", mounted.state().describe()));
        }
    }
    found
}

fn mounts_below(dir: &Path) -> usize {
    let dir = fs::canonicalize(dir).unwrap();
    fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter(|line| line.contains(dir.to_str().unwrap()))
        .count()
}

#[test]
fn fsynced_lines_survive_every_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::start(dir.path(), 16).unwrap();
    append_lines(&cut, 60, true);
    let recording = cut.finish().unwrap();
    assert!(recording.counts().1 >= 60, "every fsync must reach the disk: {:?}", recording.counts());
    assert_eq!(losses(recording.states(1, 40).unwrap()), Vec::<String>::new());
    // Negative control: the same program on a disk that ignores flushes.
    assert!(!losses(recording.states_of_a_lying_disk(1, 12).unwrap()).is_empty());
}

#[test]
fn unsynced_lines_are_lost_within_a_few_power_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::start(dir.path(), 16).unwrap();
    append_lines(&cut, 60, false);
    let recording = cut.finish().unwrap();
    assert!(!losses(recording.states(2, 8).unwrap()).is_empty(), "a program without fsync must be caught");
}

#[test]
fn the_same_seed_gives_the_same_states() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::start(dir.path(), 16).unwrap();
    append_lines(&cut, 10, true);
    let recording = cut.finish().unwrap();
    let describe = |seed| -> Vec<(String, Vec<u8>)> {
        let states = recording.states(seed, 6).unwrap().map(Result::unwrap);
        states.map(|state| (state.describe(), fs::read(state.image()).unwrap())).collect()
    };
    assert!(describe(3) == describe(3));
    assert!(describe(3) != describe(4));
}

#[test]
fn nothing_stays_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let cut = PowerCut::start(dir.path(), 16).unwrap();
    append_lines(&cut, 3, true);
    assert_eq!(mounts_below(dir.path()), 2);
    let recording = cut.finish().unwrap();
    let mounted = recording.states(5, 1).unwrap().next().unwrap().unwrap().mount().unwrap();
    assert_eq!(mounts_below(dir.path()), 1);
    drop(mounted);
    drop(recording);
    assert_eq!(mounts_below(dir.path()), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Dropped in the middle, as by a panic.
    drop(PowerCut::start(dir.path(), 16).unwrap());
    assert_eq!(mounts_below(dir.path()), 0);
}

/// Not a test of its own: what `what_a_killed_process_left_is_swept` starts, and what then dies.
#[test]
fn child_that_dies_while_mounted() {
    let Some(dir) = std::env::var_os("AFS_POWERCUT_CHILD") else { return };
    let _cut = PowerCut::start(Path::new(&dir), 16).unwrap();
    std::process::abort();
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::child_that_dies_while_mounted"])
        .env("AFS_POWERCUT_CHILD", dir.path())
        .output()
        .unwrap();
    assert!(!child.status.success(), "the child must have died");
    assert!(mounts_below(dir.path()) > 0, "it must have left something, or this shows nothing");
    let other = tempfile::tempdir().unwrap();
    drop(PowerCut::start(other.path(), 16).unwrap());
    assert_eq!(mounts_below(dir.path()), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
