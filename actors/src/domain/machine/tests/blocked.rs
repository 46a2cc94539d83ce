//! What is left, or cannot be looked at, stands in the way: whoever waits is told.

use super::script::{
    Script, launched, lingered, look_failed, no, nothing_found, remnant_found, restart_due,
};
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::input::{Effect, Input, Request, StopMode};
use crate::domain::report::ProcessReport;
use crate::domain::state::ServiceState;
use crate::domain::ticket::Ticket;

/// A request with a ticket of its own.
pub(super) fn asks(ticket: u64, request: Request) -> Input {
    Input::Request(Ticket::new(ticket), request)
}

/// Whose requests an input answers.
pub(super) fn answered(s: &mut Script, input: Input) -> Vec<u64> {
    s.on(input).answers.into_iter().map(|(ticket, _)| ticket.get()).collect()
}

#[test]
fn who_waits_for_a_start_that_failed_for_good_is_told_though_something_lingers() {
    let mut s = Script::stopped();
    s.on(asks(7, Request::Start));
    s.on(launched(1));
    let exit = Exit::Code(2);
    let exited = ProcessReport::Exited { incarnation: no(1), exit };
    let mut answers = answered(&mut s, Input::Process(exited));
    answers.extend(answered(&mut s, lingered(1)));
    assert_eq!(answers, [7]);
}

#[test]
fn who_waits_for_the_service_is_told_that_what_lingers_stands_in_the_way() {
    let mut s = Script::crashed();
    s.on(asks(7, Request::Ensure));
    assert_eq!(answered(&mut s, lingered(1)), [7]);
    for (ticket, request) in [(8, Request::Ensure), (9, Request::Start), (10, Request::Restart)] {
        assert_eq!(answered(&mut s, asks(ticket, request)), [ticket]);
    }
}

#[test]
fn who_stops_while_nobody_can_look_is_answered() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    let mut answers = answered(&mut s, asks(7, Request::Stop(StopMode::Graceful)));
    answers.extend(answered(&mut s, look_failed()));
    assert_eq!(answers, [7]);
    assert_eq!(answered(&mut s, asks(8, Request::Stop(StopMode::Graceful))), [8]);
}

#[test]
fn that_nobody_can_look_is_said_until_somebody_can() {
    let mut s = Script::unknown();
    let said = s.on(look_failed());
    assert!(matches!(said.events[..], [EventKind::CleanupBlocked { .. }]), "{said:?}");
    assert!(s.machine.blocked().is_some_and(|cause| cause.summary.contains("Too many open files")));
    assert_eq!(answered(&mut s, asks(7, Request::Start)), [7]);
    let found = s.on(nothing_found());
    assert_eq!(found.path.last(), Some(&ServiceState::Starting), "the wish is kept");
    assert_eq!(s.machine.blocked(), None);
}

#[test]
fn that_nobody_can_look_for_what_a_crash_left_is_said() {
    let mut s = Script::crashed();
    s.on(Input::ProcessActorLost);
    s.wait(2);
    s.on(restart_due(1));
    let said = s.on(look_failed());
    assert!(matches!(said.events[..], [EventKind::CleanupBlocked { .. }]), "{said:?}");
    assert!(s.machine.blocked().is_some());
    let found = s.on(remnant_found(1));
    assert!(matches!(found.effects[..], [Effect::Clear { .. }]), "{found:?}");
    assert_eq!(s.machine.blocked(), None);
}

#[test]
fn a_supervisor_that_ends_while_nobody_can_look_goes_on_looking_for_a_while() {
    let mut s = Script::unknown();
    s.on(look_failed());
    let down = s.on(Input::ShutDown);
    assert!(!down.effects.contains(&Effect::End), "{down:?}");
    assert!(s.on(nothing_found()).effects.contains(&Effect::End));
}
