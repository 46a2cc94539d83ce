//! By checks alone.

use super::*;

fn external() -> Script {
    Script::of(LifecycleMode::External, None)
}

fn running() -> Script {
    let mut s = external();
    s.passes();
    s.done();
    s
}

#[test]
fn who_answers_runs_and_is_asked_at_leisure() {
    let mut s = external();
    let incarnation = s.watch.incarnation();
    assert_eq!(s.done(), [Effect::Watch { incarnation }]);
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
    let effects = s.done();
    assert!(effects.contains(&Effect::FinishLoading { incarnation }), "{effects:?}");
    assert_eq!(s.watch.pid(), None);
}

#[test]
fn whom_nobody_can_reach_is_unknown_and_says_where_nobody_answered() {
    let mut s = external();
    s.fails(nobody());
    assert_eq!(s.state, ServiceState::Unknown);
    let cause = s.watch.last_error().unwrap();
    assert!(cause.summary.contains("http://h/health"), "{cause}");
    s.passes();
    assert_eq!((s.state, s.watch.last_error()), (ServiceState::Running, None));
}

#[test]
fn one_that_serves_is_lost_after_as_many_failures_as_are_allowed() {
    let mut s = running();
    s.fails_times(2, &nobody());
    assert_eq!(s.state, ServiceState::Running);
    s.passes();
    s.fails_times(2, &nobody());
    assert_eq!(s.state, ServiceState::Running);
    s.fails(nobody());
    assert_eq!(s.state, ServiceState::Unknown);
    let checks = |s: &Script| {
        s.events.iter().filter(|it| matches!(it, EventKind::HealthChanged { .. })).count()
    };
    let told = checks(&s);
    s.fails_times(50, &nobody());
    assert_eq!(checks(&s), told, "each check of one that is gone is an event");
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
}

#[test]
fn vllm_that_says_that_its_engine_is_dead_has_crashed_and_is_recorded() {
    let mut s = running();
    let dead = HealthFailure::Refused { url: "http://h/health".into(), status: 503 };
    s.wait(Duration::from_secs(60));
    s.fails_times(3, &dead);
    assert_eq!((s.state, s.code()), (ServiceState::Crashed, Some(Code::EngineDied)));
    let [incident] = s.incidents()[..] else { panic!("{:?}", s.events) };
    assert_eq!(incident.healthy_for, Some(Duration::from_secs(60)));
    assert_eq!(incident.restart_after, None);
    s.wait(Duration::from_secs(9));
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
    let recovery = s.events.iter().find_map(|event| match event {
        EventKind::ServiceRecovered { recovery } => Some(recovery.downtime),
        _ => None,
    });
    assert_eq!(recovery, Some(Duration::from_secs(9)));
}

#[test]
fn one_that_serves_another_model_is_told_of_with_what_to_write() {
    let mut s = external();
    s.fails(other_model());
    assert_eq!((s.state, s.code()), (ServiceState::Unknown, Some(Code::InvalidConfiguration)));
    assert!(s.watch.last_error().unwrap().remedy().contains("org/other"));
}

#[test]
fn a_reason_that_changes_is_told_once_though_the_state_does_not() {
    let mut s = external();
    let told = |s: &Script| {
        let causes = s.events.iter().filter_map(|event| match event {
            EventKind::StateExplained { cause } => Some(cause.code),
            _ => None,
        });
        causes.collect::<Vec<_>>()
    };
    s.fails_times(3, &nobody());
    assert_eq!(told(&s), [Code::Unrecognised]);
    s.fails_times(3, &other_model());
    assert_eq!(told(&s), [Code::Unrecognised, Code::InvalidConfiguration]);
    s.passes();
    s.fails_times(9, &nobody());
    assert_eq!(told(&s).len(), 2, "it is told with the state");
}

#[test]
fn who_asks_whether_it_is_healthy_is_told_by_the_next_check() {
    let mut s = external();
    s.done();
    let ticket = s.ask(Request::Ensure);
    let incarnation = s.watch.incarnation();
    assert_eq!(s.done(), [Effect::Probe { incarnation }]);
    assert_eq!(s.answer(ticket), None);
    s.fails(nobody());
    assert!(matches!(s.answer(ticket), Some(Err(CommandError::Failed(_)))), "{:?}", s.answers);
    let ticket = s.ask(Request::Ensure);
    s.passes();
    assert_eq!(s.answer(ticket), Some(&Ok(())));
    let wanted = s.watch.target().model.clone().into();
    let same = s.ask(Request::Load { wanted, asker: Asker::Program });
    assert_eq!(s.answer(same), Some(&Ok(())));
}

fn is_asked(s: &mut Script) -> bool {
    s.done().iter().any(|effect| matches!(effect, Effect::AskForToken { .. }))
}

/// One that stands still with a request in hand, and answers checks all the while.
fn hung() -> Script {
    let mut s = running();
    s.beats(1, 5);
    let mut waited = Duration::ZERO;
    // As long as vLLM gives a step: what its processors do cannot be seen from here.
    while !is_asked(&mut s) {
        s.looks();
        s.passes();
        s.beats(1, 5);
        waited += Duration::from_secs(5);
        assert!(waited < Duration::from_secs(400), "{:?}", s.events);
    }
    assert!(waited >= Duration::from_secs(300), "{waited:?}");
    s.wait(Duration::from_secs(10));
    s.on(Input::Tried(s.watch.incarnation(), Trial::None));
    assert_eq!((s.state, s.code()), (ServiceState::Crashed, Some(Code::EngineHung)));
    s
}

#[test]
fn one_that_hangs_behind_a_healthy_front_is_found_by_a_token() {
    let mut s = hung();
    s.passes();
    assert_eq!(s.state, ServiceState::Crashed, "its front answers, as it did before");
    let ticket = s.ask(Request::Ensure);
    assert!(matches!(s.answer(ticket), Some(Err(CommandError::Failed(_)))));
    s.done();
    s.looks();
    assert!(is_asked(&mut s));
    s.on(Input::Tried(s.watch.incarnation(), Trial::Made));
    assert_eq!(s.state, ServiceState::Running);
}

#[test]
fn one_that_hung_and_was_started_anew_serves_though_it_gives_no_token() {
    for goes_away in [true, false] {
        let mut s = hung();
        s.fails(late());
        s.passes();
        assert_eq!(s.state, ServiceState::Crashed, "late is not gone");
        if goes_away {
            s.fails(nobody());
        } else {
            s.on(Input::Tried(s.watch.incarnation(), Trial::Unfit));
        }
        s.passes();
        assert_eq!(s.state, ServiceState::Running, "{goes_away}");
    }
}

#[test]
fn one_that_has_nothing_to_do_is_left_alone() {
    let mut s = running();
    for _ in 0..200 {
        s.looks();
        s.beats(0, 5);
    }
    assert!(s.done().iter().all(|effect| !matches!(effect, Effect::AskForToken { .. })));
    assert_eq!(s.state, ServiceState::Running);
}
