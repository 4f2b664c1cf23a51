//! Chance with a seed, and the steps that it makes.

use super::area::{Area, Step};

/// Small, seeded and the same for ever (splitmix64).
#[derive(Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// What a surface can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Skills {
    /// Streams: writes at offsets and appends, besides the rest of the API.
    Grpc,
    /// Whole files, edits, change sets.
    Http,
    /// System calls.
    Mount,
}

/// Above this size a file is replaced or truncated: checks read all of it.
const MAX_FILE: usize = 12_000;
/// More names than this, and something is removed.
const MAX_NAMES: usize = 14;

/// The next step of a client, one that succeeds in `area`. `number` goes into the bytes, `tag` in front of lines of the shared file.
pub(super) fn next_step(
    chance: &mut Chance,
    area: &Area,
    skills: Skills,
    tag: Option<&str>,
    number: u64,
) -> Step {
    loop {
        let step = propose(chance, area, skills, tag, number);
        if area.after(&step).is_some() {
            return step;
        }
    }
}

fn propose(chance: &mut Chance, area: &Area, skills: Skills, tag: Option<&str>, number: u64) -> Step {
    let files = area.files();
    let file = chance.pick(&files).cloned().unwrap_or_else(|| "f0".into());
    let new = any_name(chance, area);
    let leaf = chance.pick(&area.leaves()).cloned().unwrap_or_else(|| "f0".into());
    if area.leaves().len() >= MAX_NAMES {
        return Step::Unlink(leaf);
    }
    match (chance.below(20), skills) {
        (0..=2, Skills::Mount) => Step::Create(new),
        (0 | 1, _) => Step::Create(new),
        (3 | 4, Skills::Mount | Skills::Grpc) => {
            let offset = chance.below(area.size(&file) + 1);
            Step::Write { bytes: in_page(bytes(chance, number), offset), path: file, offset }
        }
        (5..=7, Skills::Mount | Skills::Grpc) if area.size(&file) < MAX_FILE => {
            Step::Append { bytes: in_page(bytes(chance, number), area.size(&file)), path: file }
        }
        (2..5, Skills::Http) | (2 | 5, Skills::Grpc) => {
            let path = if chance.one_in(2) { file } else { new };
            Step::Replace { path, bytes: bytes(chance, number) }
        }
        (6..=8, Skills::Http | Skills::Grpc) => edit(area, file, number),
        (9 | 10, Skills::Http | Skills::Grpc) => change_set(chance, area, number),
        (8, Skills::Mount) => Step::Truncate { path: file, size: chance.below(4000) },
        (11, _) => Step::Truncate { path: file, size: chance.below(4000) },
        (12 | 13, _) => Step::Rename { from: file, to: new },
        (14, _) => match chance.pick(&area.dirs()).cloned() {
            Some(dir) if chance.one_in(2) => Step::Rename { from: dir, to: format!("d{}", chance.below(3)) },
            Some(dir) => Step::Rmdir(dir),
            None => Step::Mkdir(format!("d{}", chance.below(3))),
        },
        (15, _) => Step::Link { from: file, to: new },
        (16, _) => Step::Symlink { path: new, target: format!("to-{number}") },
        (17, _) => Step::Unlink(leaf),
        (18, _) => Step::Mkdir(format!("d{}", chance.below(3))),
        (19, Skills::Mount | Skills::Grpc) if tag.is_some() => {
            // All lines have 16 bytes, so none crosses a page.
            Step::Log(format!("{:<6} {number:>8}\n", tag.unwrap_or_default()))
        }
        (_, Skills::Mount) => Step::Create(new),
        _ => Step::Replace { path: new, bytes: bytes(chance, number) },
    }
}

fn any_name(chance: &mut Chance, area: &Area) -> String {
    let name = format!("f{}", chance.below(9));
    match chance.pick(&area.dirs()) {
        Some(dir) if chance.one_in(3) => format!("{dir}/{name}"),
        _ => name,
    }
}

/// A line that no other step writes, then some more.
fn bytes(chance: &mut Chance, number: u64) -> Vec<u8> {
    let len = [20, 300, 3000][chance.below(3)];
    let line = format!("step {number}\n");
    let rest = format!("{number:x}.");
    (line.clone() + &rest.repeat(chance.below(len) / rest.len())).into_bytes()
}

/// The kernel may pass a write on page by page, each of which is a step of its own.
fn in_page(mut bytes: Vec<u8>, offset: usize) -> Vec<u8> {
    bytes.truncate(4096 - offset % 4096);
    bytes
}

/// The first line by another.
fn edit(area: &Area, path: String, number: u64) -> Step {
    let old = area.text(&path).and_then(|text| text.split_inclusive('\n').next()).unwrap_or_default();
    // An empty text is nowhere exactly once, so such a proposal is dropped.
    Step::Edit { old: old.to_owned(), new: format!("edit {number}\n"), path }
}

/// Two to four steps that succeed one after the other.
fn change_set(chance: &mut Chance, area: &Area, number: u64) -> Step {
    let (mut steps, mut state) = (Vec::new(), area.clone());
    for _ in 0..2 + chance.below(3) {
        let files = state.files();
        let file = chance.pick(&files).cloned().unwrap_or_else(|| "f0".into());
        let new = any_name(chance, &state);
        let step = match chance.below(6) {
            0 | 1 => Step::Replace { path: new, bytes: bytes(chance, number) },
            2 => edit(&state, file, number),
            3 => Step::Rename { from: file, to: new },
            4 => Step::Unlink(file),
            _ => Step::Symlink { path: new, target: format!("to-{number}") },
        };
        if let Some(next) = state.after(&step) {
            (state, _) = (next, steps.push(step));
        }
    }
    Step::Set(steps)
}
