//! What becomes of a warm process, and of what was forked from it, when the supervisor ends.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;
use vllm_supervisor::LaunchKind;
use vllm_supervisor::ServiceState::{Crashed, Running, Starting};
use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::{Scenario, Victim};

use super::{comes_back, forgiving, server, serving, signal_warm_process};
use crate::FAKE;

async fn adopted(venv: &FakeVenv) -> Scenario {
    let scenario = Scenario::configure(server(venv), |config| {
        forgiving(config);
        config.lifecycle.stop_on_exit = ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    // The one that was launched ahead is older than its claim.
    scenario.wait_until_processes(|living| living.iter().any(Process::is_ahead)).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm));
    let first = scenario.wait_for(Running).await;
    let scenario = scenario.abandon().await;
    let is_kept = |it: &Process| it.is_warm() || it.is_ahead();
    scenario.wait_until_processes(|living| !living.iter().any(is_kept)).await;
    let successor = scenario.succeed().await;
    let second = successor.wait_for(Running).await;
    assert_eq!((second.pid, second.launch), (first.pid, Some(LaunchKind::Adopted)));
    successor
}

#[tokio::test]
async fn what_was_forked_by_one_that_has_ended_is_adopted_and_its_death_noticed() {
    for victim in [Victim::ApiServer, Victim::EngineCore, Victim::Worker] {
        let venv = FakeVenv::of(FAKE);
        let scenario = adopted(&venv).await;
        let before = scenario.wait_for(Running).await.incarnation.get();
        scenario.kill(victim, Signal::KILL);
        scenario.wait_for(Crashed).await;
        let after = scenario.wait_for_successor_of(before).await;
        assert_eq!(after.launch, Some(LaunchKind::Warm), "{victim:?}\n{}", scenario.story());
        assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
        scenario.end().await;
    }
}

/// Whatever is forked from it would be waited for longer than that.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_warm_process_that_hangs() {
    let venv = FakeVenv::of(FAKE);
    let scenario = serving(&venv).await;
    signal_warm_process(&scenario, Signal::STOP).await;
    scenario.kill(Victim::Worker, Signal::KILL);
    scenario.wait_for(Starting).await;
    let stopped = timeout(Duration::from_secs(4), scenario.handle().stop()).await;
    assert!(matches!(stopped, Ok(Ok(()))), "{stopped:?}\n{}", scenario.story());
    scenario.nothing_is_left().await;
    scenario.end().await;
}
