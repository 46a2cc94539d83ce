//! Each death that was observed, and what it looks like from outside.

use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::Process;

use crate::launched::{Launched, until};

/// Long enough to be caught in the act.
const NOTICE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_killed_worker_takes_everything_along_with_exit_0() {
    for signal in [Signal::KILL, Signal::SEGV] {
        let mut it = Launched::serving(&fake_vllm()).await;
        let segments = it.census.shared_memory();
        it.signal_helper("VLLM::Worker", signal);
        assert_eq!(it.exit_code().await, Some(0), "{signal:?}");
        it.nothing_is_left().await;
        assert!(segments.iter().all(|path| !path.exists()));
        let said = it.said_on("stdout");
        let worker = "Worker proc VllmWorker-0 died unexpectedly (exit code: -";
        assert!(said.contains(worker), "{said}");
        assert!(said.contains("EngineDeadError: EngineCore encountered an issue."));
    }
}

#[tokio::test]
async fn health_is_503_for_a_moment_after_the_engine_died_and_then_nobody_listens() {
    let mut it = Launched::serving(&fake_vllm().engine_death_notice(NOTICE)).await;
    it.signal_helper("VLLM::Worker", Signal::KILL);
    let mut seen = Vec::new();
    until("nobody listens", async || {
        let health = it.health().await;
        seen.push(health);
        health.is_none()
    })
    .await;
    assert!(seen.contains(&Some(StatusCode::SERVICE_UNAVAILABLE)), "{seen:?}");
    assert!(Process::of(it.pid()).is_some_and(|process| process.state != 'Z'));
    assert_eq!(it.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_terminated_worker_or_engine_ends_it_with_0_without_delay() {
    for title in ["VLLM::Worker", "VLLM::EngineCore"] {
        let mut it = Launched::serving(&fake_vllm().engine_death_notice(NOTICE * 100)).await;
        it.signal_helper(title, Signal::TERM);
        assert_eq!(it.exit_code().await, Some(0), "{title}");
        it.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_killed_engine_takes_everything_along_with_exit_0() {
    let mut it = Launched::serving(&fake_vllm()).await;
    it.signal_helper("VLLM::EngineCore", Signal::KILL);
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
    assert!(it.said_on("stdout").contains("Parent process exited, terminating worker queues"));
}

#[tokio::test]
async fn a_stopped_worker_or_engine_leaves_health_at_200_and_completions_hanging() {
    for title in ["VLLM::Worker", "VLLM::EngineCore"] {
        let it = Launched::serving(&fake_vllm()).await;
        it.signal_helper(title, Signal::STOP);
        let hanging = it.completion(1).timeout(Duration::from_millis(200)).send().await;
        assert!(hanging.unwrap_err().is_timeout(), "{title}");
        assert_eq!(it.health().await, Some(StatusCode::OK), "{title}");
        it.signal_helper(title, Signal::CONT);
        assert_eq!(it.complete(1).await["choices"][0]["text"], " la", "{title}");
    }
}

#[tokio::test]
async fn a_killed_api_server_leaves_the_engine_behind() {
    let mut it = Launched::serving(&fake_vllm()).await;
    let left = ["VLLM::EngineCore", "VLLM::Worker"].map(|title| it.helper(title));
    it.signal(Signal::KILL);
    assert_eq!(it.exit_signal().await, Some(Signal::KILL.as_raw()));
    assert_eq!(it.health().await, None);
    let mut titles: Vec<String> = it.census.processes().into_iter().map(|it| it.title).collect();
    titles.sort();
    assert_eq!(titles[..2], left.each_ref().map(|process| process.title.clone()));
    // The engine does what it did before: a worker's death still ends it, and the tracker cleans.
    let segments = it.census.shared_memory();
    rustix::process::kill_process(left[1].pid, Signal::KILL).unwrap();
    it.nothing_is_left().await;
    assert!(segments.iter().all(|path| !path.exists()));
}

#[tokio::test]
async fn a_stopped_api_server_answers_nothing() {
    let it = Launched::serving(&fake_vllm()).await;
    it.signal(Signal::STOP);
    let health = it.get("/health").timeout(Duration::from_millis(200)).send().await;
    assert!(health.unwrap_err().is_timeout());
    it.signal(Signal::CONT);
    it.wait_until_healthy().await;
}

#[tokio::test]
async fn a_worker_killed_while_loading_fails_the_start_with_1() {
    let mut it = Launched::new(&fake_vllm().loads_in(Duration::from_secs(1)).shards(50));
    it.wait_for_line("stderr", "Loading safetensors checkpoint shards").await;
    it.signal_helper("VLLM::Worker", Signal::KILL);
    assert_eq!(it.exit_code().await, Some(1));
    it.nothing_is_left().await;
    assert!(it.said_on("stdout").contains("EngineCore failed to start."));
    let said = it.said_on("stderr");
    assert!(said.contains("Engine core initialization failed. See root cause above."), "{said}");
}

#[tokio::test]
async fn memory_stays_behind_when_the_tracker_is_killed_too() {
    let mut it = Launched::serving(&fake_vllm()).await;
    let segments = it.census.shared_memory();
    let tracker = "python -c from multiprocessing.resource_tracker import main;main(0)";
    for title in [tracker, "VLLM::EngineCore", "VLLM::Worker"] {
        it.signal_helper(title, Signal::STOP);
    }
    let stopped = it.census.processes();
    for process in &stopped {
        rustix::process::kill_process(process.pid, Signal::KILL).ok();
    }
    assert_eq!(it.exit_signal().await, Some(Signal::KILL.as_raw()));
    it.nothing_is_left().await;
    assert_eq!(segments.len(), 2);
    assert!(segments.iter().all(|path| path.exists()));
    for path in segments {
        std::fs::remove_file(path).unwrap();
    }
}
