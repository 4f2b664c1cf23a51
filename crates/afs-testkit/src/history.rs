//! Random histories of several sessions, run on the model and on a subject side by side.
//!
//! Guarantees: the history depends on the seed alone, never on what the subject answers; every answer is compared, value or reason;
//! every [`COMPARE_EVERY`] steps, and after every fork, restore, eviction, seal and restart, whole trees are compared by walking them through
//! the subject's own operations: names, types, modes, owners, sizes, link counts, contents, extended attributes. Of large files some
//! stretches are read each time, and all bytes after every restart and at the end. One node has one inode number for ever, in all
//! sessions, and no other node ever has it.
//!
//! Not compared: times unless the subject lets the history set its clock, sizes of directories, cookies and the order of a
//! listing, words of errors.

mod compare;
mod generate;
#[cfg(test)]
mod tests;

use crate::call::{Answer, Call, Node, first_word};
use crate::dice::Dice;
use crate::model::{Context, Model};
use crate::spec::BaseSpec;
use afs_types::{Error, Ino, Reason, Result};
use compare::Numbers;
use std::collections::BTreeMap;
use std::fmt;

/// Steps between two comparisons of all trees.
pub const COMPARE_EVERY: u64 = 64;

/// A session of a history.
pub type SessionNo = u32;
/// A checkpoint of a history.
pub type CheckpointNo = u32;

/// What an engine must offer to be compared. It keeps the map from the numbers here to its own ids.
pub trait Subject {
    /// What it can do.
    fn features(&self) -> Features;
    /// Makes session 0 on a new base. Returns the tree as it was really imported.
    fn begin(&mut self, base: &BaseSpec) -> Result<BaseSpec>;
    /// The time of the next operations; only asked for with [`Features::clock`].
    fn set_clock(&mut self, now_ns: i64);
    /// One operation on the files of a session. Nodes in it, and in the answer, are inode numbers.
    fn call(&mut self, session: SessionNo, call: &Call) -> Result<Answer>;
    /// A new session that is as `from` is now.
    fn fork(&mut self, from: Origin, new: SessionNo) -> Result<()>;
    /// A new checkpoint of a session.
    fn checkpoint(&mut self, session: SessionNo, new: CheckpointNo) -> Result<()>;
    /// A session goes back to one of its checkpoints. Nothing is open in it.
    fn restore(&mut self, session: SessionNo, checkpoint: CheckpointNo) -> Result<()>;
    /// A session goes, and its checkpoints with it.
    fn delete(&mut self, session: SessionNo) -> Result<()>;
    /// A session leaves RAM, unless files are open in it.
    fn evict(&mut self, session: SessionNo) -> Result<()>;
    /// The bytes of a session move to where they stay. Nothing that anybody sees changes.
    fn seal(&mut self, session: SessionNo) -> Result<()>;
    /// The engine stops and starts again; open files are lost. With `crash` it makes everything durable and is then
    /// killed without a word, else it is shut down in order.
    fn restart(&mut self, crash: bool) -> Result<()>;
}

/// What a subject can do.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// The history sets its clock, and times are compared.
    pub clock: bool,
    /// Operations by path.
    pub paths: bool,
    /// `Punch` and `CopyRange`.
    pub ranges: bool,
    /// Submodules in the base.
    pub gitlinks: bool,
}

/// What a fork starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A session as it is now.
    Session(SessionNo),
    /// A checkpoint of a session.
    Checkpoint(SessionNo, CheckpointNo),
}

/// One step of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the operations of Subject")]
pub enum Step {
    Call { session: SessionNo, call: Call },
    Fork { from: Origin, new: SessionNo },
    Checkpoint { session: SessionNo, new: CheckpointNo },
    Restore { session: SessionNo, checkpoint: CheckpointNo },
    Delete { session: SessionNo },
    Evict { session: SessionNo },
    Seal { session: SessionNo },
    Restart { crash: bool },
}

/// What happened in a history, to show that it tried everything.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// By operation: how often it succeeded, how often it failed.
    pub calls: BTreeMap<String, (u64, u64)>,
    /// How often operations failed for each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Whole trees compared.
    pub trees: u64,
    /// Answers compared in doing so.
    pub looks: u64,
}

impl Stats {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        for (kind, (good, bad)) in &other.calls {
            let sum = self.calls.entry(kind.clone()).or_default();
            *sum = (sum.0 + good, sum.1 + bad);
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.trees += other.trees;
        self.looks += other.looks;
    }
}

/// The first difference between model and subject.
#[derive(Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The seed of the history.
    pub seed: u64,
    /// The step at or after which it was seen, from 0.
    pub step: u64,
    /// The step, or the look at a tree, that differs.
    pub what: String,
    /// What the model says.
    pub model: String,
    /// What the subject says.
    pub subject: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, what, model, subject } = self;
        writeln!(f, "seed {seed}, step {step}: {what}\n  model:   {model}\n  subject: {subject}")?;
        write!(f, "  again:   afs_testkit::history::run({seed}, {}, &mut subject)", step + 1)
    }
}

impl fmt::Debug for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Runs a history of `steps` steps, up to the first difference.
pub fn run(seed: u64, steps: u64, subject: &mut impl Subject) -> Result<Stats, Box<Divergence>> {
    let mut run = Run {
        features: subject.features(),
        subject,
        world: World::default(),
        dice: Dice::new(seed),
        looks: Dice::new(!seed),
        numbers: Numbers::default(),
        stats: Stats::default(),
        at: None,
        look: None,
    };
    let mut done = 0;
    match run.all(seed, steps, &mut done) {
        Ok(()) => Ok(run.stats),
        Err(Difference { model, subject }) => {
            let what = run.what();
            Err(Box::new(Divergence {
                seed,
                step: done,
                what,
                model: brief(&model),
                subject: brief(&subject),
            }))
        }
    }
}

/// All sessions and checkpoints as the model has them.
#[derive(Default)]
struct World {
    sessions: BTreeMap<SessionNo, Model>,
    /// With the session each belongs to.
    checkpoints: BTreeMap<CheckpointNo, (SessionNo, Model)>,
    next_node: Node,
    next_session: SessionNo,
    next_checkpoint: CheckpointNo,
    now_ns: i64,
}

struct Run<'a, S> {
    subject: &'a mut S,
    features: Features,
    world: World,
    dice: Dice,
    numbers: Numbers,
    stats: Stats,
    /// Chooses what is looked at; apart, so that looking does not change the history.
    looks: Dice,
    /// The step under way, or the last one.
    at: Option<Step>,
    /// The look at a tree that is being compared.
    look: Option<(SessionNo, Call)>,
}

/// Two answers that should be one.
struct Difference {
    model: String,
    subject: String,
}

impl<S: Subject> Run<'_, S> {
    fn what(&self) -> String {
        let step = self.at.as_ref().map_or("begin".into(), |step| format!("{step:?}"));
        match &self.look {
            Some((session, call)) => format!("{}, seen in session {session} by {call:?}", brief(&step)),
            None => brief(&step),
        }
    }

    fn all(&mut self, seed: u64, steps: u64, done: &mut u64) -> Result<(), Difference> {
        self.begin(seed)?;
        let mut planned: Vec<Step> = Vec::new();
        while *done < steps {
            if planned.is_empty() {
                planned = generate::steps(&self.world, self.features, &mut self.dice);
                planned.reverse();
            }
            let Some(step) = planned.pop() else { continue };
            self.step(&step)?;
            *done += 1;
            if done.is_multiple_of(COMPARE_EVERY) {
                self.compare_all(false)?;
            }
        }
        self.compare_all(true)
    }

    fn begin(&mut self, seed: u64) -> Result<(), Difference> {
        self.world.now_ns = 1_700_000_000_000_000_000;
        self.tell_time();
        let base = self.subject.begin(&BaseSpec::random(seed, self.features.gitlinks)).map_err(failed)?;
        self.world.next_node = crate::model::ROOT + 1;
        let model = Model::new(&base, &mut self.world.next_node);
        self.world.sessions.insert(0, model);
        self.world.next_session = 1;
        self.adopt_base()?;
        self.compare_all(true)
    }

    fn tell_time(&mut self) {
        self.world.now_ns += 1 + self.dice.below(2_000_000_000) as i64;
        if self.features.clock {
            self.subject.set_clock(self.world.now_ns);
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Difference> {
        self.at = Some(step.clone());
        self.tell_time();
        let result = match step {
            Step::Call { session, call } => return self.change(*session, call),
            Step::Fork { from, new } => self.subject.fork(*from, *new),
            Step::Checkpoint { session, new } => self.subject.checkpoint(*session, *new),
            Step::Restore { session, checkpoint } => self.subject.restore(*session, *checkpoint),
            Step::Delete { session } => self.subject.delete(*session),
            Step::Evict { session } => self.subject.evict(*session),
            Step::Seal { session } => self.subject.seal(*session),
            Step::Restart { crash } => self.subject.restart(*crash),
        };
        result.map_err(failed)?;
        self.stats.calls.entry(first_word(step)).or_default().0 += 1;
        self.world.apply(step);
        match step {
            Step::Fork { new: session, .. }
            | Step::Restore { session, .. }
            | Step::Evict { session }
            | Step::Seal { session } => self.compare_tree(*session, false),
            Step::Restart { .. } => self.compare_all(true),
            _ => Ok(()),
        }
    }

    /// One operation of the history, on both sides.
    fn change(&mut self, session: SessionNo, call: &Call) -> Result<(), Difference> {
        if self.numbers.subject(call).is_none() {
            // A node that was made on the way of a path operation: its inode number is found by looking.
            self.compare_tree(session, false)?;
        }
        // It was gone before anyone saw its number.
        let Some(translated) = self.numbers.subject(call) else { return Ok(()) };
        let want = self.world.call(session, call);
        let got = self.subject.call(session, &translated);
        let entry = self.stats.calls.entry(call.kind()).or_default();
        match &want {
            Ok(_) => entry.0 += 1,
            Err(reason) => {
                entry.1 += 1;
                *self.stats.reasons.entry(reason.as_str()).or_default() += 1;
            }
        }
        self.numbers.same(want, got, self.features.clock)
    }
}

impl World {
    fn call(&mut self, session: SessionNo, call: &Call) -> Result<Answer, Reason> {
        let model = self.sessions.get_mut(&session).ok_or(Reason::SessionNotFound)?;
        model.call(call, &mut Context { now_ns: self.now_ns, next_node: &mut self.next_node })
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Call { .. } | Step::Evict { .. } | Step::Seal { .. } => {}
            Step::Fork { from, new } => {
                let origin = match from {
                    Origin::Session(session) => self.sessions.get(session),
                    Origin::Checkpoint(_, checkpoint) => {
                        self.checkpoints.get(checkpoint).map(|(_, model)| model)
                    }
                };
                if let Some(copy) = origin.map(Model::without_opens) {
                    self.sessions.insert(*new, copy);
                    self.next_session = new + 1;
                }
            }
            Step::Checkpoint { session, new } => {
                if let Some(copy) = self.sessions.get(session).map(Model::without_opens) {
                    self.checkpoints.insert(*new, (*session, copy));
                    self.next_checkpoint = new + 1;
                }
            }
            Step::Restore { session, checkpoint } => {
                if let Some((_, copy)) = self.checkpoints.get(checkpoint) {
                    self.sessions.insert(*session, copy.clone());
                }
            }
            Step::Delete { session } => {
                self.sessions.remove(session);
                self.checkpoints.retain(|_, (owner, _)| owner != session);
            }
            Step::Restart { .. } => {
                self.sessions.values_mut().for_each(|model| *model = model.without_opens())
            }
        }
    }
}

fn failed(error: Error) -> Difference {
    Difference {
        model: "succeeds".into(),
        subject: format!("{}: {}", error.reason.as_str(), error.message()),
    }
}

/// The start and the end of a long text.
fn brief(text: &str) -> String {
    const MOST: usize = 600;
    if text.len() <= MOST {
        return text.to_owned();
    }
    let end = |from: usize| (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{} … {}", &text[..end(MOST * 2 / 3)], &text[end(text.len() - MOST / 3)..])
}

/// An inode number, as the subject has it.
type Number = Ino;
