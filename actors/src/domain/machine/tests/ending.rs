//! The supervisor's own end.

use super::cases::{Situation, machine_in};
use super::script::{
    Script, adopted, drained, exited, lingered, noon, nothing_found, restart_due, spec, start,
    stop, vacated,
};
use crate::domain::input::{Effect, Input, Request, StopMode, Timer};
use crate::domain::machine::Machine;
use crate::domain::spec::{ExitPolicy, ServiceSpec};
use crate::domain::state::ServiceState;
use crate::domain::ticket::{CommandError, Ticket};

fn detaching(situation: Situation) -> Script {
    let spec = ServiceSpec { on_exit: ExitPolicy::Detach, ..spec() };
    Script { machine: Machine { spec, ..machine_in(situation) }, now: noon() }
}

fn stopping(situation: Situation) -> Script {
    Script { machine: machine_in(situation), now: noon() }
}

fn ends(effects: &[Effect]) -> bool {
    effects.contains(&Effect::End)
}

#[test]
fn from_every_situation_the_end_comes_and_nothing_is_launched_any_more() {
    for &situation in Situation::ALL {
        for mut s in [detaching(situation), stopping(situation)] {
            let on_exit = s.machine.spec().on_exit;
            let mut effects = s.on(Input::ShutDown).effects;
            for input in [
                start(),
                drained(1),
                adopted(1, "org/a"),
                exited(1),
                vacated(1),
                nothing_found(),
                restart_due(1),
                start(),
            ] {
                effects.extend(s.on(input).effects);
            }
            let context = format!("{situation:?} {on_exit:?}: {effects:?}");
            assert_eq!(
                effects.iter().filter(|effect| **effect == Effect::End).count(),
                1,
                "{context}"
            );
            assert!(
                !effects.iter().any(|effect| matches!(effect, Effect::Launch { .. })),
                "{context}"
            );
        }
    }
}

#[test]
fn the_way_down_has_a_deadline_of_its_own() {
    for &situation in Situation::ALL {
        for mut s in [detaching(situation), stopping(situation)] {
            let shut_down = s.on(Input::ShutDown);
            let ended = ends(&shut_down.effects);
            assert!(ended || shut_down.scheduled(Timer::End).is_some(), "{situation:?}");
            s.wait(25);
            let at_the_deadline = s.on(Input::Due(Timer::End, s.machine.incarnation()));
            assert_eq!(ends(&at_the_deadline.effects), !ended, "{situation:?}");
        }
    }
}

#[test]
fn only_what_loads_or_serves_is_kept() {
    for kept in [Situation::Silent, Situation::Loading, Situation::Running] {
        let mut s = detaching(kept);
        let effects = s.on(Input::ShutDown).effects;
        assert!(ends(&effects), "{kept:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Stop { .. })), "{kept:?}");
    }
    let finished = [
        Situation::DrainRest,
        Situation::DrainUp,
        Situation::EndIdle,
        Situation::EndRest,
        Situation::EndUp,
        Situation::ClearAt,
        Situation::ClearGive,
    ];
    for finished in finished {
        let mut s = detaching(finished);
        assert!(!ends(&s.on(Input::ShutDown).effects), "{finished:?}");
        s.on(drained(1));
        let vacated = s.on(vacated(1));
        assert!(ends(&vacated.effects), "{finished:?}");
        assert_eq!(s.state(), ServiceState::Stopped);
    }
}

#[test]
fn what_outlives_sigkill_is_not_waited_for_though_a_start_was_asked_for() {
    let mut s = Script::ending();
    s.on(lingered(1));
    s.on(start());
    assert!(ends(&s.on(Input::ShutDown).effects));
}

#[test]
fn whoever_asks_for_something_on_the_way_down_is_told_and_a_stop_is_not_refused() {
    let mut s = Script::running();
    s.on(Input::ShutDown);
    let refused = s.on(Input::Request(Ticket::new(1), Request::Ensure));
    assert_eq!(refused.answers, [(Ticket::new(1), Err(CommandError::SupervisorEnded))]);
    assert!(refused.is_nothing());
    let hastened = s.on(stop(StopMode::Immediate));
    assert!(matches!(hastened.effects[..], [Effect::Stop { mode: StopMode::Immediate, .. }]));
}
