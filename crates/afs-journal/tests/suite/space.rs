//! A full disk stops writers, not readers, and heals by itself. Runs in a tmpfs of 48 MiB in a mount namespace of its own;
//! where the machine allows no namespaces, it says so and tests nothing.

use crate::support::{keys, options, put};
use afs_journal::{JournalOptions, RocksJournal};
use afs_store::{Batch, BlobOptions, BlobStore, GroupOptions, Journal, Space};
use afs_types::{Error, Reason};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DIR: &str = "AFS_TEST_SMALL_DISK";

/// Runs a function of this file again, alone, with a small disk.
fn on_a_small_disk(test: &str, body: fn(&Path)) {
    if let Ok(dir) = std::env::var(DIR) {
        return body(Path::new(&dir));
    }
    if !Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|s| s.success()) {
        return eprintln!("skipped: no mount namespaces here");
    }
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=48m none "$0" && exec "$@""#;
    let status = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("space::{test}"), "--nocapture"])
        .env(DIR, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Takes all space but `leave` bytes.
fn fill(path: &Path, leave: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(leave)).unwrap();
}

fn journal(dir: &Path) -> Result<Arc<RocksJournal>, Error> {
    let on_fatal = Arc::new(|_: &Error| ());
    let group = GroupOptions { on_fatal, ..GroupOptions::default() };
    RocksJournal::open(&dir.join("journal"), JournalOptions { ballast_bytes: 8 << 20, group, ..options() })
}

#[test]
fn writers_stop_before_the_end_and_go_on_by_themselves() {
    on_a_small_disk("writers_stop_before_the_end_and_go_on_by_themselves", |dir| {
        let journal = journal(dir).unwrap();
        let blob_options = BlobOptions { cache_bytes: 0, ..BlobOptions::new(0) };
        let blobs = BlobStore::open_with(dir, [1; 32], blob_options, Arc::clone(&journal) as _).unwrap();
        let first = blobs.put(b"first").unwrap();
        journal.wait(put(&*journal, 0, &first.0)).unwrap();
        // Appends until the store says stop; each refusal is NO_SPACE, on each way in.
        let refused = loop {
            if let Err(error) = blobs.append(&[7; 64 << 10]) {
                break error;
            }
        };
        assert_eq!(refused.reason, Reason::NoSpace, "{refused:?}");
        assert_eq!(blobs.put(&[3; 200_000]).unwrap_err().reason, Reason::NoSpace);
        assert_eq!(blobs.put(&vec![3; 600_000]).unwrap_err().reason, Reason::NoSpace);
        let mut writer = blobs.pack_writer().unwrap();
        assert_eq!(writer.put(&[3; 200_000]).unwrap_err().reason, Reason::NoSpace);
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.join("temp")).unwrap().count(), 0, "a refused blob left its file");
        // What was there is there, and what frees space is admitted, durably.
        assert_eq!(blobs.read(&first, 0, 10).unwrap(), &b"first"[..]);
        let mut big = Batch::new();
        big.put(Space::Record, 1u64.to_be_bytes(), vec![1; 3 << 20]);
        assert_eq!(journal.submit(big).unwrap_err().reason, Reason::NoSpace);
        let mut delete = Batch::new().freeing();
        delete.delete(Space::Record, 77u64.to_be_bytes());
        journal.wait(journal.submit(delete).unwrap()).unwrap();
        // Space comes back: so do writers.
        for entry in std::fs::read_dir(dir.join("log")).unwrap() {
            std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap().set_len(0).unwrap();
        }
        let id = blobs.put(&[3; 200_000]).unwrap();
        journal.wait(put(&*journal, 1, &id.0)).unwrap();
        journal.close().unwrap();
    });
}

#[test]
fn a_disk_without_one_free_byte_is_survived() {
    on_a_small_disk("a_disk_without_one_free_byte_is_survived", |dir| {
        let acknowledged = AtomicU64::new(0);
        let running = journal(dir).unwrap();
        // Somebody else takes the disk; batches that claim to free space go on until the log itself cannot be written.
        let write = |i: u64| {
            let mut batch = Batch::new().freeing();
            batch.put(Space::Record, i.to_be_bytes(), vec![i as u8; 20_000]);
            running.submit(batch).and_then(|at| running.wait(at))
        };
        for i in 0..200 {
            write(i).unwrap();
            acknowledged.store(i, Ordering::Relaxed);
        }
        fill(&dir.join("filler"), 300_000);
        let failed = (200..2000).find_map(|i| match write(i) {
            Ok(()) => {
                acknowledged.store(i, Ordering::Relaxed);
                None
            }
            Err(error) => Some(error),
        });
        let failed = failed.expect("the disk is full and writing goes on");
        assert!(matches!(failed.reason, Reason::NoSpace | Reason::Io), "{failed:?}");
        assert!(running.submit(Batch::new().freeing()).is_err(), "a journal that failed goes on");
        drop(running);
        fill(&dir.join("more"), 0);
        // The process would have aborted. The next one recovers, with the ballast.
        let recovered = journal(dir).unwrap();
        let found = keys(&*recovered);
        assert!(found.iter().copied().eq(0..found.len() as u64), "a hole");
        assert!(found.len() as u64 > acknowledged.load(Ordering::Relaxed), "an acknowledged batch is lost");
        assert!(!dir.join("journal/BALLAST").exists());
        let mut batch = Batch::new();
        batch.put(Space::Record, b"x", vec![0; 1 << 20]);
        assert!(
            recovered.submit(batch).is_ok_and(|at| recovered.wait(at).is_ok()) || recovered.sync().is_ok()
        );
        recovered.close().unwrap();
        drop(recovered);
        // Space is back: so is the ballast, at the next start.
        std::fs::remove_file(dir.join("filler")).unwrap();
        std::fs::remove_file(dir.join("more")).unwrap();
        journal(dir).unwrap();
        assert!(dir.join("journal/BALLAST").exists());
    });
}
