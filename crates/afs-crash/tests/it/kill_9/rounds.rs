//! The rounds of kills, and what must make them fail.

use super::chance::Chance;
use super::surfaces::Surface;
use super::worker::{End, Load};
use super::world::{Round, World, git, pause_at_random};
use crate::programs::{Server, pause};
use afs_client::api;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest load before a kill.
const LOAD: Duration = Duration::from_millis(400);
/// The longest start before a kill in the middle of it.
const STARTING: Duration = Duration::from_millis(150);
/// Every so many rounds everything is looked at, and compared after a clean and an unclean restart.
const COLD: u64 = 25;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn kill(server: &mut Server, chance: &mut Chance, load: &Load) -> End {
    pause_at_random(chance, LOAD);
    load.killed.store(true, Ordering::SeqCst);
    server.kill();
    End::Killed
}

/// Starts the server, sometimes after it was killed while it started.
fn start(server: &mut Server, chance: &mut Chance) {
    while chance.one_in(6) {
        drop(server.spawn());
        pause_at_random(chance, STARTING);
        server.kill();
    }
    server.start();
}

fn assert_nothing(world: &World, findings: &[String], at: &str) {
    if !findings.is_empty() {
        panic!(
            "{at}: {} findings\n{}\nthe server says:\n{}",
            findings.len(),
            findings.join("\n"),
            world.server.log()
        );
    }
}

#[test]
fn two_hundred_kills_lose_nothing_acknowledged() {
    let (rounds, seed) = (from_environment("AFS_KILL_ROUNDS", 200), from_environment("AFS_KILL_SEED", 1));
    let began = Instant::now();
    let mut world = World::new(seed);
    println!("seed {seed}, {rounds} rounds");
    for round in 1..=rounds {
        let how = Round { has_import: world.chance.one_in(8), looks_at_all: round % COLD == 0 };
        let findings = world.round(how, kill, start);
        assert_nothing(&world, &findings, &format!("seed {seed}, round {round}"));
        if round % COLD == 0 {
            restart_and_compare(&mut world);
            println!("round {round}: {} acknowledged, {:.1?}", world.acknowledged, began.elapsed());
        }
    }
    assert!(
        world.acknowledged > rounds * 50,
        "only {} acknowledgements: the rounds say too little",
        world.acknowledged
    );
    let counts = &world.life.counts;
    assert!(rounds < 100 || counts.len() == 7, "not everything was tried: {counts:?}");
    println!(
        "{} starts, the slowest {:.2?}; {} acknowledgements checked; {counts:?}; {} imports, {} of them cut off",
        world.server.starts,
        world.server.slowest_start,
        world.acknowledged,
        world.imports.done,
        world.imports.resumed
    );
    leave(world);
}

/// RAM and disk agree: after a clean stop, and after a kill of an idle server, everything looks as before.
fn restart_and_compare(world: &mut World) {
    let before = world.digest();
    let status = world.server.terminate();
    assert!(status.success(), "SIGTERM ended the server with {status}:\n{}", world.server.log());
    world.server.start();
    assert!(world.digest() == before, "a clean restart has changed something:\n{before}\n{}", world.digest());
    world.server.kill();
    world.server.start();
    assert!(world.digest() == before, "a kill of an idle server has changed something");
}

/// The last commit reaches its repository, everything ends well, and nothing is left over.
fn leave(mut world: World) {
    if let Some(commit) = world.life.last_commit() {
        let promote =
            api::PromoteRequest { commit_id: commit.into(), branch: "killed".into(), ..Default::default() };
        let promoted = world.runtime.block_on(world.client.promote(promote)).unwrap();
        let repository = world.repository();
        assert_eq!(git(&repository, &["rev-parse", "killed"]), promoted.git_oid);
        git(&repository, &["fsck", "--strict"]);
        let paths = git(&repository, &["ls-tree", "-r", "--name-only", "killed"]);
        assert!(paths.lines().any(|path| path == "src/main.rs"), "{paths}");
    }
    for remote in world.take_remotes() {
        let (status, said) = remote.stop();
        // After so many kills a mount has lost something, and says so to whoever unmounts, whatever its fsyncs have said before.
        let has_lost = said.contains("lost changes of this mount");
        assert_eq!(status.success(), !has_lost, "a remote mount ended with {status}: {said}");
        assert!(status.success() || status.code() == Some(1), "a remote mount ended with {status}: {said}");
    }
    let status = world.server.terminate();
    assert!(status.success(), "{status}:\n{}", world.server.log());
    assert!(afs_fuse::mounts().unwrap().is_empty(), "{:?}", afs_fuse::mounts());
    let temp = std::fs::read_dir(world.server.data_dir().join("engine/temp")).unwrap();
    // The lock file is there for good.
    let left: Vec<_> = temp.flatten().filter(|entry| entry.file_name() != "lock").collect();
    assert!(left.is_empty(), "imports have left {left:?}");
}

/// Negative control: clients that write every answer down as durable, on surfaces whose answers mean less. That is what a server would look like
/// that answers before its journal has the step.
#[test]
fn answers_before_the_journal_are_caught_within_ten_kills() {
    let mut world = World::new(2);
    for worker in &mut world.workers {
        match &mut worker.surface {
            Surface::Http { is_durable, .. } => *is_durable = false,
            Surface::Mount { .. } | Surface::Grpc { .. } => {}
        }
        worker.believes_all = true;
    }
    for round in 1..=10 {
        let findings = world.round(Round::default(), kill, |server, _| server.start());
        if findings.iter().any(|finding| finding.contains("were acknowledged")) {
            println!("caught in round {round}: {}", findings[0]);
            return;
        }
        assert_nothing(&world, &findings, "another finding than the one that must come");
    }
    panic!("ten kills have not shown that answers came too early");
}

/// Negative control: the data directory of one round before, which the journal itself cannot tell from a good one.
#[test]
fn a_directory_that_is_one_round_old_is_caught() {
    let mut world = World::new(3);
    let findings = world.round(Round::default(), kill, |server, _| server.start());
    assert_nothing(&world, &findings, "the first round");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    let (data, old) = (world.server.data_dir(), world.server.data_dir().with_extension("old"));
    world.server.kill();
    copy(&data, &old);
    world.server.start();
    let late = |server: &mut Server, _: &mut Chance, load: &Load| {
        pause(LOAD);
        load.killed.store(true, Ordering::SeqCst);
        server.kill();
        End::Killed
    };
    let findings = world.round(Round::default(), late, |server, _| {
        std::fs::remove_dir_all(&data).unwrap();
        copy(&old, &data);
        server.start();
    });
    let told = findings.iter().filter(|finding| finding.contains("were acknowledged")).count();
    assert!(told >= 4, "every API client has lost what it was told: {findings:#?}");
}
