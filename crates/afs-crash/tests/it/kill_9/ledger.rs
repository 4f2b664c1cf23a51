//! What one client did since the last check, and whether a state that was found later fits it.
//!
//! A client does one step after the other, so what a crash leaves of it is the state after some number of its steps: at least those that were
//! acknowledged as durable. The step that was under way may have happened as well. Between clients of one session the order of time decides: a step
//! that had been answered before another one began cannot be missing when that one is there.

use super::area::{Area, Shown, Step};
use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out instants, so that two events of different threads have an order.
#[derive(Default)]
pub(super) struct Instants(AtomicU64);

impl Instants {
    pub(super) fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// One step that was begun.
#[derive(Clone, Debug)]
struct Begun {
    step: Step,
    began: u64,
    answered: Option<u64>,
}

/// What became of the step that was under way when the server died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Nothing was under way.
    None,
    /// Nobody knows.
    Unknown,
    /// It was answered, as durable, so it has happened.
    Done,
}

/// What a state that was found shows. A history can be in one state more than once (a file made and removed again): then each rule gets the
/// number that accuses less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fit {
    /// At most this many steps are in it, the one under way not counted.
    pub(super) most: usize,
    /// At least this many are.
    least: usize,
}

/// A client's steps since the state that was checked last.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    start: Area,
    begun: Vec<Begun>,
    /// So many steps were acknowledged as durable.
    durable: usize,
    /// The state after all steps that were answered.
    now: Area,
}

impl Ledger {
    pub(super) fn starting_at(area: Area) -> Self {
        Self { start: area.clone(), now: area, begun: Vec::new(), durable: 0 }
    }

    /// The state after every step that was answered.
    pub(super) fn area(&self) -> &Area {
        &self.now
    }

    pub(super) fn begin(&mut self, step: Step, now: u64) {
        self.begun.push(Begun { step, began: now, answered: None });
    }

    /// The last step was answered.
    pub(super) fn answered(&mut self, now: u64) {
        let last = self.begun.last_mut().expect("a step was begun");
        last.answered = Some(now);
        assert!(self.now.apply(&last.step), "only steps that succeed are begun: {:?}", last.step);
    }

    /// Everything answered so far was acknowledged as durable.
    pub(super) fn is_durable(&mut self) {
        self.durable = self.answered_steps();
    }

    /// Something later of the same session was acknowledged as durable: what had been answered when it began is, too.
    pub(super) fn is_durable_before(&mut self, instant: u64) {
        self.durable = self.durable.max(self.answered_before(instant));
    }

    /// Steps that were answered: all, or all but the last.
    pub(super) fn answered_steps(&self) -> usize {
        self.begun.len() - usize::from(self.in_flight().is_some())
    }

    /// The step without an answer.
    pub(super) fn in_flight(&self) -> Option<&Step> {
        self.begun.last().filter(|last| last.answered.is_none()).map(|last| &last.step)
    }

    /// The states that may be found, from the one with most steps to the one with fewest.
    fn candidates(&self, least: usize, most: usize, ending: Ending) -> Vec<(usize, Area)> {
        let mut found = Vec::new();
        let mut state = self.start.clone();
        for kept in 0..=most {
            if kept >= least {
                let last = self.in_flight().filter(|_| ending != Ending::None);
                if ending != Ending::Done {
                    found.push((kept, state.clone()));
                }
                if let Some(next) = last.and_then(|step| state.after(step)) {
                    found.push((kept, next));
                }
            }
            if let Some(begun) = self.begun.get(kept).filter(|_| kept < most) {
                assert!(state.apply(&begun.step), "it was applied before");
            }
        }
        found.reverse();
        found
    }

    /// How the state found after a crash fits, and what it is; or what is wrong with it.
    pub(super) fn fit(&self, shown: &Shown, ending: Ending) -> Result<(Fit, Area), String> {
        let most = self.answered_steps();
        self.fit_between(self.durable, most, ending, shown)
    }

    /// The same for a cut (a fork, a checkpoint) that was begun and answered at these instants.
    pub(super) fn fit_cut(&self, shown: &Shown, began: u64, answered: u64) -> Result<Fit, String> {
        let least = self.answered_before(began);
        let most = self.begun.iter().take_while(|begun| begun.began < answered).count();
        self.fit_between(least, most, Ending::None, shown).map(|(fit, _)| fit)
    }

    fn fit_between(
        &self,
        least: usize,
        most: usize,
        ending: Ending,
        shown: &Shown,
    ) -> Result<(Fit, Area), String> {
        let candidates = self.candidates(least, most, ending);
        let mut fitting = candidates.iter().filter(|(_, area)| area.shown() == *shown);
        if let Some((most, area)) = fitting.next() {
            let least = fitting.next_back().map_or(*most, |(kept, _)| *kept);
            return Ok((Fit { most: *most, least }, area.clone()));
        }
        let earlier = self.candidates(0, least, Ending::None);
        if let Some((kept, _)) = earlier.iter().find(|(_, area)| area.shown() == *shown) {
            return Err(format!("it has {kept} steps, and {least} were acknowledged"));
        }
        let differences = candidates.iter().map(|(kept, area)| (*kept, shown.differences(&area.shown())));
        let (kept, differences) =
            differences.min_by_key(|(_, told)| told.lines().count()).unwrap_or_default();
        Err(format!(
            "it is no state of its history: {least} to {most} steps, {ending:?}, under way {:?}, all steps {:?}; nearest is that after {kept}{differences}",
            self.in_flight(),
            self.begun[..most].iter().map(|begun| &begun.step).collect::<Vec<_>>(),
        ))
    }

    /// How many steps had been answered at an instant.
    fn answered_before(&self, instant: u64) -> usize {
        self.begun.iter().take_while(|begun| begun.answered.is_some_and(|at| at < instant)).count()
    }

    /// When the last of the first `kept` steps began.
    fn last_began(&self, kept: usize) -> Option<u64> {
        kept.checked_sub(1).map(|last| self.begun[last].began)
    }
}

/// What is missing of one client though later steps of others in the same session are there. `found` has what each has.
pub(super) fn holes(found: &[(&str, &Ledger, Fit)]) -> Vec<String> {
    let mut holes = Vec::new();
    for (later, its, fit) in found {
        let Some(began) = its.last_began(fit.least) else { continue };
        for (earlier, ledger, fit) in found {
            let must = ledger.answered_before(began);
            if fit.most < must {
                holes.push(format!(
                    "{earlier} has {} steps, and {must} were answered before a step of {later} began that is there",
                    fit.most
                ));
            }
        }
    }
    holes
}
