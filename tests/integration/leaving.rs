//! What becomes of vLLM when its supervisor ends, in whatever way.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vllm_supervisor::ServiceState::{Running, Starting, Stopped, Unknown};
use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::FAKE;

async fn detached() -> Scenario {
    let scenario = Scenario::configure(Server::fake(FAKE, &fake_vllm()), |config| {
        config.lifecycle.stop_on_exit = ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    scenario
}

/// Waits for a word in the journal, which is written by a thread of its own.
fn journal_says(scenario: &Scenario, word: &str) {
    let journal = || std::fs::read_to_string(scenario.state_dir().join("events.jsonl"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !journal().is_ok_and(|text| text.contains(word)) {
        assert!(tokio::time::Instant::now() < deadline, "no {word} in {:?}", journal());
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_last_handle_dropped_stops_vllm_if_it_is_to_be_stopped() {
    let mut scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    let mut present = scenario.handle().watch();
    scenario.drop_handle();
    while present.changed().await.is_ok() {}
    assert_eq!(present.borrow().state, Stopped);
    scenario.nothing_is_left().await;
}

#[tokio::test]
async fn the_last_handle_dropped_keeps_vllm_if_it_is_to_be_kept_and_the_journal_says_so() {
    let mut scenario = detached().await;
    let mut present = scenario.handle().watch();
    scenario.drop_handle();
    while present.changed().await.is_ok() {}
    // Nobody looks after it any more.
    assert_eq!(present.borrow().state, Unknown);
    assert!(scenario.processes().len() >= 3);
    journal_says(&scenario, r#""outcome":"kept""#);
}

#[test]
fn a_runtime_that_ends_first_leaves_nothing_and_the_journal_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scenario = runtime.block_on(Scenario::start(Server::fake(FAKE, &fake_vllm())));
    assert!(!scenario.processes().is_empty());
    // No shutdown: every task is dropped where it stands.
    runtime.shutdown_timeout(Duration::from_secs(10));
    let left = scenario.processes();
    assert!(left.is_empty(), "{left:#?}");
    journal_says(&scenario, r#""outcome":"killed""#);
}

#[tokio::test]
async fn a_root_actor_that_is_killed_leaves_nothing() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().actor_ref().kill();
    scenario.nothing_is_left().await;
    assert!(scenario.handle().start().await.is_err());
}

#[tokio::test]
async fn a_successor_with_other_settings_stops_the_old_vllm_first() {
    let scenario = detached().await;
    let first = scenario.wait_for(Running).await;
    let successor =
        scenario.succeed_with(|config| config.extra_args.push("--enforce-eager".to_owned())).await;
    successor.start_service().await;
    let second = successor.wait_for(Running).await;
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.incarnation, first.incarnation.next());
    successor.handle().stop().await.unwrap();
    successor.nothing_is_left().await;
    successor.end().await;
}

#[tokio::test]
async fn what_a_killed_front_left_behind_is_cleared_before_anything_else() {
    let scenario = detached().await;
    let front = scenario.process(Victim::ApiServer);
    let alone = scenario.abandon().await;
    kill_process(front.pid, Signal::KILL).unwrap();
    alone.wait_until_processes(|living| living.iter().all(|it| it.pid != front.pid)).await;
    assert!(!alone.processes().is_empty());
    let successor = alone.succeed().await;
    successor.wait_for(Stopped).await;
    successor.nothing_is_left().await;
    assert!(!successor.states().contains(&Starting));
    successor.end().await;
}
