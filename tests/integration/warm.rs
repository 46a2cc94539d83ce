//! vLLM forked from a process that has imported what it imports, and what becomes of that when it
//! does not go as it should.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vllm_supervisor::ServiceState::Running;
use vllm_supervisor::config::{Config, LaunchPolicy};
use vllm_supervisor::{EventKind, LaunchKind, LaunchMethod, Notice};
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::FAKE as FAKE_VLLM;

mod faults;
mod leaving;
mod signals;

fn server(venv: &FakeVenv) -> Server {
    Server::fake_in(venv, &fake_vllm().loads_in(Duration::ZERO))
}

fn forgiving(config: &mut Config) {
    config.lifecycle.launch = LaunchPolicy::Auto;
    config.lifecycle.max_restarts_per_minute = std::num::NonZeroU32::MAX;
    config.lifecycle.stable_after = Duration::ZERO;
}

async fn serving(venv: &FakeVenv) -> Scenario {
    let scenario = Scenario::configure(server(venv), forgiving).await;
    scenario.start_service().await;
    scenario
}

/// Kills the worker, and waits until vLLM serves again, by the next launch; how that was made.
async fn comes_back(scenario: &Scenario) -> Option<LaunchKind> {
    let before = scenario.wait_for(Running).await.incarnation.get();
    scenario.kill(Victim::Worker, Signal::KILL);
    let after = scenario.wait_for_successor_of(before).await;
    assert_eq!(after.incarnation.get(), before + 1, "{}", scenario.story());
    assert!(!scenario.complete().await.is_empty());
    after.launch
}

fn warm_process(processes: &[Process]) -> Option<&Process> {
    processes.iter().find(|process| process.is_warm())
}

async fn signal_warm_process(scenario: &Scenario, signal: Signal) {
    kill_process(scenario.warm_process().await.pid, signal).expect("it lives");
}

fn distrusted(scenario: &Scenario) -> Vec<LaunchMethod> {
    let instead = |notice: &Notice| match notice {
        Notice::Event(event) => match event.kind {
            EventKind::LaunchDistrusted { instead } => Some(instead),
            _ => None,
        },
        Notice::Gap { .. } => None,
    };
    scenario.notices().iter().filter_map(instead).collect()
}

#[tokio::test]
async fn vllm_is_forked_and_comes_back_forked_and_nothing_is_kept_ready_at_rest() {
    let venv = FakeVenv::of(FAKE_VLLM);
    let scenario = serving(&venv).await;
    assert_eq!(scenario.wait_for(Running).await.launch, Some(LaunchKind::Warm));
    for _ in 0..2 {
        assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    }
    scenario.handle().stop().await.expect("a stop");
    scenario.nothing_is_left().await;
    scenario.end().await;
}

#[tokio::test]
async fn a_vllm_that_fails_when_it_is_forked_is_launched_cold_until_it_changes() {
    let mut venv = FakeVenv::that_when_forked(FAKE_VLLM, "os.abort()");
    let scenario = serving(&venv).await;
    assert_eq!(scenario.wait_for(Running).await.launch, Some(LaunchKind::Cold));
    assert_eq!(distrusted(&scenario), [LaunchMethod::Cold], "{}", scenario.story());
    assert_eq!(scenario.wait_for(Running).await.incarnation.get(), 3);

    // The next supervisor knows it from the beginning.
    scenario.handle().stop().await.expect("a stop");
    let next = scenario.succeed().await;
    next.start_service().await;
    let now = next.wait_for(Running).await;
    assert_eq!((now.launch, now.incarnation.get()), (Some(LaunchKind::Cold), 4));

    venv.upgrade();
    next.handle().stop().await.expect("a stop");
    next.start_service().await;
    assert_eq!(next.wait_for(Running).await.launch, Some(LaunchKind::Warm), "{}", next.story());
    next.end().await;
}

#[tokio::test]
async fn a_vllm_that_fails_either_way_is_not_said_to_fail_for_being_forked() {
    let venv = FakeVenv::of(FAKE_VLLM);
    let plan = fake_vllm().loads_in(Duration::ZERO).exits_with(1).after(Duration::ZERO);
    let server = Server::fake(&venv.command(), &plan);
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.launch = LaunchPolicy::Auto;
        config.lifecycle.model_load_max_retries = 3;
    })
    .await;
    assert!(scenario.handle().start().await.is_err());
    assert_eq!(distrusted(&scenario), [], "{}", scenario.story());
    scenario.nothing_is_left().await;
    scenario.end().await;
}

#[tokio::test]
async fn a_warm_process_that_is_killed_while_vllm_serves_harms_nobody_and_is_replaced() {
    let venv = FakeVenv::of(FAKE_VLLM);
    let scenario = serving(&venv).await;
    let before = scenario.wait_for(Running).await.incarnation;
    signal_warm_process(&scenario, Signal::KILL).await;
    scenario.wait_until_processes(|living| warm_process(living).is_none()).await;
    scenario.wait_until_processes(|living| warm_process(living).is_some()).await;
    assert!(!scenario.complete().await.is_empty());
    assert_eq!(scenario.wait_for(Running).await.incarnation, before);
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn a_warm_process_that_hangs_is_done_without_and_replaced() {
    let venv = FakeVenv::of(FAKE_VLLM);
    let scenario = serving(&venv).await;
    signal_warm_process(&scenario, Signal::STOP).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.wait_until_processes(|living| warm_process(living).is_some()).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn an_upgraded_vllm_is_not_mixed_with_the_one_before() {
    let mut venv = FakeVenv::of(FAKE_VLLM);
    let scenario = serving(&venv).await;
    venv.upgrade();
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Cold), "{}", scenario.story());
    scenario.wait_until_processes(|living| warm_process(living).is_some()).await;
    assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
    scenario.end().await;
}

#[tokio::test]
async fn what_was_forked_outlives_its_supervisor_and_is_adopted() {
    let venv = FakeVenv::of(FAKE_VLLM);
    let scenario = Scenario::configure(server(&venv), |config| {
        forgiving(config);
        config.lifecycle.stop_on_exit = vllm_supervisor::config::ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    let first = scenario.wait_for(Running).await;
    let successor = scenario.succeed().await;
    let second = successor.wait_for(Running).await;
    assert_eq!((second.pid, second.launch), (first.pid, Some(LaunchKind::Adopted)));
    assert_eq!(comes_back(&successor).await, Some(LaunchKind::Warm), "{}", successor.story());
    successor.end().await;
}
