//! A launch that is not made again as it was made, and one that is.

use super::script::{
    Outcome, Script, completed, exited, healthy, launched_as, load, no, restart_due, start, stop,
    vacated,
};
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::input::{Effect, Input, StopMode};
use crate::domain::report::ProcessReport;
use crate::domain::state::ServiceState;
use crate::domain::trust::{LaunchMethod, Memory, Recall};

/// The launch of this number runs, and has not served yet.
fn loading(s: &mut Script, number: u64, recall: Recall) {
    s.on(launched_as(number, LaunchMethod::Tree, recall));
}

/// It ends by itself, and the next one is launched.
fn fails(s: &mut Script, number: u64, exit: Exit) -> Outcome {
    let incarnation = no(number);
    s.on(Input::Process(ProcessReport::Exited { incarnation, exit }));
    s.on(vacated(number));
    s.on(restart_due(number))
}

fn begun() -> Script {
    let mut s = Script::stopped();
    assert_eq!(s.on(start()).method(), Some(LaunchMethod::Ahead));
    s
}

fn compares(outcome: &Outcome) -> bool {
    outcome.effects.iter().any(|effect| matches!(effect, Effect::Compare { .. }))
}

fn before(text: &str) -> Recall {
    Recall::Completion(text.to_owned())
}

#[test]
fn a_warm_launch_that_fails_is_followed_by_one_that_forks_less_which_is_kept_if_it_serves() {
    let mut s = begun();
    loading(&mut s, 1, Recall::NotCompared);
    assert_eq!(fails(&mut s, 1, Exit::Signal(11)).method(), Some(LaunchMethod::Front));
    s.on(launched_as(2, LaunchMethod::Front, Recall::NotCompared));
    let served = s.on(healthy(2));
    assert_eq!(served.memories(), [&Memory::AtMost(LaunchMethod::Front)]);
    let instead = LaunchMethod::Front;
    assert!(served.events.contains(&EventKind::LaunchDistrusted { instead }));
    assert_eq!(fails(&mut s, 2, Exit::Signal(9)).method(), Some(LaunchMethod::Front));
}

#[test]
fn one_that_went_ahead_and_fails_is_followed_by_one_that_waits_for_its_order() {
    let mut s = begun();
    s.on(launched_as(1, LaunchMethod::Ahead, Recall::NotCompared));
    assert_eq!(fails(&mut s, 1, Exit::Code(1)).method(), Some(LaunchMethod::Tree));
    loading(&mut s, 2, Recall::NotCompared);
    assert_eq!(s.on(healthy(2)).memories(), [&Memory::AtMost(LaunchMethod::Tree)]);
    // Another model may bear it.
    let prepared = s.on(load("org/other"));
    let is_ahead = |it: &Effect| matches!(it, Effect::Prepare { method: LaunchMethod::Ahead, .. });
    assert!(prepared.effects.iter().any(is_ahead));
}

#[test]
fn a_model_that_cannot_be_loaded_takes_no_trust_from_the_one_that_comes_back() {
    let mut s = begun();
    loading(&mut s, 1, Recall::NotCompared);
    s.on(healthy(1));
    for number in [2, 4] {
        s.on(load("org/other"));
        s.on(exited(number - 1));
        s.on(vacated(number - 1));
        s.on(launched_as(number, LaunchMethod::Ahead, Recall::NotCompared));
        let incarnation = no(number);
        s.on(Input::Process(ProcessReport::Exited { incarnation, exit: Exit::Code(1) }));
        assert_eq!(s.on(vacated(number)).method(), Some(LaunchMethod::Ahead));
        loading(&mut s, number + 1, Recall::NotCompared);
        assert!(s.on(healthy(number + 1)).memories().is_empty());
    }
}

#[test]
fn what_somebody_kills_while_it_loads_is_not_held_against_how_it_was_launched() {
    for signal in [9, 15] {
        let mut s = begun();
        loading(&mut s, 1, Recall::NotCompared);
        assert_eq!(fails(&mut s, 1, Exit::Signal(signal)).method(), Some(LaunchMethod::Ahead));
    }
}

#[test]
fn a_launch_that_came_to_no_process_in_time_says_nothing_about_how_it_would_have_been_made() {
    for (is_made, next) in [(false, LaunchMethod::Ahead), (true, LaunchMethod::Front)] {
        let mut s = begun();
        if is_made {
            loading(&mut s, 1, Recall::NotCompared);
        }
        assert_eq!(s.wait_in_silence(42), [ServiceState::Crashed]);
        s.on(vacated(1));
        assert_eq!(s.on(restart_due(1)).method(), Some(next));
    }
}

#[test]
fn what_was_launched_cold_for_want_of_a_warm_process_says_nothing_about_warm_launches() {
    let mut s = begun();
    s.on(launched_as(1, LaunchMethod::Cold, Recall::NotCompared));
    assert_eq!(fails(&mut s, 1, Exit::Code(1)).method(), Some(LaunchMethod::Ahead));
}

#[test]
fn a_launch_that_is_to_be_compared_completes_a_prompt_once_it_serves() {
    let mut s = begun();
    loading(&mut s, 1, Recall::Nothing);
    assert!(compares(&s.on(healthy(1))));
    let kept = s.on(completed(1, "one"));
    assert_eq!(kept.memories(), [&Memory::Completion("one".to_owned())]);

    let mut s = begun();
    loading(&mut s, 1, Recall::NotCompared);
    assert!(!compares(&s.on(healthy(1))));
}

#[test]
fn a_launch_that_answers_as_those_before_it_goes_on() {
    let mut s = begun();
    loading(&mut s, 1, before("one"));
    s.on(healthy(1));
    assert!(s.on(completed(1, "one")).is_nothing());
    assert_eq!(s.state(), ServiceState::Running);
}

#[test]
fn a_launch_that_cannot_be_asked_goes_on() {
    let mut s = begun();
    loading(&mut s, 1, before("one"));
    s.on(healthy(1));
    assert!(s.on(Input::Completed(no(1), None)).is_nothing());
    // Of another launch.
    assert!(s.on(completed(7, "other")).is_nothing());
}

/// A launch has answered otherwise, twice, and another one runs.
fn differing() -> Script {
    let mut s = begun();
    loading(&mut s, 1, before("one"));
    s.on(healthy(1));
    let asked_again = s.on(completed(1, "other"));
    assert!(compares(&asked_again));
    assert!(asked_again.path.is_empty(), "it may be chance");
    assert_eq!(s.on(completed(1, "other")).path, [ServiceState::Crashed]);
    s.on(exited(1));
    s.on(vacated(1));
    assert_eq!(s.on(restart_due(1)).method(), Some(LaunchMethod::Cold));
    s.on(launched_as(2, LaunchMethod::Cold, before("one")));
    let served = s.on(healthy(2));
    assert!(served.memories().is_empty() && compares(&served));
    s
}

#[test]
fn a_warm_launch_that_answers_otherwise_than_a_cold_one_is_the_last() {
    let mut s = differing();
    let found = s.on(completed(2, "one"));
    assert_eq!(found.memories(), [&Memory::AtMost(LaunchMethod::Cold)]);
    assert_eq!(fails(&mut s, 2, Exit::Code(1)).method(), Some(LaunchMethod::Cold));
}

#[test]
fn where_a_cold_launch_answers_otherwise_too_answers_are_not_compared_any_more() {
    let mut s = differing();
    assert_eq!(s.on(completed(2, "another")).memories(), [&Memory::NotComparable]);
    assert_eq!(fails(&mut s, 2, Exit::Code(1)).method(), Some(LaunchMethod::Ahead));
}

#[test]
fn what_is_stopped_while_it_loads_is_not_held_against_how_it_was_launched() {
    let mut s = begun();
    loading(&mut s, 1, Recall::NotCompared);
    s.on(stop(StopMode::Graceful));
    s.on(exited(1));
    s.on(vacated(1));
    assert_eq!(s.on(start()).method(), Some(LaunchMethod::Ahead));
}
