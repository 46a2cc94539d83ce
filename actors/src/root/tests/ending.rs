//! The supervisor's own end, asked for or not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_stops_on_exit_stops_vllm_before_it_ends() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    assert_eq!(harness.path()[2..], [Running, Stopping, Stopped]);
    assert_eq!(calls(&process), [Call::Signalled(Signal::Terminate), Call::Swept]);
    assert_eq!(harness.world.journal.orphaned(), []);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_detaches_leaves_vllm_alone_and_writes_that_down() {
    let (mut harness, process) = running(ExitPolicy::Detach).await;

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    assert_eq!(harness.path().last(), Some(&Running));
    assert_eq!(calls(&process), []);
    loses_its_owner(&harness, &process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_with_nothing_in_hand_ends_at_once() {
    for on_exit in [ExitPolicy::Stop, ExitPolicy::Detach] {
        let mut harness = resting(on_exit).await;
        harness.send(Command::Shutdown.into());
        harness.send(Command::Shutdown.into());
        harness.wait_for_end().await;
        assert_eq!(harness.world.journal.orphaned(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_ends_lets_go_of_the_gpus() {
    let mut harness = resting(ExitPolicy::Stop).await;
    harness.send(Command::Shutdown.into());
    harness.wait_for_end().await;
    in_time(harness.world.gpus.deserted()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_after_a_shutdown_is_refused_but_a_stop_still_hastens() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    process.ignore_sigterm();
    let begun = Instant::now();
    harness.send(Command::Shutdown.into());

    for command in [start, ensure, restart] {
        assert_eq!(harness.ask(command).answer().await, Some(Err(CommandError::SupervisorEnded)));
    }
    assert_eq!(
        harness.ask(load("org/second")).answer().await,
        Some(Err(CommandError::SupervisorEnded))
    );
    assert_eq!(harness.snapshot().state, Stopping);
    assert_eq!(harness.ask(stop_now).answer().await, Some(Ok(())));

    harness.wait_for_end().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(harness.path().last(), Some(&Stopped));
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_starting_tells_the_caller_so() {
    let (mut harness, process, started) = starting(ExitPolicy::Stop).await;
    harness.send(Command::Shutdown.into());
    assert_eq!(started.answer().await, Some(Err(CommandError::SupervisorEnded)));
    harness.wait_for_end().await;
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_detaches_while_starting_tells_the_caller_so() {
    let (mut harness, process, started) = starting(ExitPolicy::Detach).await;
    harness.send(Command::Shutdown.into());
    assert_eq!(started.answer().await, Some(Err(CommandError::SupervisorEnded)));
    harness.wait_for_end().await;
    loses_its_owner(&harness, &process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_before_anybody_has_looked_around_stops_what_is_found() {
    let world = World::default();
    world.launcher.hold_searches();
    let left = world.launcher.leave(FIRST, model("org/first"));
    let mut harness = Harness::begin(world, Plan::new(ExitPolicy::Stop)).await;
    harness.send(Command::Shutdown.into());
    let a_while = Duration::from_secs(20);
    harness.stays_for(a_while, |snapshot| snapshot.state == Unknown).await;

    harness.world.launcher.answer_searches();

    harness.wait_for_end().await;
    assert!(!left.is_alive());
    assert_eq!(harness.path().last(), Some(&Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_between_crash_and_restart_ends_without_a_launch() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;
    harness.send(Command::Shutdown.into());
    harness.wait_for_end().await;
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_outlives_sigkill_does_not_keep_the_supervisor() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    process.get_stuck(&[7]);
    let begun = Instant::now();

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    assert!(begun.elapsed() < MINUTE, "{:?}", begun.elapsed());
    eventually("the guard acts", || !harness.world.journal.orphaned().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_kills_vllm_if_it_stops_on_exit() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    harness.kill();
    harness.wait_for_end().await;
    loses_its_owner(&harness, &process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_keeps_vllm_if_it_detaches() {
    let (mut harness, process) = running(ExitPolicy::Detach).await;
    harness.kill();
    harness.wait_for_end().await;
    loses_its_owner(&harness, &process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_kills_vllm_if_it_stops_on_exit() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    let stopped = panic_at_a_stop(&harness);
    harness.wait_for_end().await;
    assert_eq!(stopped.answer().await, None);
    loses_its_owner(&harness, &process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_keeps_vllm_if_it_detaches() {
    let (mut harness, process) = running(ExitPolicy::Detach).await;
    let stopped = panic_at_a_stop(&harness);
    harness.wait_for_end().await;
    assert_eq!(stopped.answer().await, None);
    loses_its_owner(&harness, &process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_detaches_finishes_a_stop_that_was_asked_for() {
    let (mut harness, process) = running(ExitPolicy::Detach).await;
    process.ignore_sigterm();
    let stopped = harness.ask(stop);
    harness.wait_for(Stopping).await;

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    assert_eq!(stopped.answer().await, Some(Ok(())));
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_though_something_lingers_and_a_start_was_asked_for() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    process.get_stuck(&[7]);
    let answer = harness.ask(stop).answer().await;
    assert!(matches!(answer, Some(Err(CommandError::StillAlive(_)))), "{answer:?}");
    let answer = harness.ask(start).answer().await;
    assert!(matches!(answer, Some(Err(CommandError::StillAlive(_)))), "{answer:?}");

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_present_of_a_supervisor_is_what_is_still_known_and_its_last_event_says_why_it_ended()
 {
    for on_exit in [ExitPolicy::Stop, ExitPolicy::Detach] {
        for (end, reason) in [(End::InOrder, EndReason::ShutDown), (End::Killed, EndReason::Killed)]
        {
            let (mut harness, _) = running(on_exit).await;
            match end {
                End::InOrder => harness.send(Command::Shutdown.into()),
                End::Killed => harness.kill(),
            }
            harness.wait_for_end().await;
            let state = match (end, on_exit) {
                (End::InOrder, ExitPolicy::Stop) => Stopped,
                (End::InOrder, ExitPolicy::Detach) | (End::Killed, _) => Unknown,
            };
            eventually("it says so", || harness.snapshot().state == state).await;
            assert_eq!(harness.snapshot().pid, None);
            let last = harness.events().pop().map(|event| event.kind);
            assert_eq!(last, Some(EventKind::SupervisorEnded { reason }));
        }
    }
}

/// How a supervisor ends.
#[derive(Clone, Copy)]
enum End {
    InOrder,
    Killed,
}

/// The next event is one too many.
fn panic_at_a_stop(harness: &Harness) -> Outcome {
    harness.world.journal.panic_next();
    harness.ask(stop)
}

/// The guard has acted, once, and has written down how.
async fn loses_its_owner(harness: &Harness, process: &ScriptedProcess, outcome: OrphanOutcome) {
    let journal = &harness.world.journal;
    eventually("the guard acts", || !journal.orphaned().is_empty()).await;
    let ends = journal.orphaned();
    let [ended] = ends.as_slice() else { panic!("more than one end: {ends:?}") };
    assert_eq!((ended.incarnation, ended.pid), (process.incarnation(), Some(process.pid())));
    assert_eq!(ended.outcome, outcome);
    assert_eq!(process.is_alive(), outcome == OrphanOutcome::Kept);
}
