//! What happens next: chosen by the dice from the state of the model, so that most operations succeed, many nearly do, and some are
//! nonsense.

use super::{Features, Origin, SessionNo, Step, World};
use crate::call::{Call, Name, Node, Path, RenameHow, SetAttr};
use crate::dice::Dice;
use crate::model::{Body, FileNode, Model, ROOT};
use crate::spec::{NAMES, random_target};
use afs_types::limits;

const MAX_SESSIONS: usize = 6;
const MAX_CHECKPOINTS: usize = 12;
/// From so many nodes on, more is removed than made.
const MANY_NODES: usize = 110;
const MAX_SIZE: u64 = 300_000;

/// The next steps; mostly one.
pub(super) fn steps(world: &World, features: Features, dice: &mut Dice) -> Vec<Step> {
    let sessions: Vec<SessionNo> = world.sessions.keys().copied().collect();
    let session = dice.pick(&sessions).copied().unwrap_or(0);
    let model = &world.sessions[&session];
    let own: Vec<_> =
        world.checkpoints.iter().filter(|(_, (owner, _))| *owner == session).map(|c| *c.0).collect();
    match dice.below(1000) {
        0..30 if sessions.len() < MAX_SESSIONS => {
            vec![Step::Fork { from: Origin::Session(session), new: world.next_session }]
        }
        30..45 if sessions.len() < MAX_SESSIONS && !own.is_empty() => {
            let checkpoint = dice.pick(&own).copied().unwrap_or_default();
            vec![Step::Fork { from: Origin::Checkpoint(session, checkpoint), new: world.next_session }]
        }
        45..70 if world.checkpoints.len() < MAX_CHECKPOINTS => {
            vec![Step::Checkpoint { session, new: world.next_checkpoint }]
        }
        70..85 if !own.is_empty() => restore(session, dice.pick(&own).copied().unwrap_or_default(), model),
        85..100 if sessions.len() > 3 => vec![Step::Delete { session }],
        100..125 => vec![Step::Evict { session }],
        125..130 => vec![Step::Restart { crash: dice.one_in(2) }],
        132..147 => vec![Step::Seal { session }],
        130 | 131 => fill_xattrs(session, Chooser { model, dice, features }.any()),
        _ => {
            let call = Chooser { model, dice, features }.call();
            vec![Step::Call { session, call }]
        }
    }
}

/// What an open file is after a restore is nobody's promise: everything is closed first.
fn restore(session: SessionNo, checkpoint: u32, model: &Model) -> Vec<Step> {
    let times = |node: Node| std::iter::repeat_n(node, model.open_count(node) as usize);
    let closing =
        model.opens().flat_map(times).map(|node| Step::Call { session, call: Call::Release { node } });
    closing.chain([Step::Restore { session, checkpoint }]).collect()
}

/// Reaches the limit of all extended attributes of a node, and makes room again.
fn fill_xattrs(session: SessionNo, node: Node) -> Vec<Step> {
    let name = |n: u8| vec![b'u', b's', b'e', b'r', b'.', b'0' + n];
    // The last one fits only if it takes the place of the one before.
    let values = [(0, 65_000), (1, 65_000), (2, 65_000), (3, 65_000), (4, 2_200), (3, 64_990)];
    let set = |(n, len): (u8, usize)| Call::SetXattr { node, name: name(n), value: vec![n; len], must: None };
    let calls = values.map(set).into_iter().chain((0..5).map(|n| Call::RemoveXattr { node, name: name(n) }));
    calls.map(|call| Step::Call { session, call }).collect()
}

struct Chooser<'a> {
    model: &'a Model,
    dice: &'a mut Dice,
    features: Features,
}

impl Chooser<'_> {
    fn call(&mut self) -> Call {
        let crowded = self.model.nodes().len() > MANY_NODES;
        match self.dice.below(100) {
            0..10 if self.features.paths => self.by_path(crowded),
            10..30 if !crowded => self.make(),
            10..30 => self.unmake(),
            30..42 => self.unmake(),
            42..56 => self.rename(),
            56..74 => self.content(),
            74..82 => self.attributes(),
            82..90 => self.xattr(),
            90..94 => self.open(),
            _ => self.look(),
        }
    }

    fn make(&mut self) -> Call {
        let dir = self.dir();
        let name = self.new_name();
        let (uid, gid) = (self.dice.below(3) as u32, self.dice.below(3) as u32);
        let mode = self.mode();
        match self.dice.below(20) {
            0..8 => Call::Create { dir, name, mode: 0o100_000 | mode, uid, gid, rdev: 0 },
            8 => Call::Create { dir, name, mode: 0o010_000 | mode, uid, gid, rdev: 0 },
            9 => Call::Create {
                dir,
                name,
                mode: 0o020_000 | mode,
                uid,
                gid,
                rdev: self.dice.below(70_000) as u32,
            },
            10..15 => Call::MakeDir { dir, name, mode: mode & 0o1777, uid, gid },
            15 | 16 => {
                let long = self.dice.one_in(30);
                let target = if long { vec![b'x'; 4096] } else { random_target(self.dice) };
                Call::Symlink { dir, name, target, uid, gid }
            }
            _ => Call::Link { node: self.file(), dir, name },
        }
    }

    fn unmake(&mut self) -> Call {
        let dir = self.dir();
        let name = self.old_name(dir);
        let is_dir = self.child(dir, &name).is_some_and(FileNode::is_dir);
        // Now and then the wrong one of the two.
        if is_dir != self.dice.one_in(8) { Call::RemoveDir { dir, name } } else { Call::Unlink { dir, name } }
    }

    fn rename(&mut self) -> Call {
        let (dir, to_dir) = (self.dir(), self.dir());
        let to_dir = if self.dice.one_in(3) { dir } else { to_dir };
        let name = self.old_name(dir);
        let moves_dir = self.child(dir, &name).is_some_and(FileNode::is_dir);
        // Not asked, because two answers are right: see the model.
        let to_dir = if moves_dir && self.model.nlink(to_dir) == 0 { ROOT } else { to_dir };
        let to_name = if self.dice.one_in(2) { self.old_name(to_dir) } else { self.new_name() };
        let how = match self.dice.below(8) {
            0 => RenameHow::NoReplace,
            1 | 2 => RenameHow::Exchange,
            _ => RenameHow::Replace,
        };
        Call::Rename { dir, name, to_dir, to_name, how }
    }

    fn content(&mut self) -> Call {
        let node = self.file();
        let size = self.size(node);
        let offset = match self.dice.below(6) {
            0 => 0,
            1 => size,
            2 => self.dice.below(MAX_SIZE),
            _ => self.dice.below(size + 1),
        };
        let len = match self.dice.below(12) {
            0 => self.dice.below(MAX_SIZE / 4),
            1 => 4096,
            2..5 => self.dice.below(20_000),
            _ => self.dice.below(300) + 1,
        };
        match self.dice.below(20) {
            // The model has every byte of every session in RAM.
            _ if size > 2 * MAX_SIZE => self.truncate(node, MAX_SIZE / 2),
            0 if self.features.ranges => Call::Punch { node, offset, len: len + 1 },
            1 if self.features.ranges => self.copy_range(node, offset, len),
            2 | 3 => Call::Append { node, bytes: self.dice.bytes(len as usize + 1) },
            4..9 => Call::Read { node, offset, len: len as usize },
            9 if self.dice.one_in(10) => Call::Write { node, offset: limits::MAX_FILE_BYTES, bytes: vec![1] },
            10 if size > 0 && self.dice.one_in(3) => Call::Write { node, offset, bytes: Vec::new() },
            11 | 12 => self.truncate(node, size),
            _ => Call::Write { node, offset, bytes: self.dice.bytes(len as usize + 1) },
        }
    }

    fn copy_range(&mut self, node: Node, offset: u64, len: u64) -> Call {
        let (to, len) = (self.file(), len.min(60_000) + 1);
        // Within one file the ranges must not overlap.
        let to_offset =
            if to == node { offset + len + self.dice.below(9_000) } else { self.dice.below(30_000) };
        Call::CopyRange { node, offset, to, to_offset, len }
    }

    fn truncate(&mut self, node: Node, size: u64) -> Call {
        let size = match self.dice.below(8) {
            0 => 0,
            1 => size,
            2 => size + self.dice.below(9_000),
            3 if self.dice.one_in(8) => limits::MAX_FILE_BYTES + 1,
            3 => self.dice.below(MAX_SIZE),
            _ => self.dice.below(size + 1),
        };
        Call::SetAttr { node, set: SetAttr { size: Some(size), ..SetAttr::default() } }
    }

    fn attributes(&mut self) -> Call {
        let node = self.any();
        let is_link = self.model.nodes().get(&node).is_some_and(|it| matches!(it.body, Body::Symlink(_)));
        let time = |dice: &mut Dice| dice.below(2_000_000_000_000_000_000) as i64;
        let mut set = SetAttr::default();
        match self.dice.below(6) {
            // Linux has no modes of symbolic links.
            0 | 1 if !is_link => {
                set.mode = Some(self.mode() | if self.dice.one_in(4) { 0o6000 } else { 0 });
            }
            2 => (set.uid, set.gid) = (Some(self.dice.below(4) as u32), Some(self.dice.below(4) as u32)),
            3 => set.gid = Some(self.dice.below(4) as u32),
            4 => set.atime_ns = Some(time(self.dice)),
            _ => (set.atime_ns, set.mtime_ns) = (Some(time(self.dice)), Some(time(self.dice))),
        }
        Call::SetAttr { node, set }
    }

    fn xattr(&mut self) -> Call {
        let node = self.any();
        let name = format!("user.{}", self.dice.below(5)).into_bytes();
        match self.dice.below(12) {
            0..3 => Call::GetXattr { node, name },
            3..5 => Call::RemoveXattr { node, name },
            5 => Call::ListXattr { node },
            _ => {
                let len = match self.dice.below(40) {
                    0 => limits::MAX_XATTR_VALUE_BYTES as u64 + 1,
                    1 => limits::MAX_XATTR_VALUE_BYTES as u64,
                    _ => self.dice.below(200),
                };
                let must = [None, None, Some(true), Some(false)][self.dice.below(4) as usize];
                Call::SetXattr { node, name, value: self.dice.bytes(len as usize), must }
            }
        }
    }

    fn open(&mut self) -> Call {
        let open: Vec<Node> = self.model.opens().collect();
        match self.dice.pick(&open).copied() {
            Some(node) if self.dice.below(8) < open.len() as u64 => Call::Release { node },
            _ => Call::Open { node: self.any() },
        }
    }

    fn look(&mut self) -> Call {
        match self.dice.below(6) {
            0 => Call::GetAttr { node: self.any() },
            1 => Call::ReadLink { node: self.any() },
            2 => Call::ReadDir { dir: self.dir() },
            3 if self.features.paths => Call::Resolve { path: self.path(), follow: self.dice.one_in(2) },
            _ => {
                let dir = self.dir();
                let name = if self.dice.one_in(3) { self.any_name() } else { self.old_name(dir) };
                Call::Lookup { dir, name }
            }
        }
    }

    fn by_path(&mut self, crowded: bool) -> Call {
        let path = self.path();
        match self.dice.below(12) {
            0..3 => Call::Resolve { path, follow: self.dice.one_in(2) },
            3..6 if !crowded => {
                let most = if self.dice.one_in(12) { MAX_SIZE } else { 3_000 };
                let len = self.dice.below(most);
                Call::WriteAt { path, bytes: self.dice.bytes(len as usize), parents: self.dice.one_in(3) }
            }
            6..8 if !crowded => Call::MakeDirAt { path, parents: self.dice.one_in(2) },
            8 | 9 => Call::MoveAt { path, to: self.path(), overwrite: self.dice.one_in(2) },
            _ => Call::RemoveAt { path, recursive: self.dice.one_in(if crowded { 2 } else { 6 }) },
        }
    }

    /// A path through what is there, often with something behind it.
    fn path(&mut self) -> Path {
        let mut path = Vec::new();
        let mut at = ROOT;
        for _ in 0..self.dice.below(5) {
            let name = self.old_name(at);
            let next = self.model.nodes().get(&at).and_then(|it| match &it.body {
                Body::Dir(names) => names.get(&name).copied(),
                _ => None,
            });
            path.push(name);
            at = next.unwrap_or(ROOT);
        }
        if self.dice.one_in(3) {
            path.push(self.plain_name());
        }
        path
    }

    fn mode(&mut self) -> u32 {
        [0o644, 0o755, 0o600, 0o777, 0o2755, 0o4711, 0o1777, 0][self.dice.below(8) as usize]
    }

    /// Mostly a directory.
    fn dir(&mut self) -> Node {
        self.node_that(|it| it.is_dir())
    }
    /// Mostly a regular file.
    fn file(&mut self) -> Node {
        self.node_that(|it| matches!(it.body, Body::File(_)))
    }
    fn any(&mut self) -> Node {
        self.node_that(|_| true)
    }
    fn node_that(&mut self, fits: impl Fn(&FileNode) -> bool) -> Node {
        let wild = self.dice.one_in(12);
        if self.dice.one_in(25)
            && let Some(node) = self.dice.pick(self.model.dead())
        {
            return *node;
        }
        let nodes = self.model.nodes().iter().filter(|(_, it)| wild || fits(it));
        let nodes: Vec<Node> = nodes.map(|(node, _)| *node).collect();
        self.dice.pick(&nodes).copied().unwrap_or(ROOT)
    }

    fn size(&self, node: Node) -> u64 {
        match self.model.nodes().get(&node).map(|it| &it.body) {
            Some(Body::File(bytes)) => bytes.len() as u64,
            _ => 0,
        }
    }
    fn child(&self, dir: Node, name: &Name) -> Option<&FileNode> {
        match &self.model.nodes().get(&dir)?.body {
            Body::Dir(names) => self.model.nodes().get(names.get(name)?),
            _ => None,
        }
    }

    /// Mostly a name that is in the directory.
    fn old_name(&mut self, dir: Node) -> Name {
        let names: Vec<&Name> = match self.model.nodes().get(&dir).map(|it| &it.body) {
            Some(Body::Dir(names)) => names.keys().collect(),
            _ => Vec::new(),
        };
        match self.dice.pick(&names) {
            Some(name) if !self.dice.one_in(10) => (*name).clone(),
            _ => self.plain_name(),
        }
    }
    fn plain_name(&mut self) -> Name {
        self.dice.pick(&NAMES).map_or_else(Vec::new, |name| name.to_vec())
    }
    /// Any name, the longest and one byte more included.
    fn any_name(&mut self) -> Name {
        match self.dice.below(30) {
            0 => vec![b'n'; limits::MAX_NAME_BYTES],
            1 => vec![b'n'; limits::MAX_NAME_BYTES + 1],
            2..8 => format!("new-{}", self.dice.below(1_000)).into_bytes(),
            _ => self.plain_name(),
        }
    }
    /// Any name, and now and then one that is none.
    fn new_name(&mut self) -> Name {
        let wrong: [&[u8]; 5] = [b"", b".", b"..", b"a/b", b"a\0b"];
        match self.dice.below(100) {
            0 => self.dice.pick(&wrong).map_or_else(Vec::new, |name| name.to_vec()),
            _ => self.any_name(),
        }
    }
}
