//! Paths and symbolic links on a small tree.

use super::*;
use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use std::collections::HashMap;

/// Targets by inode.
struct Known(HashMap<Ino, Vec<u8>>);

impl Links for Known {
    fn target(&mut self, _: &Tree, ino: Ino) -> Result<Arc<[u8]>> {
        Ok(self.0[&ino].as_slice().into())
    }
}

fn path(text: &str) -> SessionPath {
    SessionPath::parse(text.as_bytes()).unwrap()
}

/// `/d/e/f`, and links next to it.
fn world(links: &[(&str, &str)]) -> (Tree, Known) {
    let mut builder = BaseBuilder::new(7);
    let root = builder.root(NewEntry::new(NodeKind::Dir, 0o755));
    let d = builder.add(root, b"d", NewEntry::new(NodeKind::Dir, 0o755)).unwrap();
    let e = builder.add(d, b"e", NewEntry::new(NodeKind::Dir, 0o755)).unwrap();
    builder.add(e, b"f", NewEntry::new(NodeKind::File, 0o644)).unwrap();
    for (name, target) in links {
        let blob = Some(afs_types::BlobId([1; 32]));
        let entry = NewEntry { size: target.len() as u64, blob, ..NewEntry::new(NodeKind::Symlink, 0o777) };
        builder.add(root, name.as_bytes(), entry).unwrap();
    }
    let tree = Tree::new(Arc::new(BaseTable::open(builder.finish().into()).unwrap()));
    let targets =
        links.iter().map(|(name, target)| (tree.walk(&path(name)).unwrap(), target.as_bytes().to_vec()));
    let targets = targets.collect();
    (tree, Known(targets))
}

/// The real path that `from` leads to, `missing:` and what is missing, or the error.
fn lead((tree, links): &mut (Tree, Known), from: &str, follow: bool) -> String {
    match walk(tree, links, &path(from), follow) {
        Ok(Place::There { attr, .. }) => tree.path_of(attr.ino).unwrap().to_text(),
        Ok(Place::Missing { dir, names }) => format!("missing:{}:{names:?}", tree.path_of(dir).unwrap()),
        Err(e) => e.reason.as_str().to_owned(),
    }
}

#[test]
fn plain_paths() {
    let w = &mut world(&[]);
    for (from, want) in [
        ("/", "/"),
        ("/d/e/f", "/d/e/f"),
        ("/d/e/g", "missing:/d/e:[\"g\"]"),
        ("/d/x/y", "missing:/d:[\"x\", \"y\"]"),
        ("/d/e/f/g", "NOT_A_DIRECTORY"),
    ] {
        assert_eq!(lead(w, from, true), want, "{from}");
    }
}

#[test]
fn links_stay_inside() {
    let w = &mut world(&[
        ("abs", "/d/e"),
        ("rel", "d/./e/"),
        ("up", "../../../../d"),
        ("file", "d/e/f"),
        ("dangling", "d/new/deep"),
        ("astray", "nowhere/../d"),
        ("loop", "loop2"),
        ("loop2", "/loop"),
        ("top", ".."),
        ("chain", "up/e"),
    ]);
    for (from, follow, want) in [
        ("/abs", true, "/d/e"),
        ("/abs", false, "/abs"),
        ("/abs/f", false, "/d/e/f"),
        ("/rel/f", false, "/d/e/f"),
        ("/up/e", true, "/d/e"),
        ("/file", true, "/d/e/f"),
        ("/file/x", true, "NOT_A_DIRECTORY"),
        ("/dangling", true, "missing:/d:[\"new\", \"deep\"]"),
        ("/dangling/x", true, "missing:/d:[\"new\", \"deep\", \"x\"]"),
        ("/astray", true, "NOT_FOUND"),
        ("/loop", true, "TOO_MANY_SYMLINKS"),
        ("/loop", false, "/loop"),
        ("/top", true, "/"),
        ("/top/d", true, "/d"),
        ("/chain/f", true, "/d/e/f"),
    ] {
        assert_eq!(lead(w, from, follow), want, "{from} {follow}");
    }
}
