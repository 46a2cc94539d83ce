//! When our own process actor dies: what it held is found again, or not, and what was wished for
//! still is.

use std::time::Duration;

use super::blocked::{answered, asks};
use super::script::{
    Script, adopted, drained, healthy, launch_failed, launched, no, nothing_found, port_taken,
    remnant_found, restart, restart_due, spec, start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::input::{Effect, Input, Request, StopMode, Timer};
use crate::domain::spec::{ExitPolicy, ServiceSpec};
use crate::domain::state::ServiceState;

#[test]
fn a_relaunch_after_a_lost_process_actor_waits_for_what_it_needs() {
    for wanting in [Code::PortInUse, Code::DiskFull] {
        let mut s = Script::running();
        s.on(Input::ProcessActorLost);
        s.on(nothing_found());
        s.on(launch_failed(2, wanting));
        assert_eq!(s.state(), ServiceState::Crashed);
    }
}

#[test]
fn a_start_that_somebody_asked_for_is_still_asked_for_after_a_lost_process_actor() {
    let mut s = Script::starting();
    s.on(Input::ProcessActorLost);
    s.on(nothing_found());
    assert_eq!(s.on(launch_failed(2, Code::PortInUse)).path.last(), Some(&ServiceState::Failed));
}

#[test]
fn whoever_asks_for_a_relaunch_is_told_at_once_that_it_cannot_be() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    s.on(start());
    s.on(nothing_found());
    assert_eq!(s.on(launch_failed(2, Code::PortInUse)).path.last(), Some(&ServiceState::Failed));
}

#[test]
fn a_program_that_needs_a_relaunch_does_not_make_it_fail_at_once() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    s.on(asks(7, Request::Ensure));
    s.on(nothing_found());
    s.on(launch_failed(2, Code::PortInUse));
    assert_eq!(s.state(), ServiceState::Crashed);
}

#[test]
fn a_restart_is_not_answered_by_the_same_incarnation_found_again() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    s.on(asks(7, Request::Restart));
    s.on(start());
    s.on(adopted(1, "org/a"));
    assert!(answered(&mut s, healthy(1)).is_empty());
    s.on(vacated(1));
    s.on(launched(2));
    assert!(answered(&mut s, healthy(2)).contains(&7));
}

/// What was told to end may be about to do so.
#[test]
fn what_was_told_to_end_is_not_kept_whatever_is_wished_for_meanwhile() {
    let mut s = Script::running();
    s.on(asks(7, Request::Stop(StopMode::Graceful)));
    s.on(Input::ProcessActorLost);
    s.on(stop(StopMode::Graceful));
    s.on(start());
    assert_eq!(s.on(adopted(1, "org/a")).path, [ServiceState::Stopping]);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

#[test]
fn what_was_told_to_end_is_ended_by_a_supervisor_that_would_leave_it_running() {
    let mut s = Script::with(ServiceSpec { on_exit: ExitPolicy::Detach, ..spec() });
    for input in [nothing_found(), start(), launched(1), healthy(1), restart()] {
        s.on(input);
    }
    s.on(Input::ProcessActorLost);
    s.on(Input::ShutDown);
    assert_eq!(s.on(adopted(1, "org/a")).path, [ServiceState::Stopping]);
    s.on(drained(1));
    assert_eq!(s.on(vacated(1)).effects, [Effect::End, Effect::Rest]);
}

#[test]
fn what_is_found_by_another_number_keeps_no_restart_back() {
    for due_first in [true, false] {
        let mut s = Script::crashed();
        s.on(Input::ProcessActorLost);
        if due_first {
            s.on(restart_due(1));
        }
        let found = s.on(remnant_found(4));
        assert!(found.effects.contains(&Effect::Clear { incarnation: no(4) }));
        let cleared = s.on(vacated(4));
        let launched = if due_first {
            cleared
        } else {
            let (due, delay) = (found.scheduled(Timer::Restart), Duration::from_secs(2));
            assert_eq!((due, cleared.launched()), (Some(delay), None));
            s.on(restart_due(4))
        };
        assert_eq!(launched.launched(), Some(5));
    }
}

/// A delay is one of seconds, whatever a clock shows meanwhile.
#[test]
fn a_clock_that_is_set_back_keeps_no_restart_back() {
    let mut s = Script::crashed();
    s.on(Input::ProcessActorLost);
    s.set_clock_back(Duration::from_secs(3600));
    let due = s.on(remnant_found(4)).scheduled(Timer::Restart).unwrap();
    assert!(due <= Duration::from_secs(2), "{due:?}");
}

#[test]
fn a_restart_that_drains_survives_the_loss_of_the_process_actor() {
    let mut s = Script::running();
    s.on(asks(7, Request::Restart));
    s.on(Input::ProcessActorLost);
    s.on(adopted(1, "org/a"));
    assert!(answered(&mut s, healthy(1)).is_empty());
}

/// The port was free when we looked, and taken when vLLM bound it: four times in a row.
#[test]
fn a_restart_whose_port_is_taken_while_it_loads_waits_as_well() {
    let mut s = Script::crashed();
    for incarnation in 1..=4 {
        s.on(vacated(incarnation));
        s.wait(20);
        s.on(restart_due(incarnation));
        s.on(launched(incarnation + 1));
        s.on(port_taken(incarnation + 1));
    }
    s.on(vacated(5));
    assert_eq!(s.state(), ServiceState::Crashed, "{:?}", s.last_error());
}
