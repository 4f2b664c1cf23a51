//! RocksJournal keeps the contract of the port.

use crate::support::{RocksSubject, options};
use afs_journal::RocksJournal;
use afs_store::Journal;
use afs_store::contract::run_journal_contract;
use afs_types::Reason;

#[test]
fn the_journal_on_rocksdb_keeps_the_contract() {
    run_journal_contract(RocksSubject::new);
}

#[test]
fn a_second_opening_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksJournal::open(dir.path(), options()).unwrap();
    let error = RocksJournal::open(dir.path(), options()).map(drop).unwrap_err();
    assert_eq!(error.reason, Reason::InUse);
    let own = format!("process {}", std::process::id());
    assert!(error.message().contains("another server") && error.message().contains(&own), "{error:?}");
    first.close().unwrap();
    drop(first);
    RocksJournal::open(dir.path(), options()).unwrap();
}

#[test]
fn each_opening_is_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    for epoch in 1..6 {
        let journal = RocksJournal::open(dir.path(), options()).unwrap();
        assert_eq!((journal.durable().epoch, journal.durable().idx), (epoch, 0));
    }
}
