//! A stop works in every state, and is not undone by what comes late.

use super::cases::{Situation, machine_in};
use super::script::{
    Script, exited, healthy, launch_failed, launched, lingered, noon, nothing_found, remnant_found,
    restart_due, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::Phase;
use crate::domain::input::{Effect, Input, StopMode};
use crate::domain::state::ServiceState;

#[test]
fn a_stop_leads_to_stopped_from_every_situation() {
    for &situation in Situation::ALL {
        for mode in [StopMode::Graceful, StopMode::Immediate] {
            let mut s = Script { machine: machine_in(situation), now: noon() };
            s.on(Input::Stop(mode));
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
    assert!(s.on(Input::Stop(StopMode::Graceful)).is_nothing());
}

#[test]
fn a_stop_says_how_far_the_launch_had_come() {
    let phase = |mut s: Script| match s.on(Input::Stop(StopMode::Graceful)).effects[..] {
        [Effect::Disregard, Effect::Stop { phase, mode: StopMode::Graceful, .. }] => phase,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(phase(Script::starting()), Phase::Loading);
    assert_eq!(phase(Script::running()), Phase::Serving);
}

#[test]
fn an_end_while_stopping_is_not_a_crash() {
    let mut s = Script::running();
    s.on(Input::Stop(StopMode::Graceful));
    assert!(s.on(exited(1)).is_nothing());
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
    assert_eq!(s.last_error(), None);
}

#[test]
fn a_second_stop_only_makes_it_faster() {
    let mut s = Script::running();
    s.on(Input::Stop(StopMode::Graceful));
    assert!(s.on(Input::Stop(StopMode::Graceful)).is_nothing());
    let effects = s.on(Input::Stop(StopMode::Immediate)).effects;
    assert!(matches!(effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]), "{effects:?}");
}

#[test]
fn a_start_while_stopping_follows_the_stop() {
    let mut s = Script::running();
    s.on(Input::Stop(StopMode::Graceful));
    assert!(s.on(Input::Start).is_nothing());
    let outcome = s.on(vacated(1));
    assert_eq!(outcome.path, [ServiceState::Stopped, ServiceState::Starting]);
    assert_eq!(outcome.launched(), Some(2));
}

#[test]
fn the_last_word_counts_while_stopping() {
    let mut s = Script::running();
    s.on(Input::Restart);
    s.on(Input::Stop(StopMode::Graceful));
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
}

#[test]
fn a_launch_that_fails_while_it_is_stopped_is_no_crash() {
    let mut s = Script::stopped();
    s.on(Input::Start);
    s.on(Input::Stop(StopMode::Graceful));
    let outcome = s.on(launch_failed(1, Code::PortInUse));
    assert_eq!(outcome.path, [ServiceState::Stopped]);
    assert!(outcome.effects.is_empty());
}

#[test]
fn what_outlives_sigkill_is_unknown_until_it_is_gone() {
    let mut s = Script::running();
    s.on(Input::Stop(StopMode::Graceful));
    assert_eq!(s.on(lingered(1)).path, [ServiceState::Unknown]);
    assert_eq!(s.last_error(), Some(Code::EngineHung));
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Stopped]);
}

#[test]
fn a_start_waits_for_what_outlives_sigkill() {
    let mut s = Script::running();
    s.on(Input::Restart);
    s.on(lingered(1));
    assert_eq!(s.on(Input::Start).launched(), None);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

#[test]
fn a_stop_after_a_crash_that_outlives_sigkill_asks_again() {
    let mut s = Script::crashed();
    assert!(s.on(lingered(1)).path.is_empty());
    let stop = s.on(Input::Stop(StopMode::Graceful));
    assert_eq!(stop.path, [ServiceState::Stopping]);
    assert!(matches!(stop.effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]));
    assert_eq!(s.on(lingered(1)).path, [ServiceState::Unknown]);
}
