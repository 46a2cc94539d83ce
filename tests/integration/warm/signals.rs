//! The warm process is killed, or stands still, at each step of a launch: vLLM serves in the end, and
//! nothing is left.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vllm_supervisor::LaunchKind;
use vllm_supervisor::ServiceState::{Crashed, Running};
use vllm_supervisor_tests::fake_venv::{FakeVenv, IN_WARM_PROCESS};
use vllm_supervisor_tests::fake_vllm::{Step, fake_vllm};
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use super::{comes_back, distrusted, forgiving, server, signal_warm_process};
use crate::FAKE;

/// It serves, comes back warm before long, and leaves nothing.
async fn recovers(scenario: Scenario) {
    scenario.wait_for(Running).await;
    assert_eq!(distrusted(&scenario), [], "{}", scenario.story());
    let mut kinds = Vec::new();
    while kinds.last() != Some(&Some(LaunchKind::Warm)) {
        assert!(kinds.len() < 3, "{kinds:?}\n{}", scenario.story());
        kinds.push(comes_back(&scenario).await);
        // Cold, it may have been for want of a warm process, which another launch finds there.
        scenario.warm_process().await;
    }
    scenario.end().await;
}

/// Python that waits for a file.
fn until_there(gate: &Path) -> String {
    let gate = gate.display();
    format!(
        "[__import__('time').sleep(0.01) for _ in iter(lambda: os.path.exists('{gate}'), True)]"
    )
}

fn open(gate: &Path) {
    std::fs::write(gate, "").expect("a file");
}

/// A directory for gates.
fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

async fn while_it_prepares(signal: Signal) {
    let place = place();
    let gate = place.path().join("gate");
    let source = format!("import os\nif {IN_WARM_PROCESS}: {}\n", until_there(&gate));
    let venv = FakeVenv::of(FAKE).with_module("slow", &source);
    let server = server(&venv).with_patience(Duration::from_secs(120));
    let scenario = Scenario::configure(server, forgiving).await;
    let first = async {
        let first = scenario.warm_process().await;
        kill_process(first.pid, signal).expect("it lives");
        open(&gate);
    };
    tokio::join!(scenario.start_service(), first);
    recovers(scenario).await;
}

#[tokio::test]
async fn killed_while_it_prepares() {
    while_it_prepares(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_while_it_prepares() {
    while_it_prepares(Signal::STOP).await;
}

async fn just_before_a_launch(signal: Signal) {
    let venv = FakeVenv::of(FAKE);
    let scenario = Scenario::configure(server(&venv), forgiving).await;
    scenario.start_service().await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    let warm = scenario.warm_process().await;
    scenario.kill(Victim::ApiServer, Signal::KILL);
    scenario.wait_for(Crashed).await;
    kill_process(warm.pid, signal).expect("it lives");
    scenario.wait_for_successor_of(before).await;
    recovers(scenario).await;
}

#[tokio::test]
async fn killed_just_before_a_launch() {
    just_before_a_launch(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_just_before_a_launch() {
    just_before_a_launch(Signal::STOP).await;
}

/// The process that was forked, before it has become the stand-in.
fn forked(living: &[Process]) -> Option<&Process> {
    let warm = living.iter().find(|process| process.is_warm())?;
    living.iter().find(|process| process.parent == Some(warm.pid) && process.pid != warm.pid)
}

async fn as_soon_as_it_has_forked(signal: Signal) {
    let venv = FakeVenv::of(FAKE);
    let scenario = Scenario::configure(server(&venv), forgiving).await;
    let first = async {
        scenario.wait_until_processes(|living| forked(living).is_some()).await;
        signal_warm_process(&scenario, signal).await;
    };
    tokio::join!(scenario.start_service(), first);
    recovers(scenario).await;
}

#[tokio::test]
async fn killed_as_soon_as_it_has_forked() {
    as_soon_as_it_has_forked(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_as_soon_as_it_has_forked() {
    as_soon_as_it_has_forked(Signal::STOP).await;
}

async fn while_what_it_has_forked_is_python(signal: Signal) {
    let place = place();
    let gate = place.path().join("gate");
    let venv = FakeVenv::that_when_forked(FAKE, &until_there(&gate));
    let scenario = Scenario::configure(server(&venv), forgiving).await;
    let first = async {
        scenario.wait_until_processes(|_| !venv.launches().is_empty()).await;
        let warm = scenario.warm_process().await;
        kill_process(warm.pid, signal).expect("it lives");
        scenario.wait_until_processes(|_| !is_alive(&warm, signal)).await;
        open(&gate);
    };
    tokio::join!(scenario.start_service(), first);
    let present = scenario.wait_for(Running).await;
    assert_eq!((present.launch, present.incarnation.get()), (Some(LaunchKind::Warm), 1));
    recovers(scenario).await;
}

/// Whether it still does anything.
fn is_alive(process: &Process, signal: Signal) -> bool {
    match Process::of(process.pid).map(|now| now.state) {
        None | Some('Z') => false,
        Some('T') => signal != Signal::STOP,
        Some(_) => true,
    }
}

#[tokio::test]
async fn killed_while_what_it_has_forked_is_python() {
    while_what_it_has_forked_is_python(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_while_what_it_has_forked_is_python() {
    while_what_it_has_forked_is_python(Signal::STOP).await;
}

async fn while_vllm_loads(signal: Signal) {
    let place = place();
    let gate = place.path().join("gate");
    let venv = FakeVenv::of(FAKE);
    let plan = fake_vllm().loads_in(Duration::ZERO).waits_at(Step::WeightsLoad, &gate);
    let scenario = Scenario::configure(Server::fake_in(&venv, &plan), forgiving).await;
    let first = async {
        let loads = |living: &[Process]| scenario.find(Victim::Worker, living).is_some();
        scenario.wait_until_processes(loads).await;
        signal_warm_process(&scenario, signal).await;
        open(&gate);
    };
    tokio::join!(scenario.start_service(), first);
    let present = scenario.wait_for(Running).await;
    assert_eq!((present.launch, present.incarnation.get()), (Some(LaunchKind::Warm), 1));
    recovers(scenario).await;
}

#[tokio::test]
async fn killed_while_vllm_loads() {
    while_vllm_loads(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_while_vllm_loads() {
    while_vllm_loads(Signal::STOP).await;
}

/// Whichever of vLLM's processes dies afterwards, it is noticed at once, for what it is.
async fn before_one_of_vllms_dies(signal: Signal) {
    for victim in [Victim::ApiServer, Victim::EngineCore, Victim::Worker] {
        let venv = FakeVenv::of(FAKE);
        let scenario = Scenario::configure(server(&venv), forgiving).await;
        scenario.start_service().await;
        let before = scenario.wait_for(Running).await.incarnation.get();
        let warm = scenario.warm_process().await;
        kill_process(warm.pid, signal).expect("it lives");
        scenario.wait_until_processes(|_| !is_alive(&warm, signal)).await;
        scenario.kill(victim, Signal::KILL);
        scenario.wait_for(Crashed).await;
        scenario.wait_for_successor_of(before).await;
        recovers(scenario).await;
    }
}

#[tokio::test]
async fn killed_before_one_of_vllms_dies() {
    before_one_of_vllms_dies(Signal::KILL).await;
}

#[tokio::test]
async fn stopped_before_one_of_vllms_dies() {
    before_one_of_vllms_dies(Signal::STOP).await;
}

#[tokio::test]
async fn each_of_vllms_that_dies_is_followed_by_one_that_was_forked() {
    let venv = FakeVenv::of(FAKE);
    let scenario = Scenario::configure(server(&venv), forgiving).await;
    scenario.start_service().await;
    for victim in [Victim::ApiServer, Victim::EngineCore, Victim::Worker] {
        let before = scenario.wait_for(Running).await.incarnation.get();
        scenario.kill(victim, Signal::KILL);
        let after = scenario.wait_for_successor_of(before).await;
        assert_eq!(after.launch, Some(LaunchKind::Warm), "{victim:?}\n{}", scenario.story());
    }
    assert_eq!(venv.launches(), ["forked 9.0 9.0 9.0"; 4]);
    scenario.end().await;
}

#[tokio::test]
async fn stopped_and_told_to_rest_it_is_gone() {
    let venv = FakeVenv::of(FAKE);
    let scenario = Scenario::configure(server(&venv), forgiving).await;
    scenario.start_service().await;
    signal_warm_process(&scenario, Signal::STOP).await;
    scenario.handle().stop().await.expect("a stop");
    scenario.nothing_is_left().await;
    scenario.end().await;
}
