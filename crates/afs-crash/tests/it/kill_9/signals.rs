//! A server that is asked to stop under load, and one that is stopped and goes on.

use super::worker::{End, Load};
use super::world::{Round, World};
use crate::programs::{pause, signal};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(500);
/// Longer than a connection without a sign of life lasts.
const STANDSTILL: Duration = Duration::from_secs(10);

#[test]
fn sigterm_under_load_keeps_everything_that_was_answered() {
    let mut world = World::new(4);
    for round in 1..=3 {
        let mount = world.server.mount_dir();
        let end = |server: &mut crate::programs::Server, _: &mut _, load: &Load| {
            pause(LOAD);
            load.killed.store(true, Ordering::SeqCst);
            let status = server.terminate();
            assert!(status.success(), "round {round}: {status}:\n{}", server.log());
            let left: Vec<_> = afs_fuse::mounts().unwrap().into_iter().filter(|m| m.dir == mount).collect();
            assert!(left.is_empty(), "{left:?}");
            End::Stopped
        };
        let findings = world.round(Round::default(), end, |server, _| server.start());
        assert!(findings.is_empty(), "round {round}:\n{}\n{}", findings.join("\n"), world.server.log());
    }
}

#[test]
fn a_server_that_stands_still_for_ten_seconds_loses_nothing() {
    let mut world = World::new(5);
    let end = |server: &mut crate::programs::Server, _: &mut _, _: &Load| {
        pause(LOAD);
        signal(server.pid(), "-STOP");
        pause(STANDSTILL);
        signal(server.pid(), "-CONT");
        pause(LOAD);
        End::Alive
    };
    let findings = world.round(Round::default(), end, |_, _| {});
    assert!(findings.is_empty(), "{}\n{}", findings.join("\n"), world.server.log());
    // And everybody goes on.
    let end = |_: &mut _, _: &mut _, _: &Load| {
        pause(LOAD);
        End::Alive
    };
    let before = world.acknowledged;
    let findings = world.round(Round::default(), end, |_, _| {});
    assert!(findings.is_empty(), "{}\n{}", findings.join("\n"), world.server.log());
    assert!(world.acknowledged > before + 100, "{} acknowledgements", world.acknowledged - before);
}
