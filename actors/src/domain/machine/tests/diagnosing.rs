//! The two moments of a crash: that it ended, and why.

use std::time::Duration;

use super::crashing::recorded;
use super::script::{
    Script, diagnosed, diagnosis_due, exited, found, launched, load, member_died, model,
    restart_due, start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::{Evidence, Exit, Rulebook, Scanner};
use crate::domain::event::EventKind;
use crate::domain::input::{Effect, Input, StopMode, Timer};
use crate::domain::report::Role;
use crate::domain::state::ServiceState;
use crate::domain::ticket::CommandError;

const MISSING: &[u8] = b"INFO vLLM API server version 0.32.0\n\
    OSError: org/a is not a local folder and is not a valid model identifier listed on \
    'https://huggingface.co/models'\n";

fn evidence(log: &[u8]) -> Evidence {
    let mut scanner = Scanner::new(&std::sync::Arc::new(Rulebook::new().unwrap()));
    scanner.feed(log);
    Evidence { diagnosis: scanner.finish(), ..Evidence::default() }
}

/// The front of a launch that loads has ended with status 1, and nobody knows why yet.
fn ended_while_loading() -> Script {
    let mut s = Script::starting();
    let end = s.turn(exited_of_its_own_accord(1));
    assert_eq!(end.path, [ServiceState::Crashed]);
    s
}

#[test]
fn what_is_left_is_cleared_at_once_and_what_follows_is_decided_once_it_is_known_why() {
    let mut s = Script::running();
    let end = s.turn(exited(1));
    assert_eq!(end.path, [ServiceState::Crashed]);
    assert!(end.effects.iter().any(|it| matches!(it, Effect::Clear { .. })));
    assert_eq!(end.scheduled(Timer::Diagnosis), Some(Duration::from_secs(10)));
    assert_eq!(end.scheduled(Timer::Restart), None);
    let judged = s.turn(diagnosed(1));
    assert_eq!(judged.path, []);
    assert_eq!(judged.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
    assert_eq!(recorded(&judged.events).cause.last_lines, ["the last line"]);
}

#[test]
fn a_cause_that_is_permanent_by_what_was_written_is_not_retried() {
    let mut s = ended_while_loading();
    let judged = s.turn(found(1, evidence(MISSING)));
    assert_eq!(recorded(&judged.events).cause.code, Code::ModelNotFound);
    assert_eq!(judged.scheduled(Timer::Restart), None);
    assert_eq!(s.turn(vacated(1)).path, [ServiceState::Failed]);
    assert_eq!(s.last_error(), Some(Code::ModelNotFound));
}

#[test]
fn what_cannot_be_read_in_time_is_judged_by_what_is_known() {
    let mut s = ended_while_loading();
    let judged = s.turn(diagnosis_due(1));
    let known = recorded(&judged.events).cause.code;
    assert_eq!(known, Code::Unrecognised, "an exit status while loading says nothing");
    assert_eq!(judged.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
    // It comes too late.
    assert!(s.turn(found(1, evidence(MISSING))).is_nothing());
    assert!(s.turn(diagnosis_due(1)).is_nothing());
}

#[test]
fn nothing_follows_before_it_is_judged_though_nothing_is_left() {
    let mut s = Script::running();
    s.turn(exited(1));
    assert!(s.turn(vacated(1)).is_nothing());
    s.wait(10);
    assert!(s.turn(restart_due(1)).is_nothing());
    let judged = s.turn(diagnosed(1));
    assert_eq!(judged.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
    assert_eq!(s.on(restart_due(1)).launched(), Some(2));
}

#[test]
fn an_operator_waits_for_no_diagnosis_and_the_incident_is_kept_all_the_same() {
    for (request, follows) in [
        (start(), Some(Duration::ZERO)),
        (stop(StopMode::Graceful), None),
        (stop(StopMode::Immediate), None),
        (Input::ShutDown, None),
    ] {
        let mut s = Script::running();
        s.turn(exited(1));
        let taken = s.turn(request.clone());
        let incident = recorded(&taken.events);
        assert_eq!(incident.restart_after, follows, "{request:?}");
        assert_eq!(incident.cause.code, Code::EngineDied);
        let late = s.turn(diagnosed(1));
        assert!(late.is_nothing(), "{request:?}: {late:?}");
    }
}

/// Launch 2 loads org/b in the place of org/a.
fn loading_another() -> Script {
    let mut s = Script::running();
    s.on(load("org/b"));
    s.on(super::script::drained(1));
    s.on(vacated(1));
    s.on(launched(2));
    s
}

#[test]
fn those_who_asked_for_a_model_that_fails_to_load_are_told_why_once_that_is_known() {
    let mut s = loading_another();
    let end = s.turn(exited_of_its_own_accord(2));
    assert!(end.answers.is_empty(), "{:?}", end.answers);
    let judged = s.turn(found(2, evidence(MISSING)));
    let [(_, Err(CommandError::SwitchFailed { wanted, restored, cause }))] = &judged.answers[..]
    else {
        panic!("{:?}", judged.answers)
    };
    assert_eq!((wanted, restored), (&model("org/b"), &model("org/a")));
    assert_eq!(cause.code, Code::ModelNotFound);
}

#[test]
fn whoever_asks_again_for_the_model_that_failed_is_not_told_of_the_launch_before() {
    let mut s = loading_another();
    s.turn(exited_of_its_own_accord(2));
    assert!(s.turn(load("org/b")).answers.is_empty());
    assert_eq!(s.turn(vacated(2)).launched(), Some(3));
}

#[test]
fn what_was_judged_by_us_stays_what_it_was_judged_to_be() {
    let mut s = Script::running();
    for _ in 0..2 {
        s.turn(super::script::unhealthy(1));
    }
    s.turn(super::script::unhealthy(1));
    let judged = s.turn(found(1, evidence(MISSING)));
    let cause = &recorded(&judged.events).cause;
    assert_eq!(cause.code, Code::EngineHung);
    assert!(cause.line().is_some());
}

#[test]
fn a_crash_is_told_twice_and_recorded_once() {
    let mut s = Script::running();
    let mut events = s.turn(exited(1)).events;
    events.extend(s.turn(diagnosed(1)).events);
    events.extend(s.turn(diagnosed(1)).events);
    events.extend(s.turn(vacated(1)).events);
    let incidents = events.iter().filter(|it| matches!(it, EventKind::IncidentRecorded { .. }));
    assert_eq!(incidents.count(), 1);
}

fn exited_of_its_own_accord(incarnation: u64) -> Input {
    let (incarnation, exit) = (super::script::no(incarnation), Exit::Code(1));
    Input::Process(crate::domain::report::ProcessReport::Exited { incarnation, exit })
}

/// Rank 0 fails, and vLLM kills rank 1, which waits for it, on its way down.
#[test]
fn what_vllm_kills_on_its_way_down_was_not_killed_by_somebody() {
    let mut s = Script::starting();
    s.turn(member_died(1, Role::Worker, Exit::Code(0)));
    assert!(s.turn(member_died(1, Role::Worker, Exit::Signal(9))).is_nothing());
    s.turn(exited_of_its_own_accord(1));
    let judged = s.turn(found(1, evidence(MISSING)));
    assert_eq!(recorded(&judged.events).cause.code, Code::ModelNotFound);
}

#[test]
fn an_engine_that_somebody_ends_while_it_loads_is_the_cause_though_the_front_exits_in_order() {
    let mut s = Script::starting();
    s.turn(member_died(1, Role::EngineCore, Exit::Signal(15)));
    s.turn(exited_of_its_own_accord(1));
    let judged = s.turn(found(1, evidence(MISSING)));
    let cause = &recorded(&judged.events).cause;
    assert_eq!(cause.code, Code::EngineDied);
    assert!(cause.summary.starts_with("engine core 7 died: signal 15"), "{cause}");
}

#[test]
fn a_program_that_asks_again_for_what_has_just_failed_gets_the_old_model_back() {
    let mut s = loading_another();
    s.turn(exited_of_its_own_accord(2));
    s.turn(super::script::load_by_program("org/b"));
    s.turn(found(2, evidence(MISSING)));
    assert_eq!(s.machine.target().model, model("org/a"));
    assert_eq!(s.turn(vacated(2)).launched(), Some(3));
}
