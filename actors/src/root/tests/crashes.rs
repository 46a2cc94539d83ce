//! Ends that nobody asked for.

use super::*;
use crate::domain::liveness::{Pulse, Rest, Trial};

#[tokio::test(start_paused = true)]
async fn a_crash_is_followed_by_a_restart_after_the_backoff() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let crashed = Instant::now();

    process.end(Exit::Signal(9));

    eventually("a second launch", || launches(&harness) == [1, 2]).await;
    assert!(crashed.elapsed() >= Duration::from_secs(2), "{:?}", crashed.elapsed());
    harness.wait_for(Running).await;
    assert_eq!(harness.path()[2..], [Running, Crashed, Starting, Running]);
    assert_eq!(harness.snapshot().restarts.total, 1);
}

#[tokio::test(start_paused = true)]
async fn the_count_of_restarts_is_published_when_it_falls_though_nothing_happens() {
    let mut plan = Plan::new(ExitPolicy::Stop);
    plan.health_interval = MINUTE * 60 * 24;
    let harness = Harness::begin(World::default(), plan).await;
    harness.world.probe.serve();
    assert_eq!(harness.ask(start).answer().await, Some(Ok(())));
    harness.world.launcher.last().end(Exit::Signal(9));
    harness.wait_until(|snapshot| snapshot.incarnation == SECOND).await;
    let restarted = Instant::now();
    harness.wait_for(Running).await;
    assert_eq!(harness.snapshot().restarts.in_window, 1);

    harness.wait_until(|snapshot| snapshot.restarts.in_window == 0).await;

    let after = restarted.elapsed();
    assert!(MINUTE <= after && after < MINUTE + Duration::from_secs(2), "{after:?}");
    assert_eq!(harness.snapshot().restarts.reset_at, None);
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_written_down_with_its_cause() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.write_last(&["EngineCore died"]);

    process.end(Exit::Code(0));

    harness.wait_for(Crashed).await;
    let records = harness.world.journal.incidents();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.incarnation, record.cause.code), (FIRST, Code::EngineDied));
    assert_eq!(record.cause.last_lines, ["EngineCore died"]);
    assert_eq!(record.restart_after, Some(Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_launched_before_everything_of_a_crash_is_gone() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.get_stuck(&[7]);
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;
    harness.stays_for(Duration::from_secs(8), |_| launches(&harness) == [1]).await;

    process.come_loose();

    eventually("a second launch", || launches(&harness) == [1, 2]).await;
    harness.wait_for(Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_cause_that_no_restart_cures_is_told_to_everybody_who_waits() {
    let harness = resting(ExitPolicy::Stop).await;
    let cause = Cause::new(Code::VllmNotFound, "there is no program vllm");
    harness.world.launcher.refuse_next(cause.clone());

    let callers = [harness.ask(start), harness.ask(ensure)];

    for caller in callers {
        assert_eq!(caller.answer().await, Some(Err(CommandError::Failed(cause.clone()))));
    }
    assert_eq!(harness.snapshot().state, Failed);
    assert_eq!(harness.snapshot().last_error, Some(cause));
}

#[tokio::test(start_paused = true)]
async fn a_failed_service_stays_failed_for_a_program_and_is_started_by_an_operator() {
    let harness = resting(ExitPolicy::Stop).await;
    harness.world.probe.serve();
    let cause = Cause::new(Code::VllmNotFound, "there is no program vllm");
    harness.world.launcher.refuse_next(cause.clone());
    harness.ask(start).answer().await;

    let begun = Instant::now();
    assert_eq!(harness.ask(ensure).answer().await, Some(Err(CommandError::Failed(cause))));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(launches(&harness), [1]);

    assert_eq!(harness.ask(start).answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_waits_through_a_crash_is_answered_by_the_restart() {
    let (harness, process, started) = starting(ExitPolicy::Stop).await;
    process.end(Exit::Signal(11));
    harness.wait_for(Crashed).await;

    harness.world.probe.serve();

    assert_eq!(started.answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn too_many_crashes_within_a_minute_are_given_up() {
    let (harness, _) = running(ExitPolicy::Stop).await;
    for _ in 0..3 {
        harness.world.launcher.last().end(Exit::Signal(9));
        harness.wait_for(Crashed).await;
        harness.wait_for(Running).await;
    }

    harness.world.launcher.last().end(Exit::Signal(9));

    let failed = harness.wait_for(Failed).await;
    assert_eq!(failed.last_error.map(|cause| cause.code), Some(Code::RestartLimitReached));
    harness.stays_for(MINUTE, |_| launches(&harness) == [1, 2, 3, 4]).await;
    assert_eq!(harness.world.launcher.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_vllm_that_answers_no_more_is_killed_and_restarted() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    harness.world.probe.fall_silent();

    let crashed = harness.wait_for(Crashed).await;

    assert_eq!(crashed.last_error.map(|cause| cause.code), Some(Code::EngineHung));
    harness.world.probe.serve();
    harness.wait_for(Running).await;
    assert!(!process.is_alive());
    assert_eq!(launches(&harness), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_sign_of_life_is_cut_off() {
    let (harness, process, _started) = starting(ExitPolicy::Stop).await;

    let crashed = harness.wait_for(Crashed).await;

    assert_eq!(crashed.last_error.map(|cause| cause.code), Some(Code::LoadTimedOut));
    eventually("it is killed", || !process.is_alive()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_between_crash_and_restart_leaves_it_down() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;

    assert_eq!(harness.ask(stop).answer().await, Some(Ok(())));

    harness.stays_for(MINUTE, |snapshot| snapshot.state == Stopped).await;
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_start_between_crash_and_restart_does_not_wait_for_the_backoff() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;
    let begun = Instant::now();

    assert_eq!(harness.ask(start).answer().await, Some(Ok(())));

    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    harness.stays_for(MINUTE, |_| launches(&harness) == [1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_what_outlives_sigkill_is_told_so_and_it_is_stopped_in_the_end() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    process.get_stuck(&[7]);

    let stopped = harness.ask(stop);

    let Some(Err(CommandError::StillAlive(cause))) = stopped.answer().await else {
        panic!("the caller was not told");
    };
    assert!(cause.summary.contains('7'), "{cause}");
    assert_eq!(harness.snapshot().state, Unknown);
    process.come_loose();
    harness.wait_for(Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stands_still_is_asked_for_a_token_and_then_restarted() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let probe = &harness.world.probe;
    probe.beats(Some(Pulse { requests: 2, mark: 7, rest: Rest::Awake, connections: Some(2) }));
    probe.tries(Trial::None);

    harness.wait_for(Crashed).await;

    assert_eq!(probe.trials(), 1);
    assert!(!process.is_alive());
    let incidents = harness.world.journal.incidents();
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    assert_eq!(incident.cause.code, Code::EngineHung);
    probe.beats(None);
    harness.wait_for(Running).await;
}
