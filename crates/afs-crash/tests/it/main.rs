//! The crash suites: one binary.

#[cfg(test)]
mod power_cut;
