//! What follows an end that nobody asked for.

use std::num::NonZeroU32;
use std::time::Duration;

use super::script::{
    Script, ensure, exited, healthy, launch_failed, launched, lingered, member_died, model, no,
    nothing_found, restart_due, silence_due, spec, start, stop, unhealthy, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::incident::Incident;
use crate::domain::input::{Effect, Input, StopMode, Timer};
use crate::domain::report::{ProcessReport, Role};
use crate::domain::restart::RestartPolicy;
use crate::domain::spec::ServiceSpec;
use crate::domain::state::{ServiceState, State};

#[test]
fn a_crash_is_restarted_when_its_delay_is_over() {
    let mut s = Script::running();
    let crash = s.on(exited(1));
    assert_eq!(crash.path, [ServiceState::Crashed]);
    assert_eq!(crash.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
    assert!(crash.events.contains(&EventKind::RestartScheduled {
        attempt: 1,
        delay: Duration::from_secs(2),
        restarts_in_window: 1
    }));
    s.on(vacated(1));
    s.wait(2);
    assert_eq!(s.on(restart_due(1)).launched(), Some(2));
    assert_eq!(s.state(), ServiceState::Starting);
}

#[test]
fn the_death_of_an_engine_or_a_worker_is_the_crash_and_its_cause_names_it() {
    for role in [Role::EngineCore, Role::Worker, Role::Coordinator, Role::ApiServer] {
        let mut s = Script::running();
        let crash = s.on(member_died(1, role, Exit::Code(0)));
        assert_eq!(crash.path, [ServiceState::Crashed]);
        let cause = s.machine.last_error().unwrap();
        assert_eq!(cause.code, Code::EngineDied);
        assert_eq!(cause.summary, format!("{role} 7 died: exit status 0"));
        assert_eq!(cause.last_lines, ["the last line"]);
        // The front ends soon after, of the same.
        assert!(s.on(exited(1)).is_nothing());
    }
}

#[test]
fn vllm_can_do_without_a_helper_and_with_whoever_ends_well_before_it_has_a_title() {
    let mut s = Script::running();
    for exit in [Exit::Signal(9), Exit::Code(1), Exit::Unknown] {
        assert!(s.on(member_died(1, Role::Helper, exit)).is_nothing());
    }
    for exit in [Exit::Code(0), Exit::Unknown] {
        assert!(s.on(member_died(1, Role::Untitled, exit)).is_nothing());
    }
    let crash = s.on(member_died(1, Role::Untitled, Exit::Code(1)));
    assert_eq!(crash.path, [ServiceState::Crashed]);
}

/// A model that cannot be loaded ends the engine, and the front tells why a moment later.
#[test]
fn an_engine_that_ends_while_it_loads_is_explained_by_the_front_unless_somebody_killed_it() {
    for exit in [Exit::Code(1), Exit::Signal(15), Exit::Unknown] {
        let mut s = Script::starting();
        assert_eq!(s.on(member_died(1, Role::EngineCore, exit)).path, [], "{exit:?}");
        assert_eq!(s.on(exited(1)).path, [ServiceState::Crashed]);
    }
    let mut s = Script::starting();
    let killed = s.on(member_died(1, Role::EngineCore, Exit::Signal(9)));
    assert_eq!(killed.path, [ServiceState::Crashed]);
}

#[test]
fn nothing_is_launched_before_the_old_one_is_proven_gone() {
    let mut s = Script::crashed();
    s.wait(2);
    assert_eq!(s.on(restart_due(1)).launched(), None);
    assert_eq!(s.state(), ServiceState::Crashed);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

#[test]
fn two_crashes_reported_in_one_turn_are_one_restart() {
    let mut s = Script::running();
    s.on(exited(1));
    assert!(s.on(exited(1)).is_nothing());
    assert!(s.on(unhealthy(1)).is_nothing());
    assert_eq!(s.machine.ledger().total(), 1);
    s.on(vacated(1));
    assert_eq!(s.on(restart_due(1)).launched(), Some(2));
    assert!(s.on(restart_due(1)).is_nothing());
}

#[test]
fn the_past_cannot_act_on_the_present() {
    let mut s = Script::crashed();
    s.on(vacated(1));
    s.on(restart_due(1));
    s.on(launched(2));
    let past = [launched(1), exited(1), vacated(1), healthy(1), unhealthy(1), silence_due(1)];
    for input in past.into_iter().chain([launch_failed(1, Code::PortInUse), restart_due(1)]) {
        let outcome = s.on(input.clone());
        assert!(outcome.is_nothing(), "{input:?} led to {outcome:?}");
    }
    assert_eq!(s.state(), ServiceState::Starting);
}

#[test]
fn a_permanent_cause_is_not_retried() {
    let mut s = Script::stopped();
    s.on(start());
    let outcome = s.on(launch_failed(1, Code::VllmNotFound));
    assert_eq!(outcome.path, [ServiceState::Crashed, ServiceState::Failed]);
    assert_eq!(outcome.scheduled(Timer::Restart), None);
    assert_eq!(s.last_error(), Some(Code::VllmNotFound));
}

#[test]
fn the_restart_limit_names_the_last_cause_and_start_clears_it() {
    let mut s = Script::running();
    for incarnation in 1..=3 {
        crash_and_come_back(&mut s, incarnation);
    }
    s.on(exited(4));
    assert_eq!(s.on(vacated(4)).path, [ServiceState::Failed]);
    let State::Failed { cause } = s.machine.state() else { unreachable!() };
    assert_eq!(cause.code, Code::RestartLimitReached);
    assert!(cause.summary.contains("VLM-016"), "{cause}");
    assert_eq!(cause.last_lines, ["the last line"]);

    s.on(start());
    assert_eq!(s.last_error(), None);
    s.on(launched(5));
    s.on(healthy(5));
    assert_eq!(s.on(exited(5)).scheduled(Timer::Restart), Some(Duration::from_secs(2)));
}

#[test]
fn a_failed_service_is_left_alone_by_ensure_and_taken_up_by_start() {
    let mut s = Script::failed();
    assert!(s.on(ensure()).is_nothing());
    assert_eq!(s.on(start()).launched(), Some(2));
}

#[test]
fn a_service_that_gave_up_fails_only_when_nothing_is_left_of_it() {
    let mut s = Script::stopped();
    s.on(start());
    s.on(launched(1));
    assert_eq!(s.on(rejected_arguments(1)).path, [ServiceState::Crashed]);
    assert!(s.on(ensure()).is_nothing());
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Failed]);
}

#[test]
fn only_failed_checks_in_a_row_mean_dead() {
    let mut s = Script::running();
    for check in [unhealthy(1), unhealthy(1), healthy(1), unhealthy(1), unhealthy(1)] {
        assert!(s.on(check).path.is_empty());
    }
    let third = s.on(unhealthy(1));
    assert_eq!(third.path, [ServiceState::Crashed]);
    assert!(third.effects.iter().any(|effect| matches!(effect, Effect::Clear { .. })));
    assert_eq!(s.last_error(), Some(Code::EngineHung));
}

#[test]
fn a_check_that_passes_is_told_only_if_one_had_failed() {
    let mut s = Script::running();
    assert!(s.on(healthy(1)).is_nothing());
    s.on(unhealthy(1));
    let passed = s.on(healthy(1)).events;
    assert!(matches!(passed[..], [EventKind::HealthChanged { healthy: true, .. }]), "{passed:?}");
}

#[test]
fn a_crash_is_recorded_with_its_cause_and_what_follows() {
    let mut s = Script::running();
    s.wait(90);
    let crash = s.on(exited(1));
    let record = recorded(&crash.events);
    assert_eq!(record.model, model("org/a"));
    assert_eq!(record.cause.code, Code::EngineDied);
    assert_eq!(record.healthy_for, Some(Duration::from_secs(90)));
    assert_eq!(record.restart_after, Some(Duration::from_secs(2)));
}

#[test]
fn a_slow_end_does_not_let_more_restarts_into_the_window() {
    let restart = RestartPolicy { max_restarts: NonZeroU32::MIN, ..RestartPolicy::default() };
    let mut s = Script::with(ServiceSpec { restart, ..spec() });
    s.on(nothing_found());
    s.on(start());
    s.on(launched(1));
    s.on(healthy(1));
    s.on(exited(1));
    s.wait(2);
    s.on(restart_due(1));
    s.wait(59);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
    s.wait(1);
    s.on(launched(2));
    s.on(exited(2));
    assert_eq!(s.on(vacated(2)).path, [ServiceState::Failed]);
}

#[test]
fn a_stop_while_backing_off_is_not_undone_by_the_late_timer() {
    let mut s = Script::crashed();
    s.on(vacated(1));
    assert_eq!(s.on(stop(StopMode::Graceful)).path, [ServiceState::Stopped]);
    assert!(s.on(restart_due(1)).is_nothing());
    assert_eq!(s.state(), ServiceState::Stopped);
}

#[test]
fn an_operator_need_not_wait_for_the_delay() {
    let mut s = Script::crashed();
    assert_eq!(s.on(start()).launched(), None);
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

fn crash_and_come_back(s: &mut Script, incarnation: u64) {
    s.on(exited(incarnation));
    s.on(vacated(incarnation));
    s.on(restart_due(incarnation));
    s.on(launched(incarnation + 1));
    s.on(healthy(incarnation + 1));
    assert_eq!(s.state(), ServiceState::Running);
}

fn rejected_arguments(incarnation: u64) -> Input {
    let (incarnation, exit) = (no(incarnation), Exit::Code(2));
    Input::Process(ProcessReport::Exited { incarnation, exit })
}

pub(super) fn recorded(events: &[EventKind]) -> &Incident {
    let incident = events.iter().find_map(|event| match event {
        EventKind::IncidentRecorded { incident } => Some(incident),
        _ => None,
    });
    incident.unwrap_or_else(|| panic!("no incident among {events:?}"))
}

#[test]
fn what_lingers_after_a_crash_is_an_event_and_leaves_the_cause_of_the_crash_alone() {
    let mut s = Script::crashed();
    let cause = s.last_error();
    let lingering = s.on(lingered(1));
    assert!(matches!(lingering.events[..], [EventKind::CleanupBlocked { .. }]), "{lingering:?}");
    assert_eq!(s.last_error(), cause);
    assert!(s.machine.blocked().is_some());
    s.wait(2);
    assert!(s.on(restart_due(1)).is_nothing());
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
    assert_eq!(s.machine.blocked(), None);
}

#[test]
fn a_port_in_use_ends_a_start_that_somebody_asked_for_and_delays_a_restart_until_it_clears() {
    let mut s = Script::stopped();
    s.on(start());
    assert_eq!(s.on(launch_failed(1, Code::PortInUse)).path.last(), Some(&ServiceState::Failed));
    assert_eq!(s.last_error(), Some(Code::PortInUse));

    let mut s = Script::crashed();
    s.on(vacated(1));
    for turn in 2..40 {
        s.wait(120);
        assert_eq!(s.on(restart_due(turn - 1)).launched(), Some(turn), "it is tried again");
        assert_eq!(s.on(launch_failed(turn, Code::PortInUse)).path, [ServiceState::Crashed]);
    }
}

#[test]
fn a_restart_that_waits_is_tried_no_more_often_than_the_window_allows() {
    let mut s = Script::crashed();
    s.on(vacated(1));
    let mut launched_at = Vec::new();
    let mut delay = Duration::from_secs(2);
    for turn in 2..20 {
        s.wait_for(delay);
        s.on(restart_due(turn - 1));
        launched_at.push(s.now.monotonic);
        let failed = s.on(launch_failed(turn, Code::DiskFull));
        delay = failed.scheduled(Timer::Restart).expect("it is tried again");
    }
    for window in launched_at.windows(4) {
        assert!(window[3] > window[0] + Duration::from_secs(60), "{launched_at:?}");
    }
}
