//! Who is told what, when wishes cross.

use super::script::{
    Script, adopted, drained, exited, healthy, launch_failed, launched, lingered, load, model,
    nothing_found, vacated,
};
use crate::domain::cause::Code;
use crate::domain::input::{Asker, Input, Request, StopMode};
use crate::domain::state::ServiceState;
use crate::domain::ticket::{CommandError, Outcome, Ticket};

const FIRST: Ticket = Ticket::new(1);
const SECOND: Ticket = Ticket::new(2);

const STOP: Request = Request::Stop(StopMode::Graceful);

impl Script {
    fn ask(&mut self, ticket: Ticket, request: Request) -> Vec<(Ticket, Outcome)> {
        self.on(Input::Request(ticket, request)).answers
    }

    fn hear(&mut self, input: Input) -> Vec<(Ticket, Outcome)> {
        self.on(input).answers
    }
}

/// A program's wish.
fn need(name: &str) -> Request {
    Request::Load { wanted: model(name).into(), asker: Asker::Program }
}

fn switch_to(name: &str) -> Request {
    Request::Load { wanted: model(name).into(), asker: Asker::Operator }
}

#[test]
fn a_start_is_answered_when_it_serves() {
    let mut s = Script::stopped();
    assert_eq!(s.ask(FIRST, Request::Start), []);
    assert_eq!(s.hear(launched(1)), []);
    assert_eq!(s.hear(healthy(1)), [(FIRST, Ok(()))]);
    assert_eq!(s.ask(SECOND, Request::Ensure), [(SECOND, Ok(()))]);
}

#[test]
fn a_wait_outlasts_a_crash() {
    let mut s = Script::stopped();
    s.ask(FIRST, Request::Start);
    assert_eq!(s.hear(exited(1)), []);
    s.hear(vacated(1));
    s.hear(super::script::restart_due(1));
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(FIRST, Ok(()))]);
}

#[test]
fn a_service_that_gives_up_says_why() {
    let mut s = Script::stopped();
    s.ask(FIRST, Request::Ensure);
    let answers = s.hear(launch_failed(1, Code::VllmNotFound));
    let [(FIRST, Err(CommandError::Failed(cause)))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!(cause.code, Code::VllmNotFound);
}

#[test]
fn a_stop_is_answered_when_nothing_is_left_though_a_start_follows_it() {
    let mut s = Script::running();
    assert_eq!(s.ask(FIRST, STOP), []);
    assert_eq!(s.ask(SECOND, Request::Start), []);
    assert_eq!(s.hear(drained(1)), []);
    assert_eq!(s.hear(vacated(1)), [(FIRST, Ok(()))]);
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(SECOND, Ok(()))]);
}

#[test]
fn whoever_waits_learns_of_a_stop_at_once() {
    let mut s = Script::stopped();
    s.ask(FIRST, Request::Start);
    assert_eq!(s.ask(SECOND, STOP), [(FIRST, Err(CommandError::Stopped))]);
}

/// What is there when it is found was to be stopped, so it is stopped first.
#[test]
fn a_stop_and_a_start_of_what_is_still_looked_for_are_both_answered_by_what_they_ask() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    assert_eq!(s.ask(FIRST, STOP), []);
    assert_eq!(s.ask(SECOND, Request::Start), []);
    assert_eq!(s.hear(adopted(1, "org/a")), []);
    s.hear(drained(1));
    assert_eq!(s.hear(vacated(1)), [(FIRST, Ok(()))]);
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(SECOND, Ok(()))]);
}

#[test]
fn a_restart_is_not_answered_by_the_incarnation_that_it_ends() {
    let mut s = Script::running();
    assert_eq!(s.ask(FIRST, Request::Restart), []);
    assert_eq!(s.hear(healthy(1)), []);
    s.hear(drained(1));
    s.hear(vacated(1));
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(FIRST, Ok(()))]);
}

#[test]
fn a_program_that_needs_one_model_is_not_content_with_another() {
    let mut s = Script::running();
    s.ask(FIRST, switch_to("org/b"));
    s.hear(drained(1));
    s.hear(vacated(1));
    s.hear(launched(2));
    let superseded = CommandError::Superseded { to: model("org/a") };
    assert_eq!(s.ask(SECOND, need("org/a")), [(FIRST, Err(superseded))]);
    s.hear(vacated(2));
    s.hear(launched(3));
    assert_eq!(s.hear(healthy(3)), [(SECOND, Ok(()))]);
}

#[test]
fn two_who_want_the_same_model_share_one_switch() {
    let mut s = Script::running();
    assert_eq!(s.ask(FIRST, switch_to("org/b")), []);
    assert_eq!(s.ask(SECOND, need("org/b")), []);
    s.hear(drained(1));
    s.hear(vacated(1));
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(FIRST, Ok(())), (SECOND, Ok(()))]);
}

/// Bystanders of a switch that fails wait for what is brought back.
#[test]
fn a_reverted_switch_is_told_to_those_who_asked_for_it_and_to_nobody_else() {
    let mut s = Script::running();
    s.ask(FIRST, switch_to("org/b"));
    s.ask(SECOND, Request::Ensure);
    s.hear(drained(1));
    s.hear(vacated(1));
    let answers = s.hear(launch_failed(2, Code::ModelNotFound));
    let [(FIRST, Err(CommandError::SwitchFailed { wanted, restored, cause }))] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert_eq!((wanted, restored), (&model("org/b"), &model("org/a")));
    assert_eq!(cause.code, Code::ModelNotFound);
    s.hear(launched(3));
    assert_eq!(s.hear(healthy(3)), [(SECOND, Ok(()))]);
}

#[test]
fn a_program_does_not_lift_a_service_out_of_failed() {
    let mut s = Script::failed();
    for request in [Request::Ensure, need("org/a"), need("org/b")] {
        let outcome = s.on(Input::Request(FIRST, request));
        assert!(
            matches!(outcome.answers[..], [(FIRST, Err(CommandError::Failed(_)))]),
            "{outcome:?}"
        );
        assert!(outcome.is_nothing());
    }
    assert_eq!(&s.machine.target().model, &model("org/a"));
    assert_eq!(s.on(load("org/b")).path, [ServiceState::Starting]);
}

#[test]
fn a_program_does_not_clear_the_count_of_restarts() {
    let mut s = Script::crashed();
    s.on(vacated(1));
    let counted = s.machine.ledger().in_window(s.now);
    assert_eq!(counted, 1);
    assert_eq!(s.ask(FIRST, need("org/b")), []);
    assert_eq!(s.machine.ledger().in_window(s.now), counted);
    s.wait(2);
    let restarted = s.on(super::script::restart_due(1));
    assert_eq!(restarted.launched(), Some(2));
    s.hear(launched(2));
    assert_eq!(s.hear(healthy(2)), [(FIRST, Ok(()))]);
}

#[test]
fn what_outlives_sigkill_answers_a_stop_and_every_later_one() {
    let mut s = Script::running();
    s.ask(FIRST, STOP);
    s.on(drained(1));
    let is_lingering = |answers: Vec<(Ticket, Outcome)>, of: Ticket| {
        answers.iter().any(
            |answer| matches!(answer, (ticket, Err(CommandError::StillAlive(_))) if *ticket == of),
        )
    };
    assert!(is_lingering(s.hear(lingered(1)), FIRST));
    s.on(super::script::start());
    assert!(is_lingering(s.ask(SECOND, STOP), SECOND));
}

#[test]
fn a_stop_of_what_is_down_is_answered_at_once() {
    for mut s in [Script::stopped(), Script::failed()] {
        assert_eq!(s.ask(FIRST, STOP), [(FIRST, Ok(()))]);
    }
}

#[test]
fn a_stop_before_the_first_look_is_answered_by_it() {
    let mut s = Script::unknown();
    assert_eq!(s.ask(FIRST, STOP), []);
    assert_eq!(s.hear(nothing_found()), [(FIRST, Ok(()))]);
}
