//! A client that works on one area through one surface, and remembers what it was told.

use super::area::Step;
use super::chance::{Chance, next_step};
use super::ledger::{Ending, Fit, Instants, Ledger};
use super::observe::Areas;
use super::surfaces::{Outcome, Surface, Trouble};
use crate::programs::pause;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A server that does not answer for ten seconds is answered with patience.
pub(super) const RETRIES: u32 = 40;
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What all clients of one round share.
#[derive(Default)]
pub(super) struct Load {
    pub(super) instants: Instants,
    /// No more steps.
    pub(super) stop: AtomicBool,
    /// The server is being ended: from now on an error says nothing about it.
    pub(super) killed: AtomicBool,
    pub(super) findings: Mutex<Vec<String>>,
    /// When forks and checkpoints of the shared session that were acknowledged had begun.
    pub(super) cuts: Mutex<Vec<u64>>,
    pub(super) acknowledged: AtomicU64,
}

/// How the server ended a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// At once.
    Killed,
    /// As asked, so nothing that was answered is lost.
    Stopped,
    /// Not at all.
    Alive,
}

impl Load {
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
    pub(super) fn found(&self, finding: String) {
        self.findings.lock().push(finding);
    }
    pub(super) fn count_acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Worker {
    /// Its directory in the session.
    pub(super) area: String,
    pub(super) session: String,
    pub(super) surface: Surface,
    pub(super) ledger: Ledger,
    /// What became of the step under way.
    pub(super) ending: Ending,
    /// For a mount: a file opened before the load begins, and used after the crash.
    pub(super) held_path: Option<PathBuf>,
    held: Option<File>,
    /// The mount outlives the server, which tells whoever has lost something.
    pub(super) survives: bool,
    /// Negative control: every answer is written down as durable.
    pub(super) believes_all: bool,
    has_log: bool,
    chance: Chance,
    number: u64,
    key: String,
}

impl Worker {
    pub(super) fn new(area: &str, session: &str, surface: Surface, has_log: bool, chance: Chance) -> Self {
        Self {
            area: area.to_owned(),
            session: session.to_owned(),
            surface,
            ledger: Ledger::default(),
            ending: Ending::None,
            held_path: None,
            held: None,
            survives: false,
            believes_all: false,
            has_log,
            chance,
            number: 0,
            key: String::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{} of {}", self.area, self.session)
    }

    /// Before a round's load.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        self.held = self.held_path.as_ref().map(File::open).transpose()?;
        Ok(())
    }

    /// Works until the load is over.
    pub(super) fn run(&mut self, load: &Load) {
        while !load.is_over() && self.step(load) {}
    }

    /// One step; false when there is no going on.
    pub(super) fn step(&mut self, load: &Load) -> bool {
        self.number += 1;
        let tag = self.has_log.then_some(self.area.as_str());
        let skills = self.surface.skills();
        let step = next_step(&mut self.chance, self.ledger.area(), skills, tag, self.number);
        self.perform(load, step) && (!self.chance.one_in(4) || self.sync(load))
    }

    /// A step that the caller chose.
    pub(super) fn perform(&mut self, load: &Load, step: Step) -> bool {
        self.number += 1;
        self.key = format!("{}-{}-{}", self.session, self.area, self.number);
        self.ledger.begin(step.clone(), load.instants.now());
        let mut outcome = self.surface.perform(&step, &self.key);
        for _ in 0..RETRIES {
            // As every client does: a connection that breaks is no answer.
            if load.is_killed() || !matches!(outcome, Err(Trouble::Gone(_))) || self.is_once_only() {
                break;
            }
            pause(RETRY_AFTER);
            self.surface.forget();
            outcome = self.surface.perform(&step, &self.key);
        }
        let is_mount = matches!(self.surface, Surface::Mount { .. });
        if load.is_killed() {
            // The next server is there within the mount's patience, and can say it.
            if let (true, Err(Trouble::Unknown(why))) = (self.survives, &outcome) {
                load.found(format!("{}: {step:?} was under way, and failed: {why}", self.name()));
            }
            // The answer may have come just before the kill: then a mount's means nothing yet.
            self.ending = if outcome.is_ok() && !is_mount { Ending::Done } else { Ending::Unknown };
            return false;
        }
        match outcome {
            Ok(()) => {
                self.ledger.answered(load.instants.now());
                load.count_acknowledged();
                if !is_mount || self.believes_all {
                    self.ledger.is_durable();
                }
                true
            }
            Err(trouble) => {
                self.ending = Ending::Unknown;
                load.found(format!("{}: {step:?} failed while the server ran: {trouble:?}", self.name()));
                false
            }
        }
    }

    fn sync(&mut self, load: &Load) -> bool {
        match self.surface.sync() {
            None => true,
            Some(Ok(())) => {
                self.ledger.is_durable();
                !load.is_killed()
            }
            Some(Err(_)) if load.is_killed() => false,
            Some(Err(error)) => {
                load.found(format!("{}: fsync failed while the server ran: {error}", self.name()));
                false
            }
        }
    }

    /// How the area fits what this client knows; a finding if it does not. The state found is where the next round begins.
    pub(super) fn check(&self, found: &Areas) -> Result<(Fit, super::area::Area), String> {
        let shown = found.get(&self.area).ok_or_else(|| format!("{}: the directory is gone", self.name()))?;
        self.ledger.fit(shown, self.ending).map_err(|wrong| format!("{}: {wrong}", self.name()))
    }

    /// Whether a mount was honest about what was lost. `fit` is what is left.
    pub(super) fn check_honesty(&mut self, fit: Fit, end: End) -> Result<(), String> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let synced = held.sync_all();
        match (self.survives || end == End::Alive, synced) {
            (false, Ok(())) => Err(format!("{}: fsync of a handle of a dead mount succeeds", self.name())),
            (false, Err(_)) => Ok(()),
            (true, Err(error)) if end != End::Killed => {
                Err(format!("{}: nothing is lost, and fsync fails: {error}", self.name()))
            }
            (true, Err(_)) => match held.sync_all() {
                Ok(()) => Ok(()),
                Err(error) => Err(format!("{}: fsync fails after it said so once: {error}", self.name())),
            },
            // Whatever other handles were told.
            (true, Ok(())) if fit.most < self.ledger.answered_steps() => Err(format!(
                "{}: {} of {} steps are left, and fsync succeeds as if nothing was lost",
                self.name(),
                fit.most,
                self.ledger.answered_steps()
            )),
            (true, Ok(())) => Ok(()),
        }
    }

    /// Does the step that was under way again, under the same key; it must have happened exactly once then.
    pub(super) fn retry(&mut self, load: &Load) -> Outcome<()> {
        self.surface.forget();
        let Some(step) = self.ledger.in_flight().cloned() else { return Ok(()) };
        self.surface.perform(&step, &self.key)?;
        load.count_acknowledged();
        self.ending = Ending::Done;
        Ok(())
    }

    /// Its steps carry no key, so nobody may send one again.
    pub(super) fn is_once_only(&self) -> bool {
        matches!(self.surface, Surface::Http { is_durable: false, .. } | Surface::Mount { .. })
    }

    pub(super) fn begin_round_at(&mut self, area: super::area::Area) {
        self.ledger = Ledger::starting_at(area);
        self.ending = Ending::None;
    }
}
