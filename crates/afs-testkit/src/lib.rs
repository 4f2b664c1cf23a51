//! Development only. A reference model of sessions that is too simple to be wrong, and random histories of file
//! operations, forks, checkpoints, restores, evictions and restarts that compare an engine with it, answer by answer.
//!
//! A difference is printed with its seed and step; the same seed gives the same history for ever on the same code.
//! Deliberately absent: any adapter to a real engine; those live with the engines' tests.

pub mod call;
pub mod dice;
pub mod history;
pub mod model;
pub mod spec;
