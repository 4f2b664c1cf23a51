//! What durability costs: raw fdatasync against submit + wait with 1, 16 and 256 waiters, and recovery of 1,000,000 records.
//!
//! `cargo run --release -p afs-journal --example latency [directory] [--no-leader] [--gather-above N] [--gather-us N]`
#![allow(clippy::print_stdout, clippy::unwrap_used)] // an example: stdout is its purpose

use afs_journal::{JournalOptions, RocksJournal};
use afs_store::{Batch, GroupOptions, Journal, Space};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Args {
    dir: PathBuf,
    group: GroupOptions,
}

fn args() -> Args {
    let mut args = Args { dir: PathBuf::from("."), group: GroupOptions::default() };
    let mut list = std::env::args().skip(1);
    while let Some(arg) = list.next() {
        let mut number = || list.next().unwrap().parse::<u64>().unwrap();
        match &*arg {
            "--no-leader" => args.group.leader = false,
            "--gather-above" => args.group.gather_above = number() as usize,
            "--gather-us" => args.group.gather = Duration::from_micros(number()),
            _ => args.dir = PathBuf::from(arg),
        }
    }
    args
}

fn print(name: &str, mut times: Vec<Duration>, wall: Duration) {
    times.sort_unstable();
    let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1e6;
    let rate = times.len() as f64 / wall.as_secs_f64();
    println!("{name:<34} p50 {:>8.0} us  p99 {:>8.0} us  {rate:>9.0} /s", at(0.5), at(0.99));
}

/// A file that fdatasync is measured on: growing like a log, or overwritten in place.
struct Raw {
    file: std::fs::File,
    grows: bool,
    at: u64,
}

impl Raw {
    fn new(path: &Path, grows: bool) -> Self {
        let file = std::fs::File::create(path).unwrap();
        if !grows {
            file.write_all_at(&vec![1; 2 << 20], 0).unwrap();
            file.sync_all().unwrap();
        }
        Self { file, grows, at: 0 }
    }
    fn once(&mut self) -> Duration {
        let start = Instant::now();
        self.file.write_all_at(&[7; 220], self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at = if self.grows { self.at + 220 } else { (self.at + 220) % (1 << 20) };
        start.elapsed()
    }
}

/// One waiter against the disk itself, in turns, so that noise hits all alike.
fn in_turns(dir: &Path, journal: &dyn Journal, next: &AtomicU64) {
    let mut grow = Raw::new(&dir.join("grow"), true);
    let mut over = Raw::new(&dir.join("over"), false);
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3000 {
        a.push(grow.once());
        b.push(over.once());
        let start = Instant::now();
        let at = journal.submit(batch(next.fetch_add(1, Ordering::Relaxed))).unwrap();
        journal.wait(at).unwrap();
        c.push(start.elapsed());
    }
    for (name, times) in
        [("raw fdatasync, append", a), ("raw fdatasync, overwrite", b), ("journal, 1 waiter", c)]
    {
        let wall = times.iter().sum();
        print(name, times, wall);
    }
}

fn batch(key: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Record, key.to_be_bytes(), vec![key as u8; 180]);
    batch
}

fn waiters(journal: &dyn Journal, next: &AtomicU64, threads: usize, each: usize) {
    let start = Instant::now();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let one = || {
            let mut times = Vec::with_capacity(each);
            for _ in 0..each {
                let one = Instant::now();
                let at = journal.submit(batch(next.fetch_add(1, Ordering::Relaxed))).unwrap();
                journal.wait(at).unwrap();
                times.push(one.elapsed());
            }
            times
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    print(&format!("journal, {threads} waiter(s)"), times, start.elapsed());
}

fn recovery(dir: &Path, group: GroupOptions) {
    let options = JournalOptions { group, ..JournalOptions::default() };
    let journal = RocksJournal::open(dir, options.clone()).unwrap();
    let start = Instant::now();
    for i in 0..1_000_000u64 {
        journal.submit(batch(i << 20)).unwrap();
    }
    journal.sync().unwrap();
    println!("1,000,000 records written, nobody waiting: {:.2} s", start.elapsed().as_secs_f64());
    // A process that died: copied away while open, so that the log is not flushed.
    let dead = dir.with_extension("dead");
    std::fs::create_dir_all(dead.join("rocks")).unwrap();
    std::fs::copy(dir.join("MARK"), dead.join("MARK")).unwrap();
    for entry in std::fs::read_dir(dir.join("rocks")).unwrap() {
        let entry = entry.unwrap();
        let _ = std::fs::copy(entry.path(), dead.join("rocks").join(entry.file_name()));
    }
    drop(journal);
    let start = Instant::now();
    let journal = RocksJournal::open(&dead, options).unwrap();
    println!("recovery after a kill: {:.2} s", start.elapsed().as_secs_f64());
    let (start, mut count) = (Instant::now(), 0u64);
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok(std::ops::ControlFlow::Continue(()))
    };
    journal.scan(Space::Record, b"", None, &mut visit).unwrap();
    println!("scan of {count}: {:.2} s", start.elapsed().as_secs_f64());
    assert!(count >= 1_000_000);
}

fn main() {
    let args = args();
    let dir = args.dir.join(format!("afs-journal-latency-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let options = JournalOptions { group: args.group.clone(), ..JournalOptions::default() };
    let journal = RocksJournal::open(&dir.join("j"), options).unwrap();
    let next = AtomicU64::new(0);
    in_turns(&dir, &*journal, &next);
    for (threads, each) in [(1, 3000), (2, 2000), (4, 1500), (16, 1000), (64, 400), (256, 200)] {
        waiters(&*journal, &next, threads, each);
    }
    drop(journal);
    recovery(&dir.join("r"), args.group);
    std::fs::remove_dir_all(&dir).unwrap();
}
