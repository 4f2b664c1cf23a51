//! The engine as a whole, on a simulated journal.

mod lifecycle;
mod rig;
