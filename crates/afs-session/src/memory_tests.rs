//! The rule, step by step; and threads that wait for it.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const CALL: Waits = Waits::OnCallThread;
const ALL: [Use; LANES] = [Use::Small, Use::Large, Use::Patches, Use::Kept, Use::Rules];

fn rule() -> Rule {
    Rule::new([10, 100, 20, 30, 40], 2)
}

#[test]
fn the_small_never_wait_for_the_large() {
    let mut rule = rule();
    assert_eq!(rule.ask(Use::Large, 100, CALL), Asked::Granted);
    assert_eq!(rule.ask(Use::Large, 100, CALL), Asked::Waits(1));
    assert_eq!(rule.ask(Use::Small, 10, CALL), Asked::Granted);
    assert_eq!(rule.ask(Use::Patches, 20, CALL), Asked::Granted);
    assert!(rule.grow(Use::Kept, 30) && !rule.grow(Use::Kept, 1));
    assert!(rule.grow(Use::Rules, 40), "a dry run takes nothing from searches");
}

#[test]
fn the_first_who_waits_goes_first() {
    let mut rule = rule();
    assert_eq!(rule.ask(Use::Large, 60, CALL), Asked::Granted);
    assert_eq!(rule.ask(Use::Large, 60, CALL), Asked::Waits(1));
    assert_eq!(rule.ask(Use::Large, 10, CALL), Asked::Waits(2), "it would starve the one before it");
    rule.give(Use::Large, 60);
    assert!(!rule.is_waiting(Use::Large, 1) && !rule.is_waiting(Use::Large, 2));
    assert_eq!(rule.lanes[1].used, 70);
}

#[test]
fn who_leaves_lets_the_next_go() {
    let mut rule = rule();
    assert_eq!(rule.ask(Use::Large, 60, CALL), Asked::Granted);
    assert_eq!(rule.ask(Use::Large, 60, CALL), Asked::Waits(1));
    assert_eq!(rule.ask(Use::Large, 40, CALL), Asked::Waits(2));
    rule.leave(Use::Large, 1);
    assert!(!rule.is_waiting(Use::Large, 2));
    assert_eq!(rule.lanes[1].used, 100);
}

#[test]
fn few_wait_on_threads_of_others() {
    for of in ALL {
        let mut rule = rule();
        assert_eq!(rule.ask(of, 1000, CALL), Asked::Granted, "more than there is: alone");
        assert_eq!(rule.ask(of, 1, CALL), Asked::Waits(1));
        assert_eq!(rule.ask(of, 1, Waits::OnOwnThread), Asked::Waits(2));
        assert_eq!(rule.ask(of, 1, CALL), Asked::Waits(3));
        assert_eq!(rule.ask(of, 1, CALL), Asked::Full, "{of:?}");
        assert_eq!(rule.ask(of, 1, Waits::OnOwnThread), Asked::Waits(4));
    }
}

#[test]
fn who_asks_for_nothing_never_waits() {
    for of in ALL {
        let mut rule = rule();
        assert_eq!(rule.ask(of, 1000, CALL), Asked::Granted);
        assert_eq!(rule.ask(of, 1, CALL), Asked::Waits(1));
        assert_eq!(rule.ask(of, 1, CALL), Asked::Waits(2));
        assert_eq!(rule.ask(of, 0, CALL), Asked::Granted, "{of:?}: others wait, as many as may");
        assert!(rule.is_waiting(of, 1) && rule.is_waiting(of, 2));
    }
}

#[test]
fn whatever_happens_no_lane_holds_more_than_it_has() {
    let mut rule = rule();
    let (mut seed, mut held, mut waiting) = (7_u64, Vec::new(), Vec::new());
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let of = ALL[(seed >> 33) as usize % LANES];
        let bytes = (seed >> 40) as usize % (rule.lane(of).most + 1);
        match (seed >> 60) % 4 {
            0 | 1 => match rule.ask(of, bytes, CALL) {
                Asked::Granted => held.push((of, bytes)),
                Asked::Waits(number) => waiting.push((of, bytes, number)),
                Asked::Full => {}
            },
            2 if !held.is_empty() => {
                let (of, bytes) = held.swap_remove((seed >> 20) as usize % held.len());
                rule.give(of, bytes);
            }
            _ if !waiting.is_empty() => {
                let (of, _, number) = waiting.swap_remove((seed >> 20) as usize % waiting.len());
                rule.leave(of, number);
            }
            _ => {}
        }
        waiting.retain(|(of, bytes, number)| {
            let waits = rule.is_waiting(*of, *number);
            if !waits {
                held.push((*of, *bytes));
            }
            waits
        });
        for of in ALL {
            let sum: usize = held.iter().filter(|(u, _)| *u == of).map(|(_, b)| b).sum();
            let lane = rule.lane(of);
            assert_eq!(lane.used, sum);
            assert!(sum <= lane.most);
            let stuck = lane.queue.front().is_some_and(|claim| lane.has(claim.bytes));
            assert!(!stuck, "somebody waits although there is room");
        }
    }
}

#[test]
fn threads_wait_and_go_on() {
    let memory = Memory::with(Rule::new([10, 100, 0, 0, 0], 64), Duration::from_secs(60));
    let (now, highest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let room = memory.take_of(Use::Large, 40, (CALL, memory.until())).unwrap();
                    highest.fetch_max(now.fetch_add(40, Ordering::SeqCst) + 40, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(40, Ordering::SeqCst);
                    drop(room);
                }
            });
        }
    });
    assert!(highest.load(Ordering::SeqCst) <= 100);
    assert_eq!(memory.rule.lock().lanes[1].used, 0);
}

#[test]
fn who_waits_too_long_is_told_the_limit() {
    let memory = Memory::with(Rule::new([10, 100, 0, 0, 0], 1), Duration::from_millis(20));
    let mut room = memory.take_of(Use::Large, 90, (CALL, memory.until())).unwrap();
    let error = memory.take_of(Use::Large, 20, (CALL, memory.until())).err().unwrap();
    assert_eq!((error.reason, error.metadata()), (Reason::QueueFull, &[("limit", "100".to_owned())][..]));
    assert!(room.try_grow(10) && !room.try_grow(1));
    assert_eq!(room.grow(1).unwrap_err().reason, Reason::QueueFull);
    drop(room);
    memory.take_of(Use::Large, 100, (CALL, memory.until())).unwrap();
}

#[test]
fn one_call_has_one_patience_for_all_its_waits() {
    let patience = Duration::from_millis(100);
    let memory = Memory::with(Rule::new([10, 100, 0, 0, 0], 1), patience);
    let held = memory.take_of(Use::Large, 100, (CALL, memory.until())).unwrap();
    let (until, begin) = (memory.until(), Instant::now());
    for _ in 0..100 {
        assert_eq!(memory.take_of(Use::Large, 1, (CALL, until)).err().unwrap().reason, Reason::QueueFull);
    }
    assert!(begin.elapsed() < 50 * patience, "each wait had a patience of its own");
    drop(held);
    memory.take_of(Use::Large, 1, (CALL, until)).expect("what is there needs no patience");
}

#[test]
fn what_is_not_needed_is_given_back_at_once() {
    let memory = Memory::with(Rule::new([0, 0, 0, 0, 100], 1), Duration::from_millis(20));
    let (mut one, mut other) = (memory.rules(), memory.rules());
    assert!(one.try_grow(90) && !other.try_grow(20));
    one.shrink(80);
    assert!(other.try_grow(90) && !other.try_grow(1));
    one.shrink(1000);
    assert!(other.try_grow(10), "no more than it had");
    assert_eq!(memory.rule.lock().lanes[Use::Rules as usize].used, 100);
    other.clear();
    drop((one, other));
    assert_eq!(memory.rule.lock().lanes[Use::Rules as usize].used, 0);
}
