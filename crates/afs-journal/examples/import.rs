//! How fast files become durable blobs: files of a tree, read into memory first, through one `PackWriter` per thread over RocksJournal.
//!
//! `cargo run --release -p afs-journal --example import <tree> [directory] [threads]`
#![allow(clippy::print_stdout, clippy::unwrap_used)] // an example: stdout is its purpose

use afs_journal::{JournalOptions, RocksJournal};
use afs_store::{BlobStore, Journal};
use afs_types::{BlobId, limits};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(kind) if kind.is_file() && files.len() < 100_000 => files.push(entry.path()),
            _ => {}
        }
    }
}

fn put_all(store: &Arc<BlobStore>, files: &[Vec<u8>], threads: usize) -> Vec<BlobId> {
    std::thread::scope(|scope| {
        let work = |part: &[Vec<u8>]| {
            let mut writer = store.pack_writer().unwrap();
            let ids: Vec<BlobId> = part.iter().map(|bytes| writer.put(bytes).unwrap()).collect();
            writer.finish().unwrap();
            ids
        };
        let parts = files.chunks(files.len().div_ceil(threads));
        let handles: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
    })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut paths = Vec::new();
    walk(Path::new(&args[1]), &mut paths);
    let threads = args.get(3).map_or(2, |n| n.parse().unwrap());
    let small =
        |path: &PathBuf| std::fs::read(path).ok().filter(|b| (b.len() as u64) < limits::PACK_BLOB_BYTES);
    let files: Vec<Vec<u8>> = paths.iter().filter_map(small).collect();
    let bytes: usize = files.iter().map(Vec::len).sum();
    println!("{} files, {:.1} MB, {threads} threads", files.len(), bytes as f64 / 1e6);
    let dir = Path::new(args.get(2).map_or(".", |d| d)).join(format!("afs-import-{}", std::process::id()));
    let journal = RocksJournal::open(&dir.join("journal"), JournalOptions::default()).unwrap();
    let store = BlobStore::open(&dir, [7; 32], 64 << 20, Arc::clone(&journal) as _).unwrap();
    let rate = |name: &str, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{name:<34} {seconds:>6.2} s {:>9.0} files/s", files.len() as f64 / seconds);
    };
    let start = Instant::now();
    let ids = put_all(&store, &files, threads);
    rate("put, bytes synced", start);
    journal.sync().unwrap();
    rate("put, index durable", start);
    let usage = store.usage();
    println!("{usage:?}: {:.3} of the bytes", usage.pack_bytes as f64 / bytes as f64);
    let start = Instant::now();
    put_all(&store, &files, threads);
    rate("the same again (dedup)", start);
    let start = Instant::now();
    for (id, bytes) in ids.iter().zip(&files) {
        assert_eq!(store.read(id, 0, usize::MAX).unwrap(), bytes[..]);
    }
    rate("read back, verified, 1 thread", start);
    single(&store, &*journal);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// One thread without a `PackWriter`, and the data log.
fn single(store: &BlobStore, journal: &dyn Journal) {
    let page = |i: u32| [&i.to_le_bytes()[..], &[7; 4092]].concat();
    for (name, count) in [("put, shared pack, 4 KiB", 20_000), ("append to the log, 4 KiB", 50_000)] {
        let start = Instant::now();
        for i in 0..count {
            if name.starts_with("put") {
                store.put(&page(i)).unwrap();
            } else {
                store.append(&page(i)).unwrap();
            }
        }
        let each = start.elapsed().as_secs_f64() / f64::from(count) * 1e6;
        let start = Instant::now();
        journal.sync().unwrap();
        println!("{name:<34} {each:>6.1} us each; sync {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    }
}
