//! By its manager's word.

use super::*;

fn status(active: &str, sub: &str, pid: u32) -> UnitStatus {
    UnitStatus {
        active: Activity::named(active),
        sub: sub.to_owned(),
        main_pid: Some(pid).filter(|pid| *pid > 0),
        ..UnitStatus::inactive("vllm.service")
    }
}

fn ended(active: &str, sub: &str, result: &str, exit: Exit) -> UnitStatus {
    let restart_after = Some(Duration::from_millis(100));
    let result = result.to_owned();
    UnitStatus { result, exit: Some(exit), restart_after, ..status(active, sub, 0) }
}

impl Script {
    fn unit(&mut self, status: UnitStatus) {
        self.hear(UnitReading::Seen(status));
    }
}

fn monitored() -> Script {
    Script::of(LifecycleMode::Monitored, Some("vllm.service"))
}

fn running() -> Script {
    let mut s = monitored();
    s.unit(status("active", "running", 41));
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
    s.done();
    s
}

#[test]
fn a_unit_is_asked_how_it_is_once_its_manager_runs_it() {
    let mut s = monitored();
    assert!(s.done().is_empty());
    s.unit(status("inactive", "dead", 0));
    assert_eq!((s.state, s.done()), (ServiceState::Stopped, vec![Effect::Disregard]));
    s.passes();
    assert_eq!(s.state, ServiceState::Stopped, "a late answer is no news");
    s.unit(status("activating", "start", 0));
    assert_eq!(s.state, ServiceState::Starting);
    s.unit(status("active", "running", 41));
    let incarnation = Incarnation::new(8);
    assert_eq!(s.done(), [Effect::Watch { incarnation }]);
    assert_eq!((s.watch.incarnation(), s.watch.pid()), (incarnation, Some(41)));
    s.fails(nobody());
    assert_eq!(s.state, ServiceState::Starting);
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
    assert!(s.incidents().is_empty());
}

#[test]
fn a_unit_that_dies_and_is_restarted_has_crashed_and_recovers() {
    let mut s = running();
    s.wait(Duration::from_secs(5));
    s.unit(ended("deactivating", "final-sigterm", "signal", Exit::Signal(9)));
    assert_eq!((s.state, s.code()), (ServiceState::Crashed, Some(Code::EngineDied)));
    assert!(s.incidents().is_empty(), "what follows is not known");
    let waits = s.ask(Request::Ensure);
    s.unit(ended("activating", "auto-restart", "signal", Exit::Signal(9)));
    let [incident] = s.incidents()[..] else { panic!("{:?}", s.events) };
    assert_eq!(incident.restart_after, Some(Duration::from_millis(100)));
    assert_eq!(incident.exits.len(), 1);
    assert_eq!((incident.exits[0].pid, incident.exits[0].exit), (41, Exit::Signal(9)));
    assert!(s.events.iter().any(|it| matches!(it, EventKind::RestartScheduled { .. })));
    s.unit(status("active", "running", 42));
    assert_eq!((s.state, s.watch.pid()), (ServiceState::Starting, Some(42)));
    assert_eq!((s.watch.ledger().total(), s.watch.ledger().in_window(s.now)), (1, 1));
    assert_eq!(s.answer(waits), None);
    s.passes();
    assert_eq!((s.state, s.answer(waits)), (ServiceState::Running, Some(&Ok(()))));
    assert_eq!(s.incidents().len(), 1);
}

#[test]
fn every_way_of_systemd_to_tell_of_a_crash_is_one() {
    let exit = Exit::Code(1);
    for steps in [
        vec![ended("activating", "auto-restart", "exit-code", exit)],
        vec![
            ended("failed", "failed-before-auto-restart", "exit-code", exit),
            ended("activating", "auto-restart", "exit-code", exit),
            ended("activating", "auto-restart-queued", "exit-code", exit),
        ],
        vec![
            ended("deactivating", "stop-sigterm", "watchdog", exit),
            ended("deactivating", "stop-post", "watchdog", exit),
            ended("activating", "auto-restart", "watchdog", exit),
        ],
        // Nothing of it was heard.
        vec![],
    ] {
        let mut s = running();
        for step in &steps {
            s.unit(step.clone());
            assert_eq!(s.state, ServiceState::Crashed, "{step:?}");
        }
        s.unit(UnitStatus { exit: Some(exit), ..status("active", "running", 42) });
        assert_eq!(s.state, ServiceState::Starting, "{steps:?}");
        assert_eq!((s.incidents().len(), s.watch.ledger().total()), (1, 1), "{steps:?}");
        s.passes();
        assert_eq!(s.state, ServiceState::Running);
    }
}

#[test]
fn a_unit_that_somebody_stops_is_no_crash() {
    let mut s = running();
    let waits = s.ask(Request::Ensure);
    assert_eq!(s.answer(waits), Some(&Ok(())));
    s.unit(status("deactivating", "stop-sigterm", 41));
    assert_eq!((s.state, s.done()), (ServiceState::Stopping, vec![Effect::Disregard]));
    let waits = s.ask(Request::Ensure);
    s.unit(ended("deactivating", "final-sigterm", "success", Exit::Code(0)));
    assert_eq!(s.state, ServiceState::Stopping);
    s.unit(ended("inactive", "dead", "success", Exit::Code(0)));
    assert_eq!((s.state, s.watch.last_error()), (ServiceState::Stopped, None));
    assert!(matches!(s.answer(waits), Some(Err(CommandError::NotManaged { .. }))));
    assert!(s.incidents().is_empty());
    s.unit(status("active", "running", 43));
    s.passes();
    assert_eq!((s.state, s.watch.ledger().total()), (ServiceState::Running, 0));
}

#[test]
fn vllm_that_ends_with_status_0_by_itself_is_a_crash_that_nobody_cures() {
    let mut s = running();
    let waits = {
        s.unit(ended("deactivating", "final-sigterm", "success", Exit::Code(0)));
        s.ask(Request::Ensure)
    };
    s.unit(ended("inactive", "dead", "success", Exit::Code(0)));
    assert_eq!((s.state, s.code()), (ServiceState::Crashed, Some(Code::EngineDied)));
    assert!(matches!(s.answer(waits), Some(Err(CommandError::Failed(_)))));
    let [incident] = s.incidents()[..] else { panic!("{:?}", s.events) };
    assert_eq!((incident.restart_after, incident.exits.len()), (None, 1));
    s.unit(ended("inactive", "dead", "success", Exit::Code(0)));
    assert_eq!((s.state, s.incidents().len()), (ServiceState::Crashed, 1));
}

#[test]
fn a_unit_that_its_manager_gives_up_has_failed_with_the_managers_reason() {
    for (result, code) in [
        ("start-limit-hit", Code::RestartLimitReached),
        ("oom-kill", Code::KilledForMemory),
        ("watchdog", Code::EngineHung),
        ("exit-code", Code::EngineDied),
    ] {
        let mut s = running();
        s.unit(ended("failed", "failed", result, Exit::Code(1)));
        assert_eq!((s.state, s.code()), (ServiceState::Failed, Some(code)), "{result}");
        assert_eq!(s.incidents().len(), 1, "{result}");
        let ticket = s.ask(Request::Ensure);
        assert!(matches!(s.answer(ticket), Some(Err(CommandError::Failed(_)))));
        s.unit(ended("failed", "failed", result, Exit::Code(1)));
        assert_eq!(s.incidents().len(), 1, "{result}");
        // An operator starts it.
        s.unit(status("active", "running", 42));
        s.passes();
        assert_eq!((s.state, s.watch.last_error()), (ServiceState::Running, None));
    }
}

#[test]
fn a_restart_that_is_called_off_is_a_stop() {
    let mut s = running();
    s.unit(ended("activating", "auto-restart", "signal", Exit::Signal(9)));
    s.unit(ended("inactive", "dead", "success", Exit::Signal(9)));
    assert_eq!((s.state, s.watch.last_error()), (ServiceState::Stopped, None));
}

#[test]
fn a_manager_that_cannot_be_asked_leaves_it_unknown() {
    for reading in [UnitReading::Unseen("no bus".to_owned()), UnitReading::NotFound] {
        let mut s = running();
        s.hear(reading.clone());
        assert_eq!(s.state, ServiceState::Unknown);
        assert!(s.watch.obstacle().is_some());
        let told = s.events.len();
        s.hear(reading);
        assert_eq!(s.events.len(), told);
        let ticket = s.ask(Request::Ensure);
        assert!(matches!(s.answer(ticket), Some(Err(CommandError::Failed(_)))));
        // It is the same process: that is no restart.
        let before = s.watch.incarnation();
        s.unit(status("active", "running", 41));
        s.passes();
        assert_eq!((s.state, s.watch.obstacle()), (ServiceState::Running, None));
        assert_eq!((s.watch.incarnation(), s.watch.ledger().total()), (before, 0));
    }
}

#[test]
fn a_unit_that_runs_and_answers_nothing_is_judged_dead() {
    let mut s = running();
    s.fails_times(3, &late());
    assert_eq!((s.state, s.code()), (ServiceState::Crashed, Some(Code::EngineHung)));
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
    s.fails_times(3, &late());
    s.unit(status("deactivating", "stop-sigterm", 41));
    s.unit(status("inactive", "dead", 0));
    assert_eq!(s.state, ServiceState::Stopped);
}

#[test]
fn a_stranger_at_the_port_is_not_taken_for_the_unit() {
    let mut s = monitored();
    s.unit(status("active", "running", 41));
    let holder = crate::domain::listener::ResourceHolder {
        pid: Some(9),
        command: None,
        user: "eve".to_owned(),
    };
    s.fails_times(3, &HealthFailure::PortTaken { url: "http://h".to_owned(), holder });
    assert_eq!((s.state, s.code()), (ServiceState::Unknown, Some(Code::PortInUse)));
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
}

#[test]
fn a_crash_whose_sequel_is_not_heard_of_is_recorded_all_the_same() {
    let dies = || ended("deactivating", "final-sigterm", "signal", Exit::Signal(9));
    let sequels: [fn(&mut Script); 4] = [
        |s| s.hear(UnitReading::Unseen("no bus".to_owned())),
        |s| s.unit(status("maintenance", "cleaning", 0)),
        |s| s.unit(status("activating", "start-pre", 0)),
        |s| s.on(Input::ShutDown),
    ];
    for sequel in sequels {
        let mut s = running();
        s.unit(dies());
        assert!(s.incidents().is_empty());
        sequel(&mut s);
        assert_eq!(s.incidents().len(), 1, "{:?}", s.events);
    }
}

#[test]
fn a_restart_that_begins_without_a_process_is_counted_and_is_another_run() {
    let mut s = running();
    let first = s.watch.incarnation();
    s.unit(ended("activating", "auto-restart", "signal", Exit::Signal(9)));
    s.unit(status("activating", "start-pre", 0));
    s.unit(status("active", "running", 42));
    s.passes();
    assert_eq!((s.watch.ledger().total(), s.watch.incarnation()), (1, first.next()));
    assert_eq!(s.incidents().len(), 1);
}

#[test]
fn a_front_that_exits_with_status_0_while_workers_linger_has_crashed() {
    let mut s = running();
    s.unit(ended("deactivating", "stop-sigterm", "success", Exit::Code(0)));
    assert_eq!(s.state, ServiceState::Crashed);
    s.unit(ended("inactive", "dead", "success", Exit::Code(0)));
    assert_eq!((s.state, s.incidents().len()), (ServiceState::Crashed, 1));
}

#[test]
fn a_stop_that_ends_badly_is_a_stop() {
    let mut s = running();
    s.unit(status("deactivating", "stop-sigterm", 41));
    let failed = ended("failed", "failed", "exit-code", Exit::Code(1));
    let group = Some("/system.slice/vllm.service".to_owned());
    s.unit(UnitStatus { control_group: group, ..failed.clone() });
    s.unit(failed);
    assert_eq!((s.state, s.watch.last_error()), (ServiceState::Stopped, None));
    assert!(s.incidents().is_empty());
}

#[test]
fn a_unit_that_runs_and_is_never_reached_is_told_of_after_the_time_of_a_load() {
    let mut s = monitored();
    s.unit(status("active", "running", 41));
    let waits = s.ask(Request::Ensure);
    let half = s.watch.spec().model_load_timeout / 2;
    s.wait(half);
    s.fails_times(9, &nobody());
    assert_eq!((s.state, s.answer(waits)), (ServiceState::Starting, None));
    s.wait(half);
    s.fails(nobody());
    assert_eq!(s.state, ServiceState::Unknown);
    assert!(matches!(s.answer(waits), Some(Err(CommandError::Failed(_)))));
    s.passes();
    assert_eq!(s.state, ServiceState::Running);
}

#[test]
fn who_asks_for_a_unit_of_which_nothing_is_clear_is_told_so() {
    let mut s = running();
    s.unit(status("maintenance", "cleaning", 0));
    let ticket = s.ask(Request::Ensure);
    let Some(Err(CommandError::Failed(cause))) = s.answer(ticket) else {
        panic!("{:?}", s.answers);
    };
    assert!(cause.summary.contains("cleaning"), "{cause}");
}

#[test]
fn a_unit_whose_sockets_nobody_here_may_see_is_told_of() {
    let mut s = monitored();
    s.unit(status("active", "running", 41));
    let waits = s.ask(Request::Ensure);
    let reason = "descriptors of pid 41: denied".to_owned();
    s.fails_times(3, &HealthFailure::ListenerUnknown { url: "http://h".to_owned(), reason });
    assert_eq!(s.state, ServiceState::Unknown);
    assert!(s.watch.last_error().unwrap().remedy().contains("root"));
    assert!(matches!(s.answer(waits), Some(Err(CommandError::Failed(_)))));
}
