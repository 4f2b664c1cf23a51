//! One RocksDB as a [`GroupStore`]: opening with every check, one synced write per group, reads.

use crate::JournalOptions;
use crate::errors::{corrupt, rocks};
use crate::mark::{Head, MarkFile};
use afs_store::{Change, DiskReserve, Group, GroupStore, Position, Space, Visit};
use afs_types::{Error, Reason, Result};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Key of the head in `Space::Meta`.
const HEAD: &[u8] = b"head";
/// Shortest time between two syncs of the mark.
const MARK_SYNC: Duration = Duration::from_millis(100);

pub(crate) struct RocksStore {
    db: DB,
    dir: PathBuf,
    sync: bool,
    /// Only the one who commits takes it.
    chain: Mutex<Chain>,
    mark_dirty: AtomicBool,
    mark_sync: Mutex<MarkSync>,
    reserve: DiskReserve,
    /// Held until the last field is dropped.
    _lock: File,
}

struct Chain {
    head: Head,
    mark: MarkFile,
}

struct MarkSync {
    file: File,
    last: Instant,
}

impl RocksStore {
    /// Opens or makes the database; returns the position it stands at, in a new epoch.
    pub(crate) fn open(dir: &Path, options: &JournalOptions) -> Result<(Self, Position)> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format_args!("create {}", dir.display()), e))?;
        let lock = take_lock(dir)?;
        let (mark, marked) = open_mark(dir)?;
        let db = open_with_ballast(dir, options, &marked)?;
        let head = read_head(dir, &db)?;
        compare(dir, &head, &marked)?;
        let mark_sync = MarkSync { file: mark.handle()?, last: Instant::now() };
        let store = Self {
            db,
            dir: dir.to_path_buf(),
            sync: options.sync,
            chain: Mutex::new(Chain { head, mark }),
            mark_dirty: AtomicBool::new(false),
            mark_sync: Mutex::new(mark_sync),
            reserve: DiskReserve::new(dir, options.reserve_bytes),
            _lock: lock,
        };
        let last = Position { epoch: head.epoch + 1, idx: head.idx };
        // The epoch is durable, here and in the mark, before anybody can use it; so are the names of all directories.
        store.write(WriteBatch::default(), last)?;
        store.sync_mark()?;
        if head.epoch == 0 {
            sync_names(dir)?;
        }
        Ok((store, last))
    }

    fn write(&self, mut batch: WriteBatch, last: Position) -> Result<()> {
        let mut chain = self.chain.lock();
        let head = chain.head.next(last.epoch, last.idx, batch.data());
        with_key(Space::Meta, HEAD, |key| batch.put(key, head.encode()));
        let mut how = WriteOptions::default();
        how.set_sync(self.sync);
        self.db.write_opt(batch, &how).map_err(|e| rocks("write to", &self.dir, e))?;
        chain.mark.write(&head)?;
        chain.head = head;
        self.mark_dirty.store(true, Ordering::Release);
        Ok(())
    }

    fn sync_mark(&self) -> Result<()> {
        let mut sync = self.mark_sync.lock();
        if self.mark_dirty.swap(false, Ordering::AcqRel) {
            sync.file.sync_data().map_err(|e| Error::io("sync MARK", e))?;
        }
        sync.last = Instant::now();
        Ok(())
    }
}

impl GroupStore for RocksStore {
    fn commit(&self, group: &Group<'_>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for change in group.changes() {
            match change {
                Change::Put { space, key, value } => with_key(space, key, |key| batch.put(key, value)),
                Change::Delete { space, key } => with_key(space, key, |key| batch.delete(key)),
                // RocksDB refuses inverted ranges; ours are empty.
                Change::DeleteRange { space, from, to } if from < to => {
                    with_key(space, from, |from| with_key(space, to, |to| batch.delete_range(from, to)));
                }
                Change::DeleteRange { .. } => {}
            }
        }
        self.write(batch, group.last)
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        with_key(space, key, |key| self.db.get(key)).map_err(|e| rocks("read from", &self.dir, e))
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let mut how = ReadOptions::default();
        how.set_iterate_upper_bound(match to {
            Some(to) => with_key(space, to, <[u8]>::to_vec),
            None => vec![space as u8 + 1],
        });
        let mut found = self.db.raw_iterator_opt(how);
        with_key(space, from, |key| found.seek(key));
        while let Some((key, value)) = found.item() {
            if visit(&key[1..], value)?.is_break() {
                return Ok(());
            }
            found.next();
        }
        found.status().map_err(|e| rocks("scan", &self.dir, e))
    }

    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut how = ReadOptions::default();
        how.set_iterate_lower_bound(with_key(space, from, <[u8]>::to_vec));
        how.set_iterate_upper_bound(with_key(space, to.max(from), <[u8]>::to_vec));
        let mut found = self.db.raw_iterator_opt(how);
        found.seek_to_last();
        let key = found.key().map(|key| key[1..].to_vec());
        found.status().map_err(|e| rocks("scan", &self.dir, e)).map(|()| key)
    }

    fn admit(&self, bytes: u64) -> Result<()> {
        self.reserve.admit(bytes)
    }

    fn idle(&self) -> Result<()> {
        let due =
            self.mark_dirty.load(Ordering::Acquire) && self.mark_sync.lock().last.elapsed() >= MARK_SYNC;
        if due { self.sync_mark() } else { Ok(()) }
    }

    fn close(&self) -> Result<()> {
        self.sync_mark()?;
        // Without this a flush or compaction that runs delays the end of the process.
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

/// Calls `work` with the full key; short ones are built on the stack.
fn with_key<T>(space: Space, key: &[u8], work: impl FnOnce(&[u8]) -> T) -> T {
    let mut short = [0; 64];
    match short.get_mut(..=key.len()) {
        Some(full) => {
            full[0] = space as u8;
            full[1..].copy_from_slice(key);
            work(full)
        }
        None => work(&[&[space as u8], key].concat()),
    }
}

fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| Error::io(format_args!("open {}", path.display()), e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim();
            return Err(Error::new(
                Reason::InUse,
                format!("another server (process {holder}) uses this directory: {}", dir.display()),
            )
            .with("dir", dir.display().to_string())
            .next("stop the other server first, or use another directory"));
        }
        Err(TryLockError::Error(e)) => return Err(Error::io(format_args!("lock {}", path.display()), e)),
    }
    // For people only: nothing depends on it.
    let _ = lock.set_len(0);
    let _ = writeln!(lock, "{}", std::process::id());
    Ok(lock)
}

/// Makes the names of a new journal durable: `rocks` in `dir`, and `dir` in its parent.
fn sync_names(dir: &Path) -> Result<()> {
    let parent = std::path::absolute(dir).ok().and_then(|dir| dir.parent().map(Path::to_path_buf));
    for dir in [Some(dir.to_path_buf()), parent].into_iter().flatten() {
        let synced = File::open(&dir).and_then(|d| d.sync_all());
        synced.map_err(|e| Error::io(format_args!("sync directory {}", dir.display()), e))?;
    }
    Ok(())
}

/// The mark; made if this is a new journal.
fn open_mark(dir: &Path) -> Result<(MarkFile, Head)> {
    let has_rocks = dir.join("rocks").join("CURRENT").exists();
    match MarkFile::open(dir)? {
        Some((_, head)) if head.epoch > 0 && !has_rocks => {
            Err(corrupt(dir, format!("`rocks` is missing, and MARK says there were {} batches", head.idx)))
        }
        Some(found) => Ok(found),
        None if has_rocks => {
            Err(corrupt(dir, "MARK is missing, so nobody knows whether `rocks` is complete"))
        }
        None => Ok((MarkFile::create(dir)?, Head::default())),
    }
}

fn read_head(dir: &Path, db: &DB) -> Result<Head> {
    let value = with_key(Space::Meta, HEAD, |key| db.get(key)).map_err(|e| rocks("read from", dir, e))?;
    match value {
        None => Ok(Head::default()),
        Some(bytes) => Head::decode(&bytes).ok_or_else(|| corrupt(dir, "its head cannot be read")),
    }
}

/// Refuses a database that lacks what was acknowledged.
fn compare(dir: &Path, head: &Head, marked: &Head) -> Result<()> {
    if head.place() < marked.place() {
        return Err(corrupt(
            dir,
            format!(
                "it ends at batch {} of epoch {}, and batch {} of epoch {} was acknowledged: its log was cut, deleted or replaced",
                head.idx, head.epoch, marked.idx, marked.epoch
            ),
        )
        .with("head", head.idx.to_string())
        .with("mark", marked.idx.to_string()));
    }
    if head.place() == marked.place() && head.hash != marked.hash {
        return Err(corrupt(
            dir,
            format!("batch {} has another history than the one that was acknowledged", head.idx),
        ));
    }
    Ok(())
}

/// Opens the database. On a full disk recovery cannot run, so the ballast is given up first, and made again when there is space.
fn open_with_ballast(dir: &Path, options: &JournalOptions, marked: &Head) -> Result<DB> {
    let ballast = dir.join("BALLAST");
    let open = || open_db(dir, options, marked);
    let db = match open() {
        Err(error) if error.reason == Reason::NoSpace && ballast.exists() => {
            tracing::warn!(?error, "the disk is full: giving up the ballast to recover");
            let removed = std::fs::remove_file(&ballast);
            removed.map_err(|e| Error::io(format_args!("remove {}", ballast.display()), e))?;
            // A journaling file system gives the blocks to others when the removal is on disk, not before.
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| Error::io(format_args!("sync {}", dir.display()), e))?;
            open()?
        }
        other => other?,
    };
    if options.ballast_bytes > 0 && !ballast.exists() {
        make_ballast(&ballast, options.ballast_bytes);
    }
    Ok(db)
}

/// Opens the database. A power cut may leave later sectors of the group that was being written without earlier ones: RocksDB then finds a wrong
/// checksum rather than a short record, and refuses. One group is written at a time, each synced before the next, so that damage is in the
/// last one or it is no torn write. Which of the two is looked up without changing anything; only then is the log read up to the damage.
fn open_db(dir: &Path, options: &JournalOptions, marked: &Head) -> Result<DB> {
    let rocks_dir = dir.join("rocks");
    let failed = |e| rocks("open", dir, e);
    let refused = match DB::open(&rocks_options(options), &rocks_dir).map_err(failed) {
        Err(error) if error.reason == Reason::Corrupt => error,
        other => return other,
    };
    let mut to_the_damage = rocks_options(options);
    to_the_damage.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    let is_torn_tail = || {
        let db = DB::open_for_read_only(&to_the_damage, &rocks_dir, false).map_err(failed)?;
        let head = read_head(dir, &db)?;
        compare(dir, &head, marked)?;
        Ok::<_, Error>(heads_after(&rocks_dir, &head)?.len() <= 1)
    };
    match is_torn_tail() {
        Ok(true) => {}
        Ok(false) => return Err(refused),
        Err(error) => {
            tracing::debug!(?error, "the log up to its damage");
            return Err(refused);
        }
    }
    tracing::warn!(%refused, "the damage is in the last group, which nobody was told of: a torn write");
    DB::open(&to_the_damage, &rocks_dir).map_err(failed)
}

/// Places of groups behind `head` whose heads can be seen in the bytes of the logs, whatever became of their checksums.
fn heads_after(rocks_dir: &Path, head: &Head) -> Result<BTreeSet<(u32, u64)>> {
    let failed = |e| Error::io(format_args!("read the logs in {}", rocks_dir.display()), e);
    // As a write batch has it: put, a key of so many bytes, the key, then the value.
    let put = with_key(Space::Meta, HEAD, |key| [&[1, key.len() as u8], key].concat());
    let mut places = BTreeSet::new();
    for file in std::fs::read_dir(rocks_dir).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        for at in ends_of(&bytes, &put) {
            let value = bytes[at..].split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
            if let Some(found) = value.and_then(Head::decode).filter(|found| found.place() > head.place()) {
                places.insert(found.place());
            }
        }
    }
    Ok(places)
}

/// Where `put` ends in `bytes`, each time.
fn ends_of<'a>(bytes: &'a [u8], put: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(put.len())
        .enumerate()
        .filter(move |(_, window)| *window == put)
        .map(|(at, _)| at + put.len())
}

/// Best effort: without space for it there is none, and the next start tries again.
fn make_ballast(path: &Path, bytes: u64) {
    let plenty = DiskReserve::new(path.parent().unwrap_or(path), 0).admit(bytes.saturating_mul(4)).is_ok();
    if !plenty {
        return;
    }
    let made = File::create(path).and_then(|file| {
        let mode = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, mode, 0, bytes).map_err(std::io::Error::from)
    });
    if let Err(error) = made {
        tracing::debug!(?error, "no ballast");
        let _ = std::fs::remove_file(path);
    }
}

fn rocks_options(options: &JournalOptions) -> Options {
    let mut rocks = Options::default();
    rocks.create_if_missing(true);
    // What survives: everything up to a torn tail. The default mode drops acknowledged writes behind a flipped bit and opens.
    rocks.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    rocks.set_paranoid_checks(true);
    rocks.set_track_and_verify_wals_in_manifest(true);
    rocks.set_write_buffer_size(options.write_buffer_bytes);
    rocks.set_max_write_buffer_number(3);
    rocks.set_max_total_wal_size(options.wal_bytes);
    rocks.set_max_open_files(512);
    rocks.set_max_background_jobs(2);
    rocks.set_level_compaction_dynamic_level_bytes(true);
    // Young levels are rewritten soon; the lower ones hold nearly everything.
    rocks.set_compression_type(DBCompressionType::None);
    rocks.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Zstd,
        DBCompressionType::Zstd,
        DBCompressionType::Zstd,
        DBCompressionType::Zstd,
        DBCompressionType::Zstd,
    ]);
    rocks.set_bottommost_compression_type(DBCompressionType::Zstd);
    rocks.set_log_level(LogLevel::Warn);
    rocks.set_keep_log_file_num(4);
    rocks.set_max_log_file_size(4 << 20);
    rocks.set_max_manifest_file_size(16 << 20);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.cache_bytes));
    // Asking for a blob that is not there is the common case of an import.
    table.set_bloom_filter(10.0, false);
    // Filters and indexes are in the cache, so that the cache bounds all memory.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    rocks.set_block_based_table_factory(&table);
    rocks
}
