//! The only place of this program that writes to stdout (data) and stderr (talk).

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

/// A line of data.
pub(crate) fn write_line(text: Arguments<'_>) {
    // A closed pipe (`| head`) is the reader's wish, not our failure.
    let _ = writeln!(stdout(), "{text}");
}

/// A line of talk.
pub(crate) fn write_note(text: Arguments<'_>) {
    let _ = writeln!(stderr(), "{text}");
}

/// `println!` for data.
macro_rules! line { ($($t:tt)*) => { $crate::out::write_line(format_args!($($t)*)) }; }
/// `eprintln!` for talk.
macro_rules! note { ($($t:tt)*) => { $crate::out::write_note(format_args!($($t)*)) }; }

pub(crate) use {line, note};
