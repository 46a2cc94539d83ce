//! What an earlier supervisor, or a process actor that was lost, has left.

use super::script::{
    Script, adopted, drained, ensure, exited, healthy, launched, load, model, no, nothing_found,
    remnant_found, restart_due, start, stop, stranger_found, unauthorised, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::{Exit, Phase};
use crate::domain::input::{Effect, Input, StopMode};
use crate::domain::machine::{Machine, Resume};
use crate::domain::report::ProcessReport;
use crate::domain::state::ServiceState;

#[test]
fn the_first_thing_is_to_look() {
    let begin = Machine::new(super::script::spec(), Resume::default()).begin();
    assert_eq!((begin.effects, begin.events), (vec![Effect::Adopt], Vec::new()));
}

#[test]
fn what_is_found_is_taken_over_unless_it_is_not_wanted() {
    for wish in [None, Some(ensure()), Some(start())] {
        let mut s = Script::unknown();
        wish.map(|wish| s.on(wish));
        assert_eq!(s.on(adopted(7, "org/a")).path, [ServiceState::Starting]);
        assert_eq!(s.on(healthy(7)).path, [ServiceState::Running]);
    }
    let mut s = Script::unknown();
    s.on(stop(StopMode::Graceful));
    assert_eq!(s.on(adopted(7, "org/a")).path, [ServiceState::Stopping]);
    assert_eq!(s.on(vacated(7)).path, [ServiceState::Stopped]);
}

#[test]
fn a_vllm_that_is_found_but_not_wanted_may_answer_its_requests_before_it_is_stopped() {
    let mut unwanted = Script::running();
    unwanted.on(Input::ProcessActorLost);
    unwanted.on(stop(StopMode::Graceful));
    let mut of_another_model = Script::unknown();
    of_another_model.on(load("org/b"));
    for mut s in [unwanted, of_another_model] {
        let found = s.on(adopted(1, "org/a")).effects;
        assert!(found.contains(&Effect::Drain { incarnation: no(1) }), "{found:?}");
        assert!(!found.iter().any(|it| matches!(it, Effect::Stop { .. })), "{found:?}");
        // It may load, and swallow the first SIGTERM.
        let effects = s.on(drained(1)).effects;
        let (mode, phase) = (StopMode::Graceful, Phase::Loading);
        let grace = s.machine.spec().grace;
        assert_eq!(effects, [Effect::Stop { incarnation: no(1), mode, phase, grace }]);
    }
}

#[test]
fn numbering_goes_on_from_what_was_adopted() {
    let mut s = Script::unknown();
    s.on(adopted(7, "org/a"));
    s.on(exited(7));
    s.on(vacated(7));
    assert_eq!(s.on(restart_due(7)).launched(), Some(8));
}

#[test]
fn a_remnant_is_cleared_away_before_anything_is_launched() {
    let mut s = Script::unknown();
    s.on(start());
    assert_eq!(s.on(remnant_found(7)).path, [ServiceState::Stopping]);
    assert_eq!(s.on(vacated(7)).launched(), Some(8));
}

#[test]
fn one_of_other_settings_may_answer_its_requests_before_it_is_stopped() {
    let mut s = Script::unknown();
    s.on(start());
    let found = s.on(stranger_found(7)).effects;
    assert!(found.contains(&Effect::Drain { incarnation: no(7) }), "{found:?}");
    assert!(!found.iter().any(|it| matches!(it, Effect::Stop { .. })), "{found:?}");
    let effects = s.on(drained(7)).effects;
    assert!(matches!(effects[..], [Effect::Stop { .. }]), "{effects:?}");
    assert_eq!(s.on(vacated(7)).launched(), Some(8));
}

#[test]
fn after_a_remnant_that_nobody_asked_for_it_rests() {
    let mut s = Script::unknown();
    s.on(remnant_found(7));
    assert_eq!(s.on(vacated(7)).path, [ServiceState::Stopped]);
}

#[test]
fn where_nothing_is_found_the_wish_decides() {
    let mut s = Script::unknown();
    assert_eq!(s.on(nothing_found()).path, [ServiceState::Stopped]);
    let mut s = Script::unknown();
    s.on(ensure());
    assert_eq!(s.on(nothing_found()).launched(), Some(1));
    let mut s = Script::unknown();
    s.on(start());
    s.on(stop(StopMode::Graceful));
    assert_eq!(s.on(nothing_found()).launched(), None);
}

#[test]
fn another_model_wanted_during_the_look_replaces_what_is_found() {
    let mut s = Script::unknown();
    s.on(load("org/b"));
    assert_eq!(s.on(adopted(7, "org/a")).path, [ServiceState::Stopping]);
    assert_eq!(&s.machine.target().model, &model("org/b"));
    assert_eq!(s.on(vacated(7)).launched(), Some(8));
}

#[test]
fn a_lost_process_actor_leaves_the_service_unknown_and_the_launch_wanted() {
    for mut s in [Script::starting(), Script::running()] {
        let lost = s.on(Input::ProcessActorLost);
        assert_eq!(lost.path, [ServiceState::Unknown]);
        assert_eq!(lost.effects, [Effect::Disregard, Effect::Adopt]);
        let mut other = s.clone();
        assert_eq!(s.on(nothing_found()).launched(), Some(2));
        assert_eq!(other.on(adopted(1, "org/a")).path, [ServiceState::Starting]);
        assert_eq!(other.on(healthy(1)).path, [ServiceState::Running]);
    }
}

#[test]
fn a_lost_process_actor_does_not_undo_a_stop() {
    let mut s = Script::running();
    s.on(stop(StopMode::Graceful));
    s.on(Input::ProcessActorLost);
    assert_eq!(s.on(nothing_found()).path, [ServiceState::Stopped]);
}

#[test]
fn a_lost_process_actor_means_nothing_where_nothing_is_alive() {
    let mut backing_off = Script::crashed();
    backing_off.on(vacated(1));
    for mut s in [Script::stopped(), Script::failed(), backing_off] {
        assert!(s.on(Input::ProcessActorLost).is_nothing());
    }
}

#[test]
fn a_lost_process_actor_does_not_shorten_a_delay() {
    let mut s = Script::crashed();
    assert_eq!(s.on(Input::ProcessActorLost).effects, [Effect::Adopt]);
    assert!(s.on(nothing_found()).is_nothing());
    s.wait(2);
    assert_eq!(s.on(restart_due(1)).launched(), Some(2));
}

#[test]
fn what_is_left_of_a_crash_is_still_cleared_by_the_next_process_actor() {
    let mut s = Script::crashed();
    s.on(Input::ProcessActorLost);
    s.on(restart_due(1));
    let effects = s.on(remnant_found(1)).effects;
    assert!(matches!(effects[..], [Effect::Clear { .. }]), "{effects:?}");
    assert_eq!(s.on(vacated(1)).launched(), Some(2));
}

#[test]
fn a_lost_process_actor_does_not_make_a_permanent_cause_forgotten() {
    let mut s = Script::starting();
    let exit = Exit::Code(2);
    s.on(Input::Process(ProcessReport::Exited { incarnation: super::script::no(1), exit }));
    s.on(Input::ProcessActorLost);
    assert_eq!(s.on(nothing_found()).path, [ServiceState::Failed]);
    assert_eq!(s.last_error(), Some(Code::ArgumentsRejected));
}

#[test]
fn a_hasty_stop_does_not_take_what_is_still_looked_for_to_be_gone() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    assert!(s.on(stop(StopMode::Immediate)).is_nothing());
    assert_eq!(s.on(adopted(1, "org/a")).path, [ServiceState::Stopping]);
}

#[test]
fn the_second_loss_in_a_row_looks_again() {
    let mut s = Script::running();
    s.on(Input::ProcessActorLost);
    assert_eq!(s.on(Input::ProcessActorLost).effects, [Effect::Adopt]);
    s.on(launched(1));
    assert_eq!(s.state(), ServiceState::Unknown);
}

/// It was started by somebody who had another one: the next has ours.
#[test]
fn a_vllm_with_another_api_key_is_named_as_such_and_replaced() {
    let mut s = Script::unknown();
    s.on(adopted(1, "org/a"));
    for _ in 0..2 {
        assert!(s.on(unauthorised(1)).is_nothing());
    }
    assert_eq!(s.on(unauthorised(1)).path, [ServiceState::Crashed]);
    assert_eq!(s.last_error(), Some(Code::InvalidConfiguration));
    s.on(vacated(1));
    assert_eq!(s.on(restart_due(1)).launched(), Some(2));
}
