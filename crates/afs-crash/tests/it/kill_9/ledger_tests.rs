//! The ledger itself: each kind of damage that a crash could do is found.

use super::area::{Area, Step};
use super::ledger::{Ending, Instants, Ledger, holes};

fn append(text: &str) -> Step {
    Step::Append { path: "f".into(), bytes: text.into() }
}

/// Makes a file and appends to it; the steps up to `durable` are acknowledged as that.
fn ledger(instants: &Instants, steps: &[Step], durable: usize) -> Ledger {
    let mut ledger = Ledger::starting_at(Area::default());
    for (number, step) in steps.iter().enumerate() {
        ledger.begin(step.clone(), instants.now());
        ledger.answered(instants.now());
        if number + 1 == durable {
            ledger.is_durable();
        }
    }
    ledger
}

fn state(steps: &[Step]) -> Area {
    let mut area = Area::default();
    steps.iter().for_each(|step| assert!(area.apply(step)));
    area
}

fn history() -> Vec<Step> {
    vec![Step::Create("f".into()), append("a"), append("b"), append("c")]
}

#[test]
fn a_lost_acknowledgement_a_gap_and_a_second_effect_are_found() {
    let steps = history();
    let ledger = ledger(&Instants::default(), &steps, 3);
    let fit = |area: Area| ledger.fit(&area.shown(), Ending::None).map(|(fit, _)| fit.most);
    assert_eq!(fit(state(&steps)), Ok(4));
    assert_eq!(fit(state(&steps[..3])), Ok(3));
    assert!(fit(state(&steps[..2])).unwrap_err().contains("3 were acknowledged"));
    let gap = [&steps[..2], &steps[3..]].concat();
    let twice = [&steps[..], &steps[3..]].concat();
    for wrong in [state(&gap), state(&twice), Area::default()] {
        assert!(fit(wrong).is_err());
    }
}

#[test]
fn a_change_set_of_which_a_part_is_there_is_found() {
    let set = vec![append("x"), Step::Mkdir("d".into())];
    let mut ledger = ledger(&Instants::default(), &history(), 4);
    ledger.begin(Step::Set(set.clone()), 100);
    let whole = state(&[history(), set.clone()].concat());
    let part = state(&[&history()[..], &set[..1]].concat());
    assert!(ledger.fit(&state(&history()).shown(), Ending::Unknown).is_ok());
    assert!(ledger.fit(&whole.shown(), Ending::Unknown).is_ok());
    assert!(ledger.fit(&part.shown(), Ending::Unknown).is_err());
    // Answered after the restart: it must be there.
    assert!(ledger.fit(&state(&history()).shown(), Ending::Done).is_err());
}

#[test]
fn a_later_step_of_one_without_an_earlier_step_of_another_is_found() {
    let instants = Instants::default();
    let first = ledger(&instants, &history(), 0);
    let second = ledger(&instants, &history(), 0);
    let fit = |ledger: &Ledger, kept: usize| {
        ledger.fit(&state(&history()[..kept]).shown(), Ending::None).map(|(fit, _)| fit).unwrap()
    };
    let found =
        |a, b| holes(&[("first", &first, fit(&first, a)), ("second", &second, fit(&second, b))]).len();
    assert_eq!((found(4, 4), found(4, 0), found(2, 0)), (0, 0, 0));
    assert_eq!((found(3, 1), found(0, 4)), (1, 1));
}

#[test]
fn a_fork_of_an_instant_that_never_was_is_found() {
    let steps = history();
    let ledger = ledger(&Instants::default(), &steps, 4);
    // Steps begin at 0, 2, 4, 6 and are answered at 1, 3, 5, 7.
    let cut = |kept: usize, began, answered| {
        ledger.fit_cut(&state(&steps[..kept]).shown(), began, answered).is_ok()
    };
    assert!(cut(2, 4, 5) && cut(3, 4, 5));
    assert!(!cut(1, 4, 5), "a step that had been answered before the fork began is missing");
    assert!(!cut(4, 4, 5), "a step that began after the fork was answered is there");
}

#[test]
fn hard_links_are_told_from_copies() {
    let link = state(&[history(), vec![Step::Link { from: "f".into(), to: "g".into() }]].concat());
    let bytes = b"abc".to_vec();
    let copy = state(&[history(), vec![Step::Replace { path: "g".into(), bytes }]].concat());
    assert_ne!(link.shown(), copy.shown());
}
