//! The engine as a whole, on a simulated journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod expiry;
mod hooks;
mod lifecycle;
mod model;
mod paths;
mod races;
mod ram;
mod rig;
mod sealing;
mod sources;
mod unnamed;
