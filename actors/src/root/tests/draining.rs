//! Stops that still wait for the requests that run.

use super::*;
use crate::domain::health::InHand;

const TWO: Option<InHand> = Some(InHand { requests: 2, connections: None });

/// A supervisor that has been asked to stop a vLLM with requests in hand.
async fn draining(on_exit: ExitPolicy) -> (Harness, ScriptedProcess, Outcome) {
    let (harness, process) = running(on_exit).await;
    harness.world.probe.has_in_hand(TWO);
    let stopped = harness.ask(stop);
    harness.wait_for(Stopping).await;
    (harness, process, stopped)
}

#[tokio::test(start_paused = true)]
async fn requests_are_not_cut_because_the_counters_could_not_be_read_for_a_while() {
    let (harness, process, stopped) = draining(ExitPolicy::Stop).await;
    let begun = Instant::now();
    harness.world.probe.hides_its_counters();
    harness.stays_for(Duration::from_secs(1), |_| calls(&process).is_empty()).await;
    harness.world.probe.has_in_hand(TWO);
    harness.stays_for(Duration::from_secs(1), |_| calls(&process).is_empty()).await;

    harness.world.probe.hides_its_counters();

    assert_eq!(stopped.answer().await, Some(Ok(())));
    assert!(begun.elapsed() < MINUTE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_still_waits_for_requests_is_not_forgotten_when_the_supervisor_dies() {
    let (mut harness, process, _stopped) = draining(ExitPolicy::Detach).await;
    harness.kill();
    harness.wait_for_end().await;
    eventually("the guard acts", || !harness.world.journal.orphaned().is_empty()).await;
    assert!(!process.is_alive());
}
