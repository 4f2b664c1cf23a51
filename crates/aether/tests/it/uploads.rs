//! Uploads of the program against the real server, and a program that ends before they do.

use crate::bed::{pause, sh};
use crate::real::Real;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

const OLD: &str = "what was there\n";

#[test]
fn a_program_that_is_stopped_while_it_uploads_changes_nothing() {
    let real = Real::start();
    // More than the program sends in one piece.
    let half = vec![b'x'; 600_000];
    let target = format!("{}:/cfg", real.session(None));
    std::fs::write(real.bed.path("old"), OLD).unwrap();
    real.bed.run(&["fs", "put", "old", &target]);
    for round in 0..8 {
        for signal in ["INT", "TERM", "KILL"] {
            let mut child =
                real.bed.bare(&["fs", "put", "-", &target]).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            // Nearly all of it is taken when this returns.
            input.write_all(&half).unwrap();
            pause(Duration::from_millis(15 * round));
            sh(&real.bed.path(""), &format!("kill -s {signal} {}", child.id()));
            let status = child.wait().unwrap();
            assert!(!status.success(), "{signal}: {status}");
            // Not before: the end of its input is the end of a whole upload.
            drop(input);
        }
        for _ in 0..5 {
            assert!(real.bed.run(&["fs", "cat", &target]) == OLD, "round {round}");
            pause(Duration::from_millis(20));
        }
    }
    let mut child = real.bed.bare(&["fs", "put", "-", &target]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&half).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(real.bed.run(&["fs", "cat", &target]).len(), half.len());
}
