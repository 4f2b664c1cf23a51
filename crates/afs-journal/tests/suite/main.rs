//! One binary for all tests of the journal on RocksDB.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod contract;
mod damage;
mod kill;
mod space;
mod support;
