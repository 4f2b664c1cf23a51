//! A full disk stops writers, not readers, and heals by itself. Runs in a small tmpfs of its own, where the machine allows that.
