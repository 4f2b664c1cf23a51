//! The rules of AetherFS, pure: what a base, an overlay, an operation, a layer and a diff are.
//!
//! Deliberately absent: I/O, clocks, threads, async. Everything here is a function of its arguments, so that a
//! reference model, a simulation and the real server run the same code.

pub mod base;
pub mod codec;
pub mod delta;
pub mod diff;
pub mod extent;
pub mod hash;
pub mod op;
pub mod pmap;
pub mod touched;
pub mod tree;
