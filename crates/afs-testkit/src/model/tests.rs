//! The model on cases whose answers are known from Linux.

use super::*;
use crate::spec::BaseNode;

struct Files {
    model: Model,
    next: Node,
}

fn files() -> Files {
    let root = BaseNode { parent: 0, name: Vec::new(), mode: 0o755, kind: BaseKind::Dir };
    let mut next = ROOT + 1;
    let model = Model::new(&BaseSpec { seed: 0, nodes: vec![root] }, &mut next);
    Files { model, next }
}

impl Files {
    fn call(&mut self, call: Call) -> Result<Answer> {
        self.model.call(&call, &mut Context { now_ns: 5, next_node: &mut self.next })
    }
    fn node(&mut self, call: Call) -> Node {
        match self.call(call) {
            Ok(Answer::Node(node, _)) => node,
            other => panic!("{other:?}"),
        }
    }
    fn dir(&mut self, dir: Node, name: &str) -> Node {
        self.node(Call::MakeDir { dir, name: name.into(), mode: 0o755, uid: 0, gid: 0 })
    }
    fn file(&mut self, dir: Node, name: &str) -> Node {
        self.node(Call::Create { dir, name: name.into(), mode: FILE | 0o644, uid: 0, gid: 0, rdev: 0 })
    }
    fn mv(&mut self, from: (Node, &str), to: (Node, &str), how: RenameHow) -> Result<Answer> {
        let (name, to_name) = (from.1.into(), to.1.into());
        self.call(Call::Rename { dir: from.0, name, to_dir: to.0, to_name, how })
    }
    fn links(&self, node: Node) -> u32 {
        self.model.nlink(node)
    }
}

fn path(text: &str) -> Vec<Name> {
    text.split('/').filter(|part| !part.is_empty()).map(Into::into).collect()
}

#[test]
fn rename_errors_come_in_the_order_of_linux() {
    use RenameHow::{Exchange, NoReplace, Replace};
    let mut f = files();
    let a = f.dir(ROOT, "a");
    let b = f.dir(a, "b");
    let file = f.file(ROOT, "file");
    f.file(b, "deep");
    // Both directories are looked at before the source.
    assert_eq!(f.mv((ROOT, "none"), (file, "x"), Replace), Err(Reason::NotADirectory));
    assert_eq!(f.mv((ROOT, "none"), (ROOT, "x"), Replace), Err(Reason::NotFound));
    assert_eq!(f.mv((ROOT, "a"), (b, "x"), Replace), Err(Reason::MoveIntoSelf));
    assert_eq!(f.mv((ROOT, "a"), (b, "x"), Exchange), Err(Reason::NotFound));
    assert_eq!(f.mv((a, "b"), (ROOT, "a"), Replace), Err(Reason::NotEmpty));
    assert_eq!(f.mv((a, "b"), (ROOT, "a"), Exchange), Err(Reason::MoveIntoSelf));
    assert_eq!(f.mv((ROOT, "file"), (a, "b"), NoReplace), Err(Reason::AlreadyExists));
    assert_eq!(f.mv((ROOT, "file"), (a, "b"), Replace), Err(Reason::IsADirectory));
    assert_eq!(f.mv((a, "b"), (ROOT, "file"), Replace), Err(Reason::NotADirectory));
    let empty = f.dir(ROOT, "empty");
    assert_eq!(f.mv((ROOT, "empty"), (a, "b"), Replace), Err(Reason::NotEmpty));
    assert_eq!(f.mv((a, "b"), (ROOT, "empty"), Replace), Ok(Answer::Done));
    assert_eq!(f.call(Call::GetAttr { node: empty }), Err(Reason::Stale));
    assert_eq!((f.links(ROOT), f.links(a), f.links(b)), (4, 2, 2));
    assert_eq!(f.mv((ROOT, "file"), (ROOT, "a"), Exchange), Ok(Answer::Done));
    assert_eq!(f.model.child(ROOT, b"file"), Some(a));
}

#[test]
fn an_open_node_outlives_its_names() {
    let mut f = files();
    let dir = f.dir(ROOT, "dir");
    let file = f.file(dir, "file");
    f.call(Call::Link { node: file, dir: ROOT, name: b"two".to_vec() }).unwrap();
    assert_eq!(f.links(file), 2);
    for node in [dir, file] {
        f.call(Call::Open { node }).unwrap();
    }
    f.call(Call::Unlink { dir, name: b"file".to_vec() }).unwrap();
    f.call(Call::Unlink { dir: ROOT, name: b"two".to_vec() }).unwrap();
    f.call(Call::RemoveDir { dir: ROOT, name: b"dir".to_vec() }).unwrap();
    f.call(Call::Append { node: file, bytes: b"still".to_vec() }).unwrap();
    assert_eq!(f.call(Call::Link { node: file, dir: ROOT, name: b"x".to_vec() }), Err(Reason::NotFound));
    let create = Call::MakeDir { dir, name: b"x".to_vec(), mode: 0, uid: 0, gid: 0 };
    assert_eq!(f.call(create), Err(Reason::NotFound));
    assert_eq!(f.call(Call::ReadDir { dir }), Ok(Answer::Entries(Vec::new())));
    assert_eq!(f.model.without_opens().nodes().len(), 1);
    f.call(Call::Release { node: file }).unwrap();
    assert_eq!(f.call(Call::GetAttr { node: file }), Err(Reason::Stale));
}

#[test]
fn paths_follow_links_inside_the_tree() {
    let mut f = files();
    let a = f.dir(ROOT, "a");
    let b = f.dir(a, "b");
    let file = f.file(b, "file");
    for (dir, name, target) in [
        (b, "up", "../../../../a/b/file"),
        (ROOT, "abs", "/a/b"),
        (a, "loop", "loop"),
        (a, "dangling", "new"),
    ] {
        let target = target.into();
        f.node(Call::Symlink { dir, name: name.into(), target, uid: 0, gid: 0 });
    }
    let mut resolve = |text: &str, follow| match f.call(Call::Resolve { path: path(text), follow }) {
        Ok(Answer::Node(node, _)) => Ok(node),
        Ok(other) => panic!("{other:?}"),
        Err(reason) => Err(reason),
    };
    assert_eq!(resolve("/", true), Ok(ROOT));
    assert_eq!(resolve("abs/up", true), Ok(file));
    assert_eq!(resolve("abs/file/x", true), Err(Reason::NotADirectory));
    assert_eq!(resolve("a/loop", true), Err(Reason::TooManySymlinks));
    assert_eq!(resolve("a/dangling", true), Err(Reason::NotFound));
    assert!(resolve("a/dangling", false).is_ok());
    let write = Call::WriteAt { path: path("a/dangling"), bytes: b"x".to_vec(), parents: false };
    let node = f.node(write);
    assert_eq!(f.model.child(a, b"new"), Some(node));
    let remove = |recursive| Call::RemoveAt { path: path("a"), recursive };
    assert_eq!(f.call(remove(false)), Err(Reason::NotEmpty));
    assert_eq!(f.call(remove(true)), Ok(Answer::Done));
    assert_eq!(f.call(Call::RemoveAt { path: path("/"), recursive: true }), Err(Reason::NotPermitted));
    assert_eq!(f.model.nodes().len(), 2);
}

#[test]
fn bytes_behind_the_end_are_zero() {
    let mut f = files();
    let node = f.file(ROOT, "f");
    let size = |size| Call::SetAttr { node, set: SetAttr { size: Some(size), ..SetAttr::default() } };
    f.call(Call::Write { node, offset: 2, bytes: b"abc".to_vec() }).unwrap();
    f.call(size(3)).unwrap();
    f.call(size(6)).unwrap();
    let read = |offset| Call::Read { node, offset, len: 99 };
    assert_eq!(f.call(read(0)), Ok(Answer::Bytes(b"\0\0a\0\0\0".to_vec())));
    assert_eq!(f.call(read(9)), Ok(Answer::Bytes(Vec::new())));
    assert_eq!(f.call(size(limits::MAX_FILE_BYTES + 1)), Err(Reason::FileTooLarge));
    assert_eq!(f.call(Call::Read { node: ROOT, offset: 0, len: 1 }), Err(Reason::IsADirectory));
}
