//! When it is we who stood still (SIGSTOP, a suspended machine, a frozen cgroup): what we did not
//! hear meanwhile says nothing of vLLM.

use super::script::{Script, drained, healthy, loader, no, silence_due, stop};
use crate::domain::input::{Effect, Input, StopMode, Timer};
use crate::domain::loading::LoadNews;
use crate::domain::state::ServiceState;

#[test]
fn a_standstill_in_the_last_quarter_is_not_taken_for_vllms_silence() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Began));
    // Looked at after 10, 110, 210 and 310 s.
    s.wait_in_silence(310);
    s.wait(3600);
    let woken = s.on(silence_due(1));
    assert!(woken.path.is_empty(), "{woken:?}");
}

#[test]
fn a_minute_of_standstill_before_the_first_output_is_ours() {
    let mut s = Script::starting();
    s.wait_in_silence(30);
    s.wait(60);
    let woken = s.on(silence_due(1));
    assert!(woken.path.is_empty(), "{woken:?}");
    assert!(s.wait_in_silence(9).is_empty());
    assert_eq!(s.wait_in_silence(10), [ServiceState::Crashed]);
}

#[test]
fn a_standstill_after_the_last_question_is_ours_as_well() {
    let mut s = Script::starting();
    s.wait_in_silence(40);
    s.wait(60);
    let woken = s.on(silence_due(1));
    assert!(woken.path.is_empty(), "{woken:?}");
}

#[test]
fn a_silent_load_is_asked_and_probed_once_more_before_it_is_judged() {
    let mut s = Script::starting();
    s.wait_in_silence(39);
    s.wait(1);
    let asked = s.on(silence_due(1));
    assert!(asked.path.is_empty(), "{asked:?}");
    let is_sign = |it: &&Effect| matches!(it, Effect::Sample { .. } | Effect::Probe { .. });
    assert_eq!(asked.effects.iter().filter(is_sign).count(), 2);
    assert!(asked.scheduled(Timer::Silence).is_some_and(|after| after.as_secs() == 2));
    assert_eq!(s.clone().wait_in_silence(2), [ServiceState::Crashed]);
    assert_eq!(s.on(healthy(1)).path, [ServiceState::Running]);
}

#[test]
fn what_was_said_before_the_last_look_counts_though_it_is_heard_after_the_question() {
    let mut s = Script::starting();
    s.wait_in_silence(40);
    s.on(loader(1, LoadNews::Began));
    assert!(s.wait_in_silence(399).is_empty());
}

#[test]
fn a_standstill_of_ours_does_not_use_up_the_way_down() {
    let mut s = Script::running();
    s.on(Input::ShutDown);
    s.wait(60);
    let end = s.on(Input::Due(Timer::End, no(1)));
    assert!(!end.effects.contains(&Effect::End), "{end:?}");
    assert!(end.scheduled(Timer::End).is_some(), "{end:?}");
    s.wait(60);
    let end = s.on(Input::Due(Timer::End, no(1)));
    assert!(end.effects.contains(&Effect::End), "it is put off once: {end:?}");
}

#[test]
fn a_standstill_of_ours_does_not_use_up_the_drain() {
    let mut s = Script::running();
    s.on(Input::ShutDown);
    s.wait(20);
    let due = s.on(Input::Due(Timer::Drain, no(1)));
    assert!(!orders_stop(&due.effects), "{due:?}");
    // The way down waits for it: 15 s more than the drain may take.
    s.wait(5);
    assert!(s.on(Input::Due(Timer::End, no(1))).is_nothing());
    s.wait(60);
    let due = s.on(Input::Due(Timer::Drain, no(1)));
    assert!(orders_stop(&due.effects), "it is put off once: {due:?}");
}

fn orders_stop(effects: &[Effect]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Stop { .. }))
}

#[test]
fn a_standstill_while_draining_leaves_the_grace_alone() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    s.wait(60);
    let due = s.on(drained(1));
    let grace = due.effects.iter().find_map(|it| match it {
        Effect::Stop { grace, .. } => Some(grace.as_secs()),
        _ => None,
    });
    assert_eq!(grace, Some(10));
}
