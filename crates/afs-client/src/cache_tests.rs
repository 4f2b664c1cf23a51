//! The cache by itself: what it may answer, and what it must have forgotten, in every order in which answers and changes can come.

use super::*;
use afs_types::Reason;

fn attributes(inode: u64, size: u64) -> Attributes {
    Attributes { inode, size, ..Attributes::default() }
}

fn entries(list: &[(&'static str, u64)]) -> Vec<DirectoryEntry> {
    let entry = |(i, (name, ino)): (usize, &(&'static str, u64))| DirectoryEntry {
        name: Bytes::from_static(name.as_bytes()),
        next_cookie: i as u64 + 10,
        attributes: Some(attributes(*ino, 1)),
    };
    list.iter().enumerate().map(entry).collect()
}

fn listed() -> Cache {
    let cache = Cache::default();
    assert_eq!(cache.wants_listing(1), Some(FIRST_LISTING));
    assert_eq!(cache.wants_listing(1), None); // one is enough
    cache.store_listing(1, 1, entries(&[("a", 2), ("b", 3)]), cache.ticket());
    cache
}

fn create(name: &'static str) -> Op {
    Op::Create(api::CreateOp { parent: 1, name: name.into(), ..Default::default() })
}

fn write(inode: u64) -> Op {
    Op::Write(api::WriteDataOp { inode, ..Default::default() })
}

fn done(attributes: Attributes) -> Result<Applied> {
    Ok(Applied { attributes: Some(attributes), ..Applied::default() })
}

#[test]
fn a_listed_directory_answers_names_and_absences() {
    let cache = listed();
    assert_eq!(cache.lookup(1, b"a"), Found::Attributes(attributes(2, 1)));
    assert_eq!(cache.lookup(1, b"none"), Found::Absent);
    assert_eq!(cache.lookup(2, b"a"), Found::Unknown);
    assert_eq!(cache.wants_listing(1), None);
    let page = cache.listing(1, 10).unwrap();
    assert!(page.entries.len() == 1 && page.end);
    assert_eq!(cache.listing(1, 11).unwrap().entries, []);
    assert!(cache.listing(1, 99).is_none());
}

#[test]
fn changes_by_others_take_back_what_they_touch() {
    let cache = listed();
    cache.inode_changed(2, true);
    assert_eq!(cache.lookup(1, b"a"), Found::Inode(2));
    assert!(cache.listing(1, 0).is_none());
    cache.name_changed(1, b"b");
    cache.name_changed(1, b"new");
    assert_eq!(cache.lookup(1, b"b"), Found::Unknown);
    assert_eq!(cache.lookup(1, b"new"), Found::Unknown);
    assert_eq!(cache.lookup(1, b"other"), Found::Absent);
    cache.clear();
    assert_eq!(cache.lookup(1, b"other"), Found::Unknown);
}

#[test]
fn an_answer_that_was_under_way_is_not_stored() {
    let cache = listed();
    let ticket = cache.ticket();
    cache.inode_changed(2, false);
    cache.store(attributes(2, 99), ticket);
    assert_eq!(cache.attributes(2), None);
    cache.store(attributes(2, 5), cache.ticket());
    assert_eq!(cache.attributes(2), Some(attributes(2, 5)));
    // A listing: of the directory that changed not at all, of an entry that changed without its attributes.
    let ticket = cache.ticket();
    cache.name_changed(1, b"a");
    cache.store_listing(1, 1, entries(&[("a", 2)]), ticket);
    assert_eq!(cache.lookup(1, b"a"), Found::Unknown);
    let ticket = cache.ticket();
    cache.inode_changed(8, true);
    cache.store_listing(7, 1, entries(&[("x", 8), ("y", 9)]), ticket);
    assert_eq!(cache.lookup(7, b"x"), Found::Inode(8));
    assert_eq!(cache.lookup(7, b"y"), Found::Attributes(attributes(9, 1)));
    // After "everything", nothing from before counts.
    let ticket = cache.ticket();
    cache.clear();
    cache.store(attributes(3, 1), ticket);
    assert_eq!(cache.attributes(3), None);
}

#[test]
fn own_changes_are_entered() {
    let cache = listed();
    let op = create("c");
    let begun = cache.begin(&op);
    assert_eq!(cache.lookup(1, b"c"), Found::Unknown);
    cache.finish(begun, &op, &done(attributes(4, 0)));
    assert!(cache.has_no_capability(4));
    assert_eq!(cache.lookup(1, b"c"), Found::Attributes(attributes(4, 0)));
    let op = Op::Unlink(api::UnlinkOp { parent: 1, name: "a".into(), directory: false });
    cache.finish(cache.begin(&op), &op, &Ok(Applied::default()));
    assert_eq!(cache.lookup(1, b"a"), Found::Absent);
    assert_eq!(cache.attributes(2), None);
    let op = Op::Rename(api::RenameOp {
        from_parent: 1,
        from_name: "b".into(),
        to_parent: 1,
        to_name: "c".into(),
        flags: 0,
    });
    cache.finish(cache.begin(&op), &op, &Ok(Applied::default()));
    assert_eq!(cache.lookup(1, b"b"), Found::Absent);
    assert_eq!(cache.lookup(1, b"c"), Found::Unknown);
    // A failure leaves nothing that is believed.
    let op = create("z");
    cache.finish(cache.begin(&op), &op, &Err(Reason::AlreadyExists.into()));
    assert_eq!(cache.lookup(1, b"z"), Found::Unknown);
}

#[test]
fn a_name_that_is_not_known_may_be_another_one_of_a_linked_file() {
    let cache = listed();
    let linked = Attributes { nlink: 2, mode: 0o100_644, ..attributes(8, 1) };
    cache.store(linked, cache.ticket());
    cache.store(Attributes { nlink: 2, mode: 0o040_755, ..attributes(9, 1) }, cache.ticket());
    let unlink = |parent, name: &'static str| {
        let op = Op::Unlink(api::UnlinkOp { parent, name: name.into(), directory: false });
        cache.finish(cache.begin(&op), &op, &Ok(Applied::default()));
    };
    unlink(1, "a"); // a name of another file
    assert_eq!(cache.attributes(8), Some(linked));
    unlink(5, "x"); // of a directory that was never listed
    assert_eq!(cache.attributes(8), None);
    assert!(cache.attributes(9).is_some());
}

#[test]
fn overlapping_writes_leave_no_attributes() {
    let cache = listed();
    let op = write(2);
    let (first, second) = (cache.begin(&op), cache.begin(&op));
    let ticket = cache.ticket();
    cache.finish(second, &op, &done(attributes(2, 20)));
    cache.finish(first, &op, &done(attributes(2, 10)));
    assert_eq!(cache.attributes(2), None);
    cache.store(attributes(2, 10), ticket);
    assert_eq!(cache.attributes(2), None);
    cache.finish(cache.begin(&op), &op, &done(attributes(2, 30)));
    assert_eq!(cache.attributes(2), Some(attributes(2, 30)));
    // A change by somebody else that came in between: the answer may be from before it.
    let begun = cache.begin(&op);
    cache.inode_changed(2, true);
    cache.finish(begun, &op, &done(attributes(2, 40)));
    assert_eq!(cache.attributes(2), None);
    let op = create("c");
    let begun = cache.begin(&op);
    cache.name_changed(1, b"c");
    cache.finish(begun, &op, &done(attributes(4, 0)));
    assert_eq!(cache.lookup(1, b"c"), Found::Unknown);
    assert!(!cache.has_no_capability(4));
}

#[test]
fn a_directory_that_changes_all_the_time_is_not_listed_all_the_time() {
    let cache = Cache::default();
    let mut listings = 0;
    for _ in 0..10_000 {
        if cache.wants_listing(1).is_some() {
            listings += 1;
            let ticket = cache.ticket();
            cache.name_changed(1, b"x");
            cache.store_listing(1, 1, entries(&[("a", 2)]), ticket);
        }
    }
    assert!(listings < 30, "{listings}");
}

#[test]
fn memory_is_bounded() {
    let cache = Cache::default();
    for dir in 0..400u64 {
        let list: Vec<DirectoryEntry> = (0..1000)
            .map(|i| DirectoryEntry {
                name: format!("{i}").into(),
                next_cookie: i + 1,
                attributes: Some(attributes(1_000_000 + dir * 1000 + i, 1)),
            })
            .collect();
        cache.store_listing(dir, 1, list, cache.ticket());
    }
    let state = cache.state.lock();
    assert!(state.entries <= MAX_ENTRIES && state.attributes.len() <= MAX_ENTRIES);
    assert!(state.dirs.contains_key(&399) && !state.dirs.contains_key(&0));
}
