//! A stop works in every state, and is not undone by what comes late.

use std::time::Duration;

use super::cases::{Situation, machine_in};
use super::script::{
    Script, drained, exited, healthy, launch_failed, launched, lingered, no, noon, nothing_found,
    remnant_found, restart, restart_due, start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::Phase;
use crate::domain::input::{Effect, Input, StopMode, Timer};
use crate::domain::state::ServiceState;

#[test]
fn a_stop_leads_to_stopped_from_every_situation() {
    for &situation in Situation::ALL {
        for mode in [StopMode::Graceful, StopMode::Immediate] {
            let mut s = Script { machine: machine_in(situation), now: noon() };
            s.on(stop(mode));
            // Whatever was being looked for turns out to be there, and then to be gone.
            s.on(remnant_found(1));
            s.on(vacated(1));
            assert_eq!(s.state(), ServiceState::Stopped, "from {situation:?}");
            let late = [restart_due(1), launched(1), exited(1), healthy(1), nothing_found()];
            for input in late {
                assert!(s.on(input).is_nothing(), "from {situation:?}");
            }
        }
    }
}

#[test]
fn stopping_what_is_stopped_does_nothing() {
    let mut s = Script::stopped();
    assert!(s.on(stop(StopMode::Graceful)).is_nothing());
}

#[test]
fn a_stop_says_how_far_the_launch_had_come() {
    let mut s = Script::starting();
    let effects = s.on(stop(StopMode::Graceful)).effects;
    assert_eq!(stop_order(&effects), Some((Phase::Loading, Duration::from_secs(10))));
    let mut s = Script::running();
    assert_eq!(stop_order(&s.on(stop(StopMode::Graceful)).effects), None);
    let effects = s.on(drained(1)).effects;
    assert_eq!(stop_order(&effects), Some((Phase::Serving, Duration::from_secs(10))));
}

/// The phase and the grace of a graceful stop that is ordered.
fn stop_order(effects: &[Effect]) -> Option<(Phase, Duration)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Stop { phase, mode: StopMode::Graceful, grace, .. } => Some((*phase, *grace)),
        _ => None,
    })
}

#[test]
fn a_serving_launch_is_stopped_when_its_requests_have_ended() {
    let mut s = Script::running();
    let asked = s.on(stop(StopMode::Graceful));
    assert_eq!(asked.path, [ServiceState::Stopping]);
    assert!(asked.effects.contains(&Effect::Drain { incarnation: no(1) }));
    assert_eq!(asked.scheduled(Timer::Drain), Some(Duration::from_secs(10)));
    s.wait(4);
    let order = stop_order(&s.on(drained(1)).effects);
    assert_eq!(order, Some((Phase::Serving, Duration::from_secs(6))), "the grace is one for both");
    assert!(s.on(drained(1)).is_nothing());
    assert!(s.on(Input::Due(Timer::Drain, no(1))).is_nothing());
}

#[test]
fn requests_that_do_not_end_are_waited_for_as_long_as_the_grace_period() {
    let mut s = Script::running();
    s.on(restart());
    s.wait(10);
    let order = stop_order(&s.on(Input::Due(Timer::Drain, no(1))).effects);
    assert_eq!(order, Some((Phase::Serving, Duration::from_secs(2))));
}

#[test]
fn an_immediate_stop_waits_for_no_request() {
    for first in [StopMode::Graceful, StopMode::Immediate] {
        let mut s = Script::running();
        s.on(stop(first));
        let effects = s.on(stop(StopMode::Immediate)).effects;
        assert!(matches!(effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]));
        assert!(s.on(drained(1)).is_nothing());
    }
}

#[test]
fn a_launch_that_ends_while_its_requests_are_waited_for_is_cleared_and_is_no_crash() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    let ended = s.on(exited(1));
    assert_eq!(ended.effects, [Effect::Clear { incarnation: no(1) }]);
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
    assert_eq!(s.last_error(), None);
}

#[test]
fn an_end_while_stopping_is_not_a_crash() {
    let mut s = Script::ending();
    assert!(s.on(exited(1)).is_nothing());
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
    assert_eq!(s.last_error(), None);
}

#[test]
fn a_second_stop_only_makes_it_faster() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    assert!(s.on(stop(StopMode::Graceful)).is_nothing());
    let effects = s.on(stop(StopMode::Immediate)).effects;
    assert!(matches!(effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]), "{effects:?}");
}

#[test]
fn a_start_while_stopping_follows_the_stop() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    assert!(s.on(start()).is_nothing());
    let outcome = s.on(vacated(1));
    assert_eq!(outcome.path, [ServiceState::Stopped, ServiceState::Starting]);
    assert_eq!(outcome.launched(), Some(2));
}

#[test]
fn the_last_word_counts_while_stopping() {
    let mut s = Script::running();
    s.on(restart());
    s.on(stop(StopMode::Graceful));
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
}

#[test]
fn a_launch_that_fails_while_it_is_stopped_is_no_crash() {
    let mut s = Script::stopped();
    s.on(start());
    s.on(stop(StopMode::Graceful));
    let outcome = s.on(launch_failed(1, Code::PortInUse));
    assert_eq!(outcome.path, [ServiceState::Stopped]);
    assert_eq!(outcome.effects, [Effect::Rest]);
}

#[test]
fn what_outlives_sigkill_is_unknown_until_it_is_gone() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    assert_eq!(s.on(lingered(1)).path, [ServiceState::Unknown]);
    assert_eq!(s.last_error(), Some(Code::Unrecognised), "no code is for what outlives SIGKILL");
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
}

#[test]
fn a_start_waits_for_what_outlives_sigkill() {
    let mut s = Script::running();
    s.on(restart());
    s.on(lingered(1));
    assert_eq!(s.on(start()).launched(), None);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

#[test]
fn a_stop_after_a_crash_that_outlives_sigkill_asks_again() {
    let mut s = Script::crashed();
    assert!(s.on(lingered(1)).path.is_empty());
    assert!(s.machine.blocked().is_some());
    let stop = s.on(stop(StopMode::Graceful));
    assert_eq!(stop.path, [ServiceState::Stopping]);
    assert!(matches!(stop.effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]));
    assert_eq!(s.on(lingered(1)).path, [ServiceState::Unknown]);
}
