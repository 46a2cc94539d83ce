//! The death of any process that vLLM needs: noticed, cleared away, and followed by a restart.

use std::time::{Duration, SystemTime};

use rustix::process::{Signal, kill_process};
use tokio::task::JoinSet;
use vllm_supervisor::ServiceState::{Crashed, Running};
use vllm_supervisor::{EventKind, Notice};
use vllm_supervisor_tests::deaths::{self, Cell};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim, are_gone};

use crate::FAKE;

/// Less than the 5 s that vLLM takes to notice here, and enough for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

fn slow_to_notice() -> Server {
    Server::fake(FAKE, &fake_vllm().engine_death_notice(Duration::from_secs(5)))
}

/// When the last crash was told, and why.
fn crash(scenario: &Scenario) -> (SystemTime, String) {
    let crashed = |notice: &Notice| match notice {
        Notice::Event(event) => match &event.kind {
            EventKind::StateChanged { to: Crashed, cause: Some(cause), .. } => {
                Some((event.at, cause.summary.clone()))
            }
            _ => None,
        },
        Notice::Gap { .. } => None,
    };
    scenario.notices().iter().rev().find_map(crashed).expect("it crashed")
}

async fn is_noticed_and_cleared(victim: Victim, signal: Signal, named: &str) {
    let scenario = Scenario::start(slow_to_notice()).await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    let (old, segments) = (scenario.processes(), scenario.shared_memory());
    let killed = SystemTime::now();
    scenario.kill(victim, signal);
    scenario.wait_for_successor_of(before).await;
    let (noticed, summary) = crash(&scenario);
    let took = noticed.duration_since(killed).unwrap_or_default();
    assert!(took < AT_ONCE, "{victim:?}, {signal:?}: {took:?}");
    assert!(summary.contains(named), "{victim:?}, {signal:?}: {summary}");
    let living: Vec<_> = scenario.processes().iter().map(|it| it.pid).collect();
    assert!(old.iter().all(|it| !living.contains(&it.pid)), "{old:#?}");
    are_gone(&segments);
    scenario.end().await;
}

#[tokio::test]
async fn a_worker_that_dies_of_any_signal_is_the_crash_at_once() {
    for signal in [Signal::KILL, Signal::TERM, Signal::SEGV] {
        is_noticed_and_cleared(Victim::Worker, signal, "worker").await;
    }
}

#[tokio::test]
async fn an_engine_that_dies_of_any_signal_is_the_crash_at_once() {
    for signal in [Signal::KILL, Signal::SEGV] {
        is_noticed_and_cleared(Victim::EngineCore, signal, "engine core").await;
    }
}

#[tokio::test]
async fn a_front_that_dies_is_the_crash_at_once_and_its_orphans_go() {
    for signal in [Signal::KILL, Signal::SEGV] {
        is_noticed_and_cleared(Victim::ApiServer, signal, "signal").await;
    }
}

/// So many at a time: most of what they do is to wait out the backoff.
const CELLS_AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_death_in_every_phase_is_told_cleared_away_and_followed_by_service() {
    let mut waiting = Cell::all().into_iter();
    let mut underway = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        while underway.len() < CELLS_AT_ONCE
            && let Some(cell) = waiting.next()
        {
            underway.spawn(async move {
                // In a task of its own: the table goes on when a cell fails.
                let mut one = JoinSet::from_iter([deaths::of_the_stand_in(FAKE, cell)]);
                (cell, one.join_next().await)
            });
        }
        match underway.join_next().await {
            None => break,
            Some(Ok((_, Some(Ok(_))))) => {}
            Some(other) => failed.push(other),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn everything_of_vllm_killed_at_once_leaves_no_shared_memory() {
    let scenario = Scenario::start(slow_to_notice()).await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    let segments = scenario.shared_memory();
    assert!(!segments.is_empty(), "the stand-in has shared memory");
    for process in scenario.processes() {
        // One may have died of another's death.
        kill_process(process.pid, Signal::KILL).ok();
    }
    scenario.wait_for_successor_of(before).await;
    are_gone(&segments);
    scenario.end().await;
}

#[tokio::test]
async fn vllm_can_do_without_its_resource_tracker() {
    let scenario = Scenario::start(slow_to_notice()).await;
    let before = scenario.wait_for(Running).await.incarnation;
    let processes = scenario.processes();
    let tracker = processes.iter().find(|it| it.title.contains("resource_tracker"));
    let tracker = tracker.expect("there is one").pid;
    kill_process(tracker, Signal::KILL).unwrap();
    scenario.wait_until_processes(|now| now.iter().all(|it| it.pid != tracker)).await;
    scenario.complete().await;
    assert_eq!(scenario.wait_for(Running).await.incarnation, before);
    scenario.end().await;
}
