//! What a plan can ask for beyond what signals do.

use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use crate::launched::{Launched, free_port, until};

const AT_ONCE: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn an_exit_while_loading_has_the_code_asked_for() {
    let mut it = Launched::new(&fake_vllm().loads_in(LONG).exits_while_loading(7, SHORT));
    assert_eq!(it.exit_code().await, Some(7));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn an_exit_when_serving_has_the_code_asked_for() {
    let mut it = Launched::new(&fake_vllm().exits_with(3).after(SHORT));
    it.wait_until_healthy().await;
    assert_eq!(it.exit_code().await, Some(3));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn a_worker_dies_by_itself() {
    let mut it = Launched::new(&fake_vllm().worker_dies_after(SHORT));
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn a_model_that_cannot_run_dies_of_its_first_request() {
    let mut it = Launched::serving(&fake_vllm().dies_on_first_request()).await;
    let answer = it.completion(1).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(it.exit_code().await, Some(0));
    assert!(it.said_on("stderr").contains("Unsupported CPU attention configuration"));
}

#[tokio::test]
async fn a_hanging_engine_is_healthy_and_deaf() {
    let mut it = Launched::serving(&fake_vllm().hangs_after(AT_ONCE)).await;
    let hanging = it.completion(1).timeout(SHORT).send().await;
    assert!(hanging.unwrap_err().is_timeout());
    it.signal_helper("VLLM::Worker", Signal::TERM);
    assert_eq!(it.health().await, Some(StatusCode::OK));
    it.signal(Signal::TERM);
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn a_hanging_api_server_takes_connections_and_answers_nothing() {
    let it = Launched::new(&fake_vllm().api_hangs_after(AT_ONCE));
    it.wait_for_line("stderr", "Application startup complete.").await;
    until("it listens", async || std::net::TcpStream::connect(("127.0.0.1", it.port)).is_ok())
        .await;
    let health = it.get("/health").timeout(SHORT).send().await;
    assert!(health.unwrap_err().is_timeout());
}

#[tokio::test]
async fn a_grandchild_stays_in_a_session_of_its_own() {
    let mut it = Launched::serving(&fake_vllm().leaves_grandchild()).await;
    let grandchild = it.helper("fake_vllm-grandchild");
    assert_eq!(grandchild.session, Some(grandchild.pid));
    it.signal(Signal::TERM);
    assert_eq!(it.exit_code().await, Some(0));
    let left = it.census.wait_until_empty(SHORT).await.unwrap_err();
    assert_eq!(left.iter().map(|it| it.pid).collect::<Vec<_>>(), [grandchild.pid]);
}

#[tokio::test]
async fn a_flood_is_one_line_of_megabytes() {
    let it = Launched::serving(&fake_vllm().floods_log()).await;
    let longest = it.said_on("stdout").lines().map(str::len).max();
    assert_eq!(longest, Some(4 * 1024 * 1024));
}

#[tokio::test]
async fn the_workers_of_a_plan_outnumber_those_of_the_flags() {
    let it = Launched::serving(&fake_vllm().workers(3)).await;
    it.helper("VLLM::Worker_TP2");
}

#[tokio::test]
async fn each_launch_follows_its_own_plan_and_the_last_plan_repeats() {
    let directory = tempfile::tempdir().unwrap();
    let plan = fake_vllm()
        .exits_with(1)
        .then(fake_vllm().exits_while_loading(2, AT_ONCE))
        .then(fake_vllm().exits_with(3))
        .counts_launches_in(directory.path().join("launches"));
    for code in [1, 2, 3, 3] {
        let mut it = Launched::with_flags(&plan, free_port(), &[]);
        assert_eq!(it.exit_code().await, Some(code));
    }
}
