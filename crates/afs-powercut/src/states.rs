//! From a log and a seed to the images that a power cut could have left.
//!
//! Guarantees: deterministic; a state never lacks a flushed write and never holds one from after its cut. Half of the cuts stand right before a
//! flush, where most is at stake, the others anywhere. Deliberately absent: a model of one particular disk; whatever no flush forbids may happen.

use crate::disk::{Event, Log};
use crate::mounts::{self, Scratch};
use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk writes in one piece.
const SECTOR: usize = 512;

/// What became of the writes that were not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// None of them arrived.
    Lost,
    /// The first of them arrived.
    Prefix,
    /// Any of them arrived, in whatever order.
    Subset,
    /// Any sectors of 512 bytes of any of them arrived.
    Torn,
}

impl Fate {
    const ALL: [Fate; 4] = [Fate::Subset, Fate::Torn, Fate::Prefix, Fate::Lost];
}

/// A finished recording, from which states are made.
pub struct Recording {
    log: Arc<Mutex<Log>>,
    scratch: Scratch,
    armed_at: usize,
    end: usize,
}

impl Recording {
    pub(crate) fn new(log: Arc<Mutex<Log>>, scratch: Scratch, armed_at: usize, end: usize) -> Self {
        Self { log, scratch, armed_at, end }
    }

    /// Writes and flushes recorded while the test ran.
    pub fn counts(&self) -> (usize, usize) {
        let log = self.log.lock();
        let events = &log.events()[self.armed_at..self.end];
        let writes = events.iter().filter(|event| matches!(event, Event::Write { .. })).count();
        (writes, events.iter().filter(|event| matches!(event, Event::Flush)).count())
    }

    /// `count` states at cuts chosen by `seed`, in the order of their cuts, the four fates in turn.
    ///
    /// # Errors
    /// When the images cannot be written.
    pub fn states(&self, seed: u64, count: usize) -> io::Result<States<'_>> {
        States::new(self, seed, count, true)
    }

    /// The same cuts on a disk that ignores every flush: the negative control. A suite that still passes shows nothing.
    ///
    /// # Errors
    /// When the images cannot be written.
    pub fn states_of_a_lying_disk(&self, seed: u64, count: usize) -> io::Result<States<'_>> {
        States::new(self, seed, count, false)
    }
}

/// Small, seeded and the same for ever (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The states of a recording; each is made when it is asked for.
pub struct States<'a> {
    recording: &'a Recording,
    cuts: std::vec::IntoIter<usize>,
    chance: Chance,
    number: usize,
    /// The disk up to the last flush before the current cut; writes up to `applied` are in it.
    durable: PathBuf,
    applied: usize,
    is_honest: bool,
}

impl<'a> States<'a> {
    fn new(recording: &'a Recording, seed: u64, count: usize, is_honest: bool) -> io::Result<Self> {
        let mut chance = Chance(seed);
        let log = recording.log.lock();
        let window = recording.armed_at..recording.end;
        let flushes: Vec<usize> =
            window.clone().filter(|index| matches!(log.events()[*index], Event::Flush)).collect();
        let mut cuts: Vec<usize> = (0..count)
            .map(|number| match flushes.get(chance.below(flushes.len())) {
                Some(flush) if number % 2 == 0 => *flush,
                _ => window.start + chance.below(window.len() + 1),
            })
            .collect();
        cuts.sort_unstable();
        let durable = recording.scratch.path(&format!("durable-{seed}-{is_honest}.img"));
        if durable.exists() {
            fs::remove_file(&durable)?;
        }
        copy_sparse(&recording.scratch.path("base.img"), &durable)?;
        Ok(Self { recording, cuts: cuts.into_iter(), chance, number: 0, durable, applied: 0, is_honest })
    }

    fn make(&mut self, cut: usize) -> io::Result<State> {
        let log = self.recording.log.lock();
        // What the mount itself wrote is on the disk, whether or not the disk lies afterwards.
        let last_flush =
            log.events()[..cut].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let durable_to = if self.is_honest { last_flush } else { self.recording.armed_at };
        let target = OpenOptions::new().write(true).open(&self.durable)?;
        for event in &log.events()[self.applied.min(durable_to)..durable_to] {
            apply(&log, event, &target)?;
        }
        self.applied = self.applied.max(durable_to);
        let pending: Vec<Event> = log.events()[durable_to..cut]
            .iter()
            .filter(|event| matches!(event, Event::Write { .. }))
            .copied()
            .collect();
        let fate = Fate::ALL[self.number % Fate::ALL.len()];
        let image = self.recording.scratch.path(&format!("state-{}-{}.img", self.number, self.is_honest));
        copy_sparse(&self.durable, &image)?;
        let file = OpenOptions::new().write(true).open(&image)?;
        let kept = leave(&log, &pending, fate, &mut self.chance, &file)?;
        let marks = log.events()[..cut].iter().filter_map(|event| match event {
            Event::Mark(number) => Some(*number),
            Event::Write { .. } | Event::Flush => None,
        });
        let marks = marks.collect();
        let at = self.recording.scratch.path(&format!("state-{}-{}", self.number, self.is_honest));
        Ok(State { image, at, cut, fate, pending: pending.len(), kept, marks })
    }
}

impl Iterator for States<'_> {
    type Item = io::Result<State>;
    fn next(&mut self) -> Option<Self::Item> {
        let cut = self.cuts.next()?;
        let state = self.make(cut);
        self.number += 1;
        Some(state)
    }
}

impl Drop for States<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.durable);
    }
}

fn apply(log: &Log, event: &Event, to: &File) -> io::Result<()> {
    if let Event::Write { offset, at, len } = *event {
        to.write_all_at(&log.read(at, len)?, offset)?;
    }
    Ok(())
}

/// Writes to `to` what a disk kept of `pending`; returns how many of them it touched.
fn leave(log: &Log, pending: &[Event], fate: Fate, chance: &mut Chance, to: &File) -> io::Result<usize> {
    let mut kept = 0;
    let prefix = chance.below(pending.len() + 1);
    for (index, event) in pending.iter().enumerate() {
        let whole = match fate {
            Fate::Lost => false,
            Fate::Prefix => index < prefix,
            Fate::Subset => chance.coin(),
            Fate::Torn => chance.below(4) == 0,
        };
        if whole {
            apply(log, event, to)?;
        } else if fate == Fate::Torn && chance.coin() {
            tear(log, event, chance, to)?;
        } else {
            continue;
        }
        kept += 1;
    }
    Ok(kept)
}

fn tear(log: &Log, event: &Event, chance: &mut Chance, to: &File) -> io::Result<()> {
    let Event::Write { offset, at, len } = *event else { return Ok(()) };
    for (index, sector) in log.read(at, len)?.chunks(SECTOR).enumerate() {
        if chance.coin() {
            to.write_all_at(sector, offset + (index * SECTOR) as u64)?;
        }
    }
    Ok(())
}

/// Copies a file without filling its holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&source, SeekFrom::Hole(start))?;
        offset = start;
        while offset < end {
            let step = (end - offset).min(buffer.len() as u64) as usize;
            source.read_exact_at(&mut buffer[..step], offset)?;
            target.write_all_at(&buffer[..step], offset)?;
            offset += step as u64;
        }
    }
    Ok(())
}

/// One state that the cut could have left. Its image goes when it is dropped.
pub struct State {
    image: PathBuf,
    at: PathBuf,
    cut: usize,
    fate: Fate,
    pending: usize,
    kept: usize,
    marks: Vec<u64>,
}

impl State {
    /// The image, an ext4 that was not unmounted.
    pub fn image(&self) -> &Path {
        &self.image
    }
    /// The acknowledgements that the test had seen before the cut, in order.
    pub fn marks(&self) -> &[u64] {
        &self.marks
    }
    /// The highest of them.
    pub fn marked(&self) -> Option<u64> {
        self.marks.iter().max().copied()
    }
    /// How to name this state in a failure.
    pub fn describe(&self) -> String {
        format!(
            "cut at event {}: {:?}, {} of {} unflushed writes kept",
            self.cut, self.fate, self.kept, self.pending
        )
    }
    /// Mounts the image, as a machine would after the cut: ext4 replays its own journal.
    ///
    /// # Errors
    /// What `mount` said; an ext4 that does not mount is itself a finding.
    pub fn mount(self) -> io::Result<Mounted> {
        mounts::mount_image(&self.image, &self.at)?;
        Ok(Mounted { state: self })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.image);
    }
}

/// A mounted state; dropping it unmounts it and removes the image.
pub struct Mounted {
    state: State,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.state.at
    }
    /// The state it came from.
    pub fn state(&self) -> &State {
        &self.state
    }
    /// See [`State::marked`].
    pub fn marked(&self) -> Option<u64> {
        self.state.marked()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = mounts::unmount_now(&self.state.at);
        let _ = fs::remove_dir(&self.state.at);
    }
}
