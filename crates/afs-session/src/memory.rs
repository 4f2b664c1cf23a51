//! Memory of calls that hold whole contents of files: who may have how much of it, and who waits.
//!
//! Guarantees: all such calls together hold at most what the lanes of [`Rule`] have, however many run; who asks for a little never
//! waits for those who ask for much, who asks for nothing never waits, and in a lane nobody is overtaken for ever, as the first who waits
//! goes first. All waiting of one call ends [`limits::MAX_MEMORY_WAIT_MS`] after it began ([`Until`]), and in each lane few calls wait at
//! once, as each holds a thread: the others, and those whose time is over, get `QUEUE_FULL` with the limit. Nobody waits for more while it
//! holds some of the same lane, so nobody waits for each other: what is found to be needed later ([`Room::grow`]) is there at once or
//! refused. Room is given back when a [`Room`] is dropped.
//! [`Rule`] decides and is pure; [`Memory`] makes threads wait for it.
//!
//! Not counted is what outlives the call that made it, as its room is gone by then: answers on their way out (of `batch_read` at most half
//! a message, of `read_lines` what it shows, the diff of an edit, the matches of a search that are ready), and requests on their way in,
//! which the server counts. Nor are places without contents: paths, results of a patch, lines of a search that match.

use afs_types::{Error, Reason, Result, limits};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Calls that ask for at most this much have a lane of their own.
const SMALL: usize = 16 << 20;

/// What a lane is for. Lanes do not share room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Contents, a little.
    Small,
    /// Contents, much.
    Large,
    /// Patches that were read; their files are read while they are held.
    Patches,
    /// What a dry run would have written, kept until it ends.
    Kept,
    /// Rules to ignore files, while a search goes on.
    Rules,
}

/// How many there are.
const LANES: usize = 5;

/// How often somebody may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// On a thread that short calls need, too: few at once.
    OnCallThread,
    /// On a thread that is the caller's own.
    OnOwnThread,
}

/// The answer to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Granted,
    /// With this number.
    Waits(u64),
    /// Too many wait.
    Full,
}

#[derive(Debug)]
struct Claim {
    number: u64,
    bytes: usize,
    waits: Waits,
}

#[derive(Debug)]
struct Lane {
    most: usize,
    used: usize,
    queue: VecDeque<Claim>,
}

/// The deciding rule.
#[derive(Debug)]
struct Rule {
    lanes: [Lane; LANES],
    most_waiting: usize,
    last: u64,
}

impl Rule {
    fn new(most: [usize; LANES], most_waiting: usize) -> Self {
        let lanes = most.map(|most| Lane { most, used: 0, queue: VecDeque::new() });
        Self { lanes, most_waiting, last: 0 }
    }

    fn lane(&mut self, of: Use) -> &mut Lane {
        &mut self.lanes[of as usize]
    }

    /// Asks for room; at most the whole lane is counted.
    fn ask(&mut self, of: Use, bytes: usize, waits: Waits) -> Asked {
        let (most_waiting, number) = (self.most_waiting, self.last + 1);
        let lane = self.lane(of);
        let bytes = bytes.min(lane.most);
        if bytes == 0 || (lane.queue.is_empty() && lane.has(bytes)) {
            lane.used += bytes;
            return Asked::Granted;
        }
        let on_call_threads = lane.queue.iter().filter(|c| c.waits == Waits::OnCallThread).count();
        if waits == Waits::OnCallThread && on_call_threads >= most_waiting {
            return Asked::Full;
        }
        lane.queue.push_back(Claim { number, bytes, waits });
        self.last = number;
        Asked::Waits(number)
    }

    /// Asks for room that must be there at once.
    fn grow(&mut self, of: Use, bytes: usize) -> bool {
        let lane = self.lane(of);
        let fits = lane.has(bytes);
        lane.used += if fits { bytes } else { 0 };
        fits
    }

    fn give(&mut self, of: Use, bytes: usize) {
        let lane = self.lane(of);
        lane.used -= bytes;
        lane.grant();
    }

    fn is_waiting(&mut self, of: Use, number: u64) -> bool {
        self.lane(of).queue.iter().any(|claim| claim.number == number)
    }

    /// Somebody waits no longer. Whom it was in front of may go.
    fn leave(&mut self, of: Use, number: u64) {
        let lane = self.lane(of);
        lane.queue.retain(|claim| claim.number != number);
        lane.grant();
    }
}

impl Lane {
    fn has(&self, bytes: usize) -> bool {
        bytes <= self.most - self.used
    }

    fn grant(&mut self) {
        while self.queue.front().is_some_and(|claim| self.has(claim.bytes)) {
            self.used += self.queue.pop_front().map_or(0, |claim| claim.bytes);
        }
    }
}

/// All room that there is.
pub(crate) struct Memory {
    rule: Mutex<Rule>,
    changed: Condvar,
    patience: Duration,
}

/// When the patience of a call ends, however often it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until(Instant);

/// Room that somebody has.
pub(crate) struct Room<'m> {
    memory: &'m Memory,
    of: Use,
    bytes: usize,
}

impl Memory {
    /// All room is free. At most `most_waiting` calls wait in a lane on threads that others need, too.
    pub(crate) fn new(most_waiting: usize) -> Self {
        let most = [
            limits::MAX_SMALL_TEXTS_BYTES,
            limits::MAX_LARGE_TEXTS_BYTES,
            limits::MAX_PATCHES_BYTES,
            limits::MAX_KEPT_TEXTS_BYTES,
            limits::MAX_SEARCH_RULES_BYTES,
        ];
        Self::with(Rule::new(most, most_waiting), Duration::from_millis(limits::MAX_MEMORY_WAIT_MS))
    }

    fn with(rule: Rule, patience: Duration) -> Self {
        Self { rule: Mutex::new(rule), changed: Condvar::new(), patience }
    }

    /// The patience of a call that begins now.
    pub(crate) fn until(&self) -> Until {
        Until(Instant::now() + self.patience)
    }

    /// Room for contents. Waits for it.
    pub(crate) fn take(&self, bytes: usize, waits: Waits, until: Until) -> Result<Room<'_>> {
        self.take_of(if bytes <= SMALL { Use::Small } else { Use::Large }, bytes, (waits, until))
    }

    /// Room for a patch that is read. Waits for it.
    pub(crate) fn take_patch(&self, bytes: usize, until: Until) -> Result<Room<'_>> {
        self.take_of(Use::Patches, bytes, (Waits::OnCallThread, until))
    }

    /// No room yet, for what a dry run keeps.
    pub(crate) fn kept(&self) -> Room<'_> {
        Room { memory: self, of: Use::Kept, bytes: 0 }
    }

    /// No room yet, for rules of a search.
    pub(crate) fn rules(&self) -> Room<'_> {
        Room { memory: self, of: Use::Rules, bytes: 0 }
    }

    fn take_of(&self, of: Use, bytes: usize, (waits, until): (Waits, Until)) -> Result<Room<'_>> {
        let mut rule = self.rule.lock();
        let most = rule.lane(of).most;
        let number = match rule.ask(of, bytes, waits) {
            Asked::Granted => return Ok(Room { memory: self, of, bytes: bytes.min(most) }),
            Asked::Waits(number) => number,
            Asked::Full => return Err(full(most)),
        };
        let waiting = |rule: &mut Rule| rule.is_waiting(of, number);
        let is_late = self.changed.wait_while_until(&mut rule, waiting, until.0).timed_out();
        if is_late && rule.is_waiting(of, number) {
            rule.leave(of, number);
            drop(rule);
            self.changed.notify_all();
            return Err(full(most));
        }
        Ok(Room { memory: self, of, bytes: bytes.min(most) })
    }
}

fn full(most: usize) -> Error {
    let message = format!("calls that hold contents of files have the {most} bytes that there are for them");
    Error::new(Reason::QueueFull, message)
        .with("limit", most.to_string())
        .next("try again shortly, or read and write the file as a stream")
}

impl Room<'_> {
    /// More room, if there is some now. False: nothing changed.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let grown = self.memory.rule.lock().grow(self.of, bytes);
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// More room now, or an error with the limit.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        Err(full(self.memory.rule.lock().lane(self.of).most))
    }

    /// Gives back what is not needed after all, at most all of it.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.rule.lock().give(self.of, bytes);
        self.memory.changed.notify_all();
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
