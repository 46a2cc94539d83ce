//! A vLLM that serves and does not move.

use std::time::Duration;

use super::crashing::recorded;
use super::script::{Script, felt, healthy, no, tried, unhealthy, vitals_due};
use crate::domain::cause::Code;
use crate::domain::input::{Effect, Input, Timer};
use crate::domain::liveness::{Pulse, Rest, Trial};
use crate::domain::report::{Halt, ProcessReport, Role, Sample};
use crate::domain::state::ServiceState;

fn pulse(requests: u64) -> Pulse {
    Pulse { requests, mark: 7, rest: Rest::Awake, connections: Some(requests) }
}

fn seen(incarnation: u64, halt: Halt) -> Input {
    let sample = Sample { halt, ..Sample::default() };
    Input::Process(ProcessReport::Sampled { incarnation: no(incarnation), sample })
}

/// Looks at it for so long.
fn look(s: &mut Script, seconds: u64, halt: &Halt, requests: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    for _ in 0..seconds / 5 {
        s.wait(5);
        for input in [vitals_due(1), seen(1, halt.clone()), felt(1, Some(pulse(requests)))] {
            effects.extend(s.on(input).effects);
        }
    }
    effects
}

fn asks(effects: &[Effect]) -> usize {
    effects.iter().filter(|it| matches!(it, Effect::AskForToken { .. })).count()
}

#[test]
fn what_serves_is_looked_at_for_as_long_as_it_does() {
    let mut s = Script::starting();
    assert_eq!(s.on(healthy(1)).scheduled(Timer::Vitals), Some(Duration::from_secs(5)));
    s.wait(5);
    let look = s.on(vitals_due(1));
    assert!(look.effects.iter().any(|it| matches!(it, Effect::Sample { .. })));
    assert!(look.effects.iter().any(|it| matches!(it, Effect::FeelPulse { .. })));
    assert_eq!(look.scheduled(Timer::Vitals), Some(Duration::from_secs(5)));
    s.on(super::script::exited(1));
    assert!(s.on(vitals_due(1)).is_nothing());
}

#[test]
fn an_engine_that_hangs_is_asked_for_a_token_then_killed_and_restarted() {
    let mut s = Script::running();
    assert_eq!(asks(&look(&mut s, 20, &Halt::None, 2)), 1);
    look(&mut s, 10, &Halt::None, 2);
    let hung = s.on(tried(1, Trial::None));
    assert_eq!(hung.path, [ServiceState::Crashed]);
    assert!(hung.effects.iter().any(|it| matches!(it, Effect::Clear { .. })));
    let cause = &recorded(&hung.events).cause;
    assert_eq!(cause.code, Code::EngineHung);
    assert!(cause.summary.starts_with("vLLM hangs: 2 requests are in hand"), "{cause}");
    assert!(cause.remedy().contains("py-spy"));
    assert_eq!(hung.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
}

#[test]
fn a_stopped_worker_is_the_end_of_a_server_that_nobody_uses() {
    let mut s = Script::running();
    look(&mut s, 10, &Halt::Some(vec![(7, Role::Worker)]), 0);
    let cause = s.machine.last_error().expect("it hangs").clone();
    assert_eq!(cause.code, Code::EngineHung);
    assert_eq!(cause.summary, "vLLM hangs: worker 7 is stopped (SIGSTOP) while the others run");
}

#[test]
fn what_is_suspended_as_a_whole_is_not_held_to_answer() {
    let mut s = Script::running();
    look(&mut s, 5, &Halt::All, 2);
    for _ in 0..100 {
        look(&mut s, 5, &Halt::All, 2);
        assert!(s.on(unhealthy(1)).is_nothing());
    }
    assert_eq!(s.state(), ServiceState::Running);
    // It goes on, has a moment for it, and is held to it again.
    look(&mut s, 5, &Halt::None, 0);
    assert!(s.on(unhealthy(1)).is_nothing());
    look(&mut s, 10, &Halt::None, 0);
    for _ in 0..3 {
        s.on(unhealthy(1));
    }
    assert_eq!(s.state(), ServiceState::Crashed);
}

#[test]
fn a_standstill_of_ours_is_no_hang_of_vllm() {
    let mut s = Script::running();
    look(&mut s, 5, &Halt::None, 2);
    s.wait(3600);
    assert_eq!(asks(&look(&mut s, 10, &Halt::None, 2)), 0);
}

#[test]
fn what_is_said_of_the_launch_before_is_not_held_against_this_one() {
    let mut s = Script::running();
    look(&mut s, 20, &Halt::None, 2);
    for past in [tried(0, Trial::None), felt(0, Some(pulse(9))), seen(0, Halt::All), vitals_due(0)]
    {
        assert!(s.on(past).is_nothing());
    }
}

#[test]
fn a_token_that_we_slept_through_is_not_held_against_it() {
    let mut s = Script::running();
    assert_eq!(asks(&look(&mut s, 20, &Halt::None, 2)), 1);
    s.wait(60);
    assert!(s.on(tried(1, Trial::None)).path.is_empty());
}

#[test]
fn a_front_that_works_and_answers_late_is_not_called_unhealthy() {
    let mut s = Script::running();
    let mut front = Duration::ZERO;
    for look in 0..10 {
        s.wait(5);
        front += Duration::from_secs(2);
        let sample = Sample { front, ..Sample::default() };
        s.on(Input::Process(ProcessReport::Sampled { incarnation: no(1), sample }));
        assert!(look == 0 || s.on(unhealthy(1)).is_nothing(), "{look}");
    }
    let refused = s.on(super::script::unauthorised(1));
    assert_eq!(refused.events.len(), 1, "{refused:?}");
    s.on(healthy(1));
    s.wait(20);
    assert_eq!(s.on(unhealthy(1)).events.len(), 1, "it does nothing any more");
}
