//! One binary for all tests of the journal on RocksDB.

mod contract;
mod damage;
mod kill;
mod space;
mod support;
