//! Another model: all of it, or the old one again.

use super::crashing::recorded;
use super::script::{
    Outcome, Script, adopted, adopted_in, drained, exited, healthy, launch_failed, launched, load,
    model, nothing_found, request, restart, restart_due, spec, start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::Phase;
use crate::domain::event::EventKind;
use crate::domain::input::{Asker, Effect, Input, Request, StopMode};
use crate::domain::state::ServiceState;
use crate::domain::target::{Arguments, Wanted};
use crate::domain::ticket::Ticket;

/// `org/a` served; it has made way for `org/b`, which is loading as incarnation 2.
fn switching() -> Script {
    let mut s = Script::running();
    assert_eq!(s.on(load("org/b")).path, [ServiceState::Stopping]);
    assert_eq!(launched_model(&s.on(vacated(1)).effects), "org/b");
    s.on(launched(2));
    s
}

#[test]
fn a_switch_that_succeeds_says_from_what_to_what() {
    let mut s = switching();
    let (from, to) = (model("org/a"), model("org/b"));
    assert!(s.on(healthy(2)).events.contains(&EventKind::ModelSwitched {
        from,
        to,
        extra_args: None
    }));
}

#[test]
fn a_switch_that_fails_brings_the_old_model_back() {
    let mut s = switching();
    s.on(exited(2));
    assert_eq!(launched_model(&s.on(vacated(2)).effects), "org/a");
    assert_eq!(s.last_error(), Some(Code::EngineDied));
    s.on(launched(3));
    let back = s.on(healthy(3));
    assert_eq!(back.path, [ServiceState::Running]);
    let is_switch = |event: &EventKind| matches!(event, EventKind::ModelSwitched { .. });
    assert!(!back.events.iter().any(is_switch), "{back:?}");
}

#[test]
fn the_record_of_a_failed_switch_names_the_model_that_failed() {
    let mut s = switching();
    let outcome = s.on(exited(2));
    assert_eq!(recorded(&outcome.events).model, model("org/b"));
}

#[test]
fn even_a_permanent_cause_brings_the_old_model_back() {
    let mut s = Script::running();
    s.on(load("org/b"));
    s.on(vacated(1));
    let outcome = s.on(launch_failed(2, Code::ModelNotFound));
    assert_eq!(outcome.path, [ServiceState::Crashed, ServiceState::Starting]);
    assert_eq!(launched_model(&outcome.effects), "org/a");
}

#[test]
fn a_model_that_has_served_is_restarted_when_it_crashes() {
    let mut s = switching();
    s.on(healthy(2));
    s.on(exited(2));
    s.on(vacated(2));
    assert_eq!(launched_model(&s.on(restart_due(2)).effects), "org/b");
}

#[test]
fn a_second_switch_replaces_the_first_and_falls_back_to_what_was_proven() {
    let mut s = switching();
    assert_eq!(s.on(load("org/c")).path, [ServiceState::Stopping]);
    assert_eq!(launched_model(&s.on(vacated(2)).effects), "org/c");
    s.on(launched(3));
    s.on(exited(3));
    assert_eq!(launched_model(&s.on(vacated(3)).effects), "org/a");
}

#[test]
fn a_switch_back_during_a_switch_is_no_switch() {
    let mut s = switching();
    s.on(load("org/a"));
    s.on(vacated(2));
    s.on(launched(3));
    let is_switch = |event: &EventKind| matches!(event, EventKind::ModelSwitched { .. });
    assert!(!s.on(healthy(3)).events.iter().any(is_switch));
}

#[test]
fn loading_what_is_served_does_nothing() {
    assert!(Script::running().on(load("org/a")).is_nothing());
}

#[test]
fn loading_from_a_standstill_launches_the_model() {
    for mut s in [Script::stopped(), Script::failed()] {
        let outcome = s.on(load("org/b"));
        assert_eq!(launched_model(&outcome.effects), "org/b");
    }
}

#[test]
fn whoever_stops_the_service_abandons_the_switch() {
    let mut s = switching();
    s.on(stop(StopMode::Graceful));
    s.on(vacated(2));
    assert_eq!(launched_model(&s.on(start()).effects), "org/a");
}

/// What was last proven to serve, whatever the state in which another model is asked for.
#[test]
fn a_load_that_fails_falls_back_to_the_proven_model_from_every_state_that_is_up() {
    let mut backoff = Script::crashed();
    backoff.on(vacated(1));
    let mut coming_back = Script::crashed();
    coming_back.on(vacated(1));
    coming_back.wait(2);
    coming_back.on(restart_due(1));
    coming_back.on(launched(2));
    let mut restarting = Script::running();
    restarting.on(restart());
    let mut lost = Script::running();
    lost.on(Input::ProcessActorLost);
    for mut s in [
        Script::starting(),
        Script::running(),
        Script::crashed(),
        backoff,
        coming_back,
        restarting,
        lost,
    ] {
        let before = format!("{:?}", s.machine.state());
        for outcome in [s.on(load("org/b")), s.on(drained(1))] {
            drop(outcome);
        }
        s.on(nothing_found());
        for incarnation in 1..3 {
            s.on(vacated(incarnation));
        }
        let last = s.machine.incarnation().get();
        let failed = s.on(launch_failed(last, Code::ModelNotFound));
        assert_eq!(launched_model(&failed.effects), "org/a", "{before}");
    }
}

#[test]
fn a_model_that_was_found_serving_is_gone_back_to() {
    let mut s = Script::unknown();
    s.on(load("org/b"));
    s.on(adopted(1, "org/a"));
    assert_eq!(launched_model(&s.on(vacated(1)).effects), "org/b");
    let failed = s.on(launch_failed(2, Code::ModelNotFound));
    assert_eq!(launched_model(&failed.effects), "org/a");
}

#[test]
fn a_failed_load_from_a_standstill_does_not_replace_the_configured_model() {
    for mut s in [Script::stopped(), Script::failed()] {
        s.on(load("org/nonexistent"));
        let last = s.machine.incarnation().get();
        s.on(launch_failed(last, Code::ModelNotFound));
        assert_eq!(s.state(), ServiceState::Failed);
        assert_eq!(launched_model(&s.on(start()).effects), "org/a");
    }
}

#[test]
fn every_change_of_what_is_wanted_is_an_event() {
    let wanted = |outcome: &Outcome| {
        outcome.events.iter().find_map(|event| match event {
            EventKind::ModelWanted { from, to, .. } => Some((from.to_string(), to.to_string())),
            _ => None,
        })
    };
    let change = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
    let mut s = Script::running();
    assert_eq!(wanted(&s.on(load("org/b"))), change("org/a", "org/b"));
    assert_eq!(wanted(&s.on(load("org/b"))), None);
    s.on(drained(1));
    s.on(vacated(1));
    assert_eq!(wanted(&s.on(launch_failed(2, Code::ModelNotFound))), change("org/b", "org/a"));
    s.on(load("org/c"));
    assert_eq!(wanted(&s.on(stop(StopMode::Graceful))), change("org/c", "org/a"));
}

/// The same model, told something else.
fn told(name: &str, words: &[&str]) -> Wanted {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    Wanted { model: model(name), arguments: Some(Arguments::new(words, None)) }
}

fn ask(wanted: Wanted) -> Input {
    request(Request::Load { wanted, asker: Asker::Operator })
}

#[test]
fn other_arguments_are_a_switch_that_may_be_gone_back_from() {
    let mut s = Script::running();
    let longer = told("org/a", &["--max-model-len=8192"]);
    let asked = s.on(ask(longer.clone()));
    assert_eq!(asked.path, [ServiceState::Stopping]);
    let extra_args = Some(vec!["--max-model-len=8192".to_owned()]);
    let (from, to) = (model("org/a"), model("org/a"));
    assert!(asked.events.contains(&EventKind::ModelWanted { from, to, extra_args }));
    s.on(drained(1));
    assert_eq!(launched_arguments(&s.on(vacated(1)).effects), ["--max-model-len=8192"]);
    s.on(launched(2));
    s.on(exited(2));
    assert!(launched_arguments(&s.on(vacated(2)).effects).is_empty(), "as it was before");
}

#[test]
fn who_does_not_mind_the_arguments_has_them_as_they_are() {
    let mut s = Script::running();
    s.on(ask(told("org/b", &["--seed=1"])));
    s.on(drained(1));
    s.on(vacated(1));
    s.on(launched(2));
    assert!(s.on(load("org/b")).is_nothing(), "that is on its way");
    s.on(healthy(2));
    assert!(s.on(load("org/b")).is_nothing(), "that is served");
    assert!(!s.on(ask(told("org/b", &[]))).is_nothing(), "that is asked for otherwise");
}

#[test]
fn of_a_model_that_was_not_served_before_the_arguments_are_those_that_are_configured() {
    let mut spec = spec();
    spec.target.arguments = Arguments::new(vec!["--seed=7".to_owned()], None);
    let mut s = Script::with(spec);
    s.on(nothing_found());
    s.on(ask(told("org/b", &["--seed=1"])));
    s.on(launched(1));
    s.on(healthy(1));
    s.on(load("org/c"));
    s.on(drained(1));
    assert_eq!(launched_arguments(&s.on(vacated(1)).effects), ["--seed=7"]);
    s.on(launched(2));
    s.on(exited(2));
    assert_eq!(launched_arguments(&s.on(vacated(2)).effects), ["--seed=1"]);
}

#[test]
fn what_an_earlier_supervisor_has_switched_to_is_served_on_and_gone_back_from() {
    for (phase, after_a_failure) in [(Phase::Serving, "org/b"), (Phase::Loading, "org/a")] {
        let mut s = Script::unknown();
        s.on(start());
        let found = s.on(adopted_in(phase, 1, "org/b"));
        assert_eq!(found.path, [ServiceState::Starting]);
        let (from, to, extra_args) = (model("org/a"), model("org/b"), None);
        let wanted = EventKind::ModelWanted { from, to, extra_args };
        assert!(found.events.contains(&wanted), "{found:?}");
        let mut fails = s.clone();
        fails.on(exited(1));
        let mut effects = fails.on(vacated(1)).effects;
        effects.extend(fails.on(restart_due(1)).effects);
        assert_eq!(launched_model(&effects), after_a_failure, "{phase:?}");
        s.on(healthy(1));
        s.on(exited(1));
        s.on(vacated(1));
        assert_eq!(launched_model(&s.on(restart_due(1)).effects), "org/b");
    }
}

#[test]
fn what_is_found_after_the_first_look_is_no_switch_of_another() {
    let mut s = Script::running();
    s.on(load("org/b"));
    s.on(drained(1));
    s.on(vacated(1));
    s.on(launched(2));
    s.on(load("org/a"));
    s.on(Input::ProcessActorLost);
    let found = s.on(adopted(2, "org/b"));
    assert!(
        !found.events.iter().any(|it| matches!(it, EventKind::ModelWanted { .. })),
        "{found:?}"
    );
    s.on(drained(2));
    assert_eq!(launched_model(&s.on(vacated(2)).effects), "org/a");
}

#[test]
fn who_wants_what_is_brought_back_goes_on_waiting() {
    let mut s = Script::running();
    s.on(ask(told("org/a", &["--seed=1"])));
    s.on(drained(1));
    s.on(vacated(1));
    s.on(launched(2));
    let (strict, easy) = (Ticket::new(7), Ticket::new(8));
    let load = |wanted| Request::Load { wanted, asker: Asker::Program };
    s.on(Input::Request(strict, load(told("org/a", &["--seed=1"]))));
    s.on(Input::Request(easy, load(model("org/a").into())));
    let failed = s.on(exited(2));
    let answered: Vec<_> = failed.answers.iter().map(|(ticket, _)| *ticket).collect();
    assert!(answered.contains(&strict) && !answered.contains(&easy), "{:?}", failed.answers);
    s.on(vacated(2));
    s.on(launched(3));
    assert!(s.on(healthy(3)).answers.contains(&(easy, Ok(()))));
}

fn launched_arguments(effects: &[Effect]) -> &[String] {
    let launched = effects.iter().find_map(|effect| match effect {
        Effect::Launch { target, .. } => Some(target.arguments.words()),
        _ => None,
    });
    launched.expect("something is launched")
}

fn launched_model(effects: &[Effect]) -> &str {
    effects
        .iter()
        .find_map(
            |effect| if let Effect::Launch { target, .. } = effect { Some(target) } else { None },
        )
        .map_or("nothing", |target| target.model.as_str())
}
