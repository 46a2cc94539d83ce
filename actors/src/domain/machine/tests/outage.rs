//! When the service is told to have recovered.

use std::time::Duration;

use super::crashing::recorded;
use super::script::{
    Script, diagnosis_due, exited, healthy, launched, load, no, remnant_found, restart,
    restart_due, start, stop, vacated,
};
use crate::domain::event::EventKind;
use crate::domain::input::{Input, StopMode};

/// Its downtime and the number of ends, if the service is said to have recovered.
fn recovery(events: &[EventKind]) -> Option<(Duration, u32)> {
    events.iter().find_map(|event| match event {
        EventKind::ServiceRecovered { recovery } => Some((recovery.downtime, recovery.incidents)),
        _ => None,
    })
}

#[test]
fn the_service_has_recovered_when_it_runs_again_whichever_restart_it_was() {
    let mut s = Script::running();
    s.on(exited(1));
    s.on(vacated(1));
    s.wait(2);
    s.on(restart_due(1));
    s.on(launched(2));
    s.wait(10);
    s.on(exited(2));
    s.on(vacated(2));
    s.wait(4);
    s.on(restart_due(2));
    s.on(launched(3));
    let events = s.on(healthy(3)).events;
    assert_eq!(recovery(&events), Some((Duration::from_secs(16), 2)));
    s.on(exited(3));
    s.on(vacated(3));
    s.wait(2);
    s.on(restart_due(3));
    s.on(launched(4));
    let events = s.on(healthy(4)).events;
    assert_eq!(recovery(&events), Some((Duration::from_secs(2), 1)), "it begins anew");
}

/// Nobody has stopped it.
#[test]
fn a_switch_and_a_restart_while_it_comes_back_are_part_of_the_outage() {
    for asked in [load("org/b"), restart()] {
        let mut s = Script::running();
        s.on(exited(1));
        s.on(vacated(1));
        s.wait(2);
        s.on(restart_due(1));
        s.on(launched(2));
        s.wait(3);
        s.on(asked);
        s.on(vacated(2));
        s.on(launched(3));
        let events = s.on(healthy(3)).events;
        assert_eq!(recovery(&events), Some((Duration::from_secs(5), 1)));
    }
}

/// The history knows by that number which ends there were.
#[test]
fn a_recovery_names_the_launch_by_the_number_that_its_incident_has() {
    let first = |events: &[EventKind]| {
        events.iter().find_map(|event| match event {
            EventKind::ServiceRecovered { recovery } => Some(recovery.first),
            _ => None,
        })
    };
    let comes_back = |s: &mut Script| {
        s.on(vacated(4));
        s.on(restart_due(4));
        s.on(launched(5));
        first(&s.on(healthy(5)).events)
    };
    let mut s = Script::running();
    s.turn(exited(1));
    s.turn(Input::ProcessActorLost);
    s.turn(remnant_found(4));
    let events = s.turn(diagnosis_due(4)).events;
    assert_eq!(recorded(&events).incarnation, no(4));
    assert_eq!(comes_back(&mut s), Some(no(4)));

    let mut s = Script::running();
    assert_eq!(recorded(&s.on(exited(1)).events).incarnation, no(1));
    s.on(Input::ProcessActorLost);
    s.on(remnant_found(4));
    assert_eq!(comes_back(&mut s), Some(no(1)));
}

#[test]
fn a_first_start_and_a_start_after_a_stop_are_no_recovery() {
    let mut s = Script::starting();
    s.on(launched(1));
    assert_eq!(recovery(&s.on(healthy(1)).events), None);
    s.on(exited(1));
    s.on(stop(StopMode::Graceful));
    s.on(vacated(1));
    s.on(start());
    s.on(launched(2));
    assert_eq!(recovery(&s.on(healthy(2)).events), None);
}
