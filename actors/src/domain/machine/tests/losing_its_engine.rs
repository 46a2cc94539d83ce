//! A load that loses a process which vLLM needs, while its front still answers.

use super::script::{Script, adopted, healthy, listener_unknown, loader, member_died};
use crate::domain::cause::Code;
use crate::domain::diagnosis::Exit;
use crate::domain::loading::LoadNews;
use crate::domain::report::Role;
use crate::domain::state::ServiceState;

#[test]
fn what_was_found_and_has_lost_its_engine_has_crashed() {
    let mut s = Script::unknown();
    s.on(adopted(1, "org/a"));
    s.on(member_died(1, Role::EngineCore, Exit::Unknown));
    assert_eq!(s.state(), ServiceState::Crashed);
}

#[test]
fn no_check_passes_once_the_engine_has_died_while_loading() {
    for exit in [Exit::Code(1), Exit::Unknown, Exit::Signal(15)] {
        let mut s = Script::starting();
        s.on(member_died(1, Role::EngineCore, exit));
        s.on(healthy(1));
        assert_eq!(s.state(), ServiceState::Starting, "{exit:?}");
        // The front, which goes on talking, never says why.
        s.on(loader(1, LoadNews::Listens));
        s.wait_in_silence(9);
        assert_eq!(s.state(), ServiceState::Starting, "{exit:?}");
        s.wait_in_silence(2);
        assert_eq!(s.last_error(), Some(Code::EngineDied), "{exit:?}");
    }
}

#[test]
fn the_first_death_of_a_load_is_its_cause_whatever_follows() {
    let mut s = Script::starting();
    s.on(member_died(1, Role::Worker, Exit::Code(7)));
    s.wait_in_silence(8);
    s.on(member_died(1, Role::EngineCore, Exit::Code(1)));
    s.wait_in_silence(3);
    let said = s.machine.last_error().map(|cause| cause.summary.clone()).unwrap_or_default();
    assert!(said.starts_with("worker"), "{said}");
}

#[test]
fn a_process_that_was_there_to_find_something_out_may_fail() {
    let mut s = Script::starting();
    s.on(member_died(1, Role::Untitled, Exit::Code(1)));
    assert_eq!(s.on(healthy(1)).path, [ServiceState::Running]);
}

#[test]
fn a_server_that_nobody_can_look_at_is_not_ended_as_stalled() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Began));
    s.on(loader(1, LoadNews::Listens));
    for _ in 0..50 {
        s.on(listener_unknown(1));
        s.wait_in_silence(10);
    }
    assert_eq!(s.state(), ServiceState::Starting);
    s.wait_in_silence(600);
    let said = s.machine.last_error().map(|cause| cause.summary.clone()).unwrap_or_default();
    assert!(said.contains("cannot be told whose"), "{said}");
}
