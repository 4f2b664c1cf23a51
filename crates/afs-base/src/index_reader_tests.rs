//! Indexes that git made, and what became of them.

use super::*;
use std::path::Path;
use std::process::Command;

fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Object and path of every entry.
fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, IndexFault> {
    let mut reader = IndexReader::open(bytes, bytes.len() as u64)?;
    let mut entries = Vec::new();
    while reader.advance()? {
        entries.push((crate::object::hex(reader.oid()), reader.path().to_vec()));
    }
    Ok(entries)
}

fn why(bytes: &[u8]) -> &'static str {
    match read(bytes) {
        Err(IndexFault::Unusable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The same as `git ls-files -s -z` tells it.
fn listed(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let list = git(dir, &["ls-files", "-s", "-z"]);
    let lines = list.split(|b| *b == 0).filter(|line| !line.is_empty());
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|b| *b == b'\t').unwrap();
        let oid = line[..tab].split(|b| *b == b' ').nth(1).unwrap();
        (String::from_utf8(oid.to_vec()).unwrap(), line[tab + 1..].to_vec())
    };
    lines.map(entry).collect()
}

/// Names of every length modulo eight, long ones, a merge that waits, a submodule, and a file that is only meant to be added.
fn repository(dir: &Path) {
    git(dir, &["init", "-q", "-b", "main"]);
    for len in 1..20 {
        std::fs::write(dir.join("n".repeat(len)), len.to_string()).unwrap();
    }
    let deep = dir.join("d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&deep).unwrap();
    for n in 0..30 {
        std::fs::write(deep.join(format!("{n}")), "x").unwrap();
    }
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", "1"]);
    let head = String::from_utf8(git(dir, &["rev-parse", "HEAD"])).unwrap();
    git(dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", head.trim())]);
    git(dir, &["commit", "-qm", "2"]);
    let head = String::from_utf8(git(dir, &["rev-parse", "HEAD"])).unwrap();
    for (branch, text) in [("side", "side"), ("main", "main")] {
        git(dir, &["checkout", "-q", "-B", branch, head.trim()]);
        std::fs::write(dir.join("n"), text).unwrap();
        git(dir, &["commit", "-qm", branch, "n"]);
    }
    let merge = ["-c", "user.name=T", "-c", "user.email=t@example.com", "merge", "-q", "side"];
    assert!(!Command::new("git").current_dir(dir).args(merge).output().unwrap().status.success());
    std::fs::write(dir.join("later"), "x").unwrap();
}

#[test]
fn every_version_is_read_as_git_lists_it() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    for (version, meant) in [("2", false), ("4", false), ("3", true), ("4", true)] {
        if meant {
            git(dir.path(), &["add", "-N", "later"]);
        }
        git(dir.path(), &["update-index", "--index-version", version]);
        let bytes = std::fs::read(dir.path().join(".git/index")).unwrap();
        assert_eq!(bytes[7].to_string(), version, "the test is of this version");
        let entries = read(&bytes).unwrap();
        assert_eq!(entries, listed(dir.path()), "version {version}");
        // Two or three stages of what waits to be merged.
        assert!(entries.iter().filter(|(_, path)| path == b"n").count() > 1);
        assert_eq!(entries.iter().any(|(_, path)| path == b"later"), meant);
    }
}

#[test]
fn what_is_cut_or_changed_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    for version in ["2", "4"] {
        git(dir.path(), &["update-index", "--index-version", version]);
        let bytes = std::fs::read(dir.path().join(".git/index")).unwrap();
        for len in (0..bytes.len()).step_by(7) {
            assert!(read(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
        for at in (0..bytes.len()).step_by(11) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at} of version {version}");
        }
        // Without a checksum, as `index.skipHash` leaves it.
        let mut unset = bytes.clone();
        let len = unset.len();
        unset[len - 20..].fill(0);
        assert_eq!(read(&unset).unwrap(), read(&bytes).unwrap());
    }
}

#[test]
fn an_index_that_keeps_entries_elsewhere_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    git(dir.path(), &["reset", "-q", "--hard"]);
    let index = dir.path().join(".git/index");
    git(dir.path(), &["update-index", "--split-index"]);
    // Entries that git may not trust the times of are in it without their names, which is seen before the extension is.
    let split = why(&std::fs::read(&index).unwrap());
    assert!(split.contains("split") || split.contains("not as git writes it"), "{split}");
    git(dir.path(), &["update-index", "--no-split-index"]);
    assert_eq!(read(&std::fs::read(&index).unwrap()).unwrap(), listed(dir.path()));
    git(dir.path(), &["sparse-checkout", "set", "--cone", "--sparse-index", "nothing"]);
    assert!(why(&std::fs::read(&index).unwrap()).contains("sparse"));
}

#[test]
fn lengths_are_bounded() {
    let size = limits::MAX_GIT_INDEX_BYTES + 1;
    let fault = IndexReader::open(std::io::empty(), size).err().unwrap();
    assert!(matches!(fault, IndexFault::Unusable(why) if why.contains("git_index_bytes")));
    // A path one byte longer than any in a session.
    let entry = |len: usize| {
        let mut bytes = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        let mut head = [0; ENTRY_BYTES];
        head[24..28].copy_from_slice(&0o100_644u32.to_be_bytes());
        head[60..].copy_from_slice(&0xfffu16.to_be_bytes());
        bytes.extend(head);
        bytes.extend(vec![b'a'; len]);
        bytes.extend(vec![0; 8 - (ENTRY_BYTES + len) % 8]);
        bytes.extend([0; 20]);
        bytes
    };
    assert_eq!(read(&entry(limits::MAX_PATH_BYTES)).unwrap().len(), 1);
    assert!(why(&entry(limits::MAX_PATH_BYTES + 1)).contains("path_bytes"));
}
