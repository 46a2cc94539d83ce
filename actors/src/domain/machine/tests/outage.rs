//! What is kept of an end that nobody asked for, and when the service is told to have recovered.

use std::time::Duration;

use super::crashing::recorded;
use super::script::{
    Script, adopted, exited, healthy, launched, load, member_died, no, pid, restart, restart_due,
    start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::{Evidence, Exit, KernelMessage};
use crate::domain::event::EventKind;
use crate::domain::incident::ProcessExit;
use crate::domain::input::{Input, StopMode};
use crate::domain::report::{ProcessReport, Role};

const SEGV: Exit = Exit::Signal(11);

fn main_exited(incarnation: u64, exit: Exit) -> Input {
    Input::Process(ProcessReport::Exited { incarnation: no(incarnation), exit })
}

fn diagnosed(incarnation: u64) -> Input {
    let evidence = Evidence::default();
    Input::Process(ProcessReport::Diagnosed { incarnation: no(incarnation), evidence })
}

/// Its downtime and the number of ends, if the service is said to have recovered.
fn recovery(events: &[EventKind]) -> Option<(Duration, u32)> {
    events.iter().find_map(|event| match event {
        EventKind::ServiceRecovered { recovery } => Some((recovery.downtime, recovery.incidents)),
        _ => None,
    })
}

#[test]
fn an_incident_has_the_ends_of_all_processes_in_their_order_but_for_those_that_we_kill() {
    let mut s = Script::starting();
    s.on(launched(1));
    s.turn(member_died(1, Role::Helper, Exit::Code(1)));
    s.turn(member_died(1, Role::Untitled, Exit::Code(0)));
    s.turn(member_died(1, Role::EngineCore, Exit::Code(1)));
    s.turn(main_exited(1, Exit::Code(0)));
    s.turn(member_died(1, Role::Worker, SEGV));
    s.turn(member_died(1, Role::Worker, Exit::Signal(9)));
    let events = s.turn(diagnosed(1)).events;
    let exits = &recorded(&events).exits;
    let expected = [
        ProcessExit::new(7, Role::EngineCore, Exit::Code(1)),
        ProcessExit::new(pid(1), Role::ApiServer, Exit::Code(0)),
        ProcessExit::new(7, Role::Worker, SEGV),
    ];
    assert_eq!(exits[..], expected);
}

#[test]
fn an_incident_has_what_the_kernel_says_of_those_that_have_ended_and_of_nobody_else() {
    let of = |pid: u32| format!("Out of memory: Killed process {pid} (python3) total-vm:1kB");
    let message = |pid| KernelMessage::read(&of(pid)).unwrap();
    let told = |kernel: Option<Vec<KernelMessage>>| {
        let mut s = Script::running();
        s.turn(member_died(1, Role::Worker, Exit::Signal(9)));
        let evidence = Evidence { kernel, ..Evidence::default() };
        let incarnation = no(1);
        let events =
            s.turn(Input::Process(ProcessReport::Diagnosed { incarnation, evidence })).events;
        let incident = recorded(&events);
        (incident.cause.code, incident.kernel.clone())
    };
    let both = Some(vec![message(6), message(7)]);
    assert_eq!(told(both), (Code::KilledForMemory, Some(vec![of(7)])));
    assert_eq!(told(Some(vec![message(6)])), (Code::EngineDied, Some(Vec::new())));
    assert_eq!(told(None), (Code::EngineDied, None));
}

/// They may have been killed by us, or not; that the kernel has done it is said by the kernel.
#[test]
fn whoever_the_kernel_says_to_have_killed_is_not_taken_to_have_been_killed_by_us() {
    let text = "Out of memory: Killed process 7 (python3) total-vm:1kB";
    let told = |kernel: Vec<KernelMessage>| {
        let mut s = Script::running();
        s.turn(main_exited(1, Exit::Code(0)));
        s.turn(member_died(1, Role::EngineCore, Exit::Signal(9)));
        let evidence = Evidence { kernel: Some(kernel), ..Evidence::default() };
        let incarnation = no(1);
        let events =
            s.turn(Input::Process(ProcessReport::Diagnosed { incarnation, evidence })).events;
        let incident = recorded(&events);
        (incident.cause.code, incident.exits.len())
    };
    assert_eq!(told(vec![KernelMessage::read(text).unwrap()]), (Code::KilledForMemory, 2));
    assert_eq!(told(Vec::new()), (Code::EngineDied, 1));
}

#[test]
fn who_has_ended_long_before_has_no_part_in_it() {
    let text = "Out of memory: Killed process 7 (cc1plus) total-vm:1kB";
    let told = |seconds: u64| {
        let mut s = Script::running();
        s.turn(member_died(1, Role::Helper, Exit::Signal(9)));
        s.wait(seconds);
        s.turn(main_exited(1, Exit::Code(1)));
        let kernel = Some(vec![KernelMessage::read(text).unwrap()]);
        let evidence = Evidence { kernel, ..Evidence::default() };
        let incarnation = no(1);
        let events =
            s.turn(Input::Process(ProcessReport::Diagnosed { incarnation, evidence })).events;
        let incident = recorded(&events);
        (incident.cause.code, incident.exits.len(), incident.kernel.as_ref().map(Vec::len))
    };
    assert_eq!(told(10), (Code::KilledForMemory, 2, Some(1)));
    assert_eq!(told(11), (Code::EngineDied, 1, Some(0)));
}

#[test]
fn a_launch_has_no_part_in_the_ends_of_the_one_before() {
    let mut s = Script::running();
    s.turn(member_died(1, Role::Helper, SEGV));
    s.on(stop(StopMode::Graceful));
    s.on(vacated(1));
    s.on(start());
    s.turn(member_died(1, Role::Helper, SEGV));
    s.on(launched(2));
    let events = s.on(exited(2)).events;
    assert_eq!(
        recorded(&events).exits,
        [ProcessExit::new(pid(2), Role::ApiServer, Exit::Signal(9))]
    );
}

#[test]
fn of_many_ends_the_latest_are_kept() {
    let mut s = Script::running();
    for _ in 0..100 {
        s.turn(member_died(1, Role::Helper, SEGV));
    }
    let events = s.on(exited(1)).events;
    let exits = &recorded(&events).exits;
    assert_eq!(exits.len(), 32);
    assert_eq!(exits.last().map(|it| it.role), Some(Role::ApiServer));
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

#[test]
fn an_adoption_while_a_crash_is_judged_forgets_nobody() {
    let mut s = Script::running();
    s.turn(member_died(1, Role::Worker, SEGV));
    s.turn(adopted(1, "org/a"));
    let events = s.turn(diagnosed(1)).events;
    assert_eq!(recorded(&events).exits, [ProcessExit::new(7, Role::Worker, SEGV)]);
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
