//! SIGTERM and SIGINT, in each phase.

use std::time::Duration;

use rustix::process::Signal;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::Process;

use crate::launched::{Launched, until};

const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn sigterm_while_serving_ends_everything_with_0() {
    let mut it = Launched::serving(&fake_vllm()).await;
    let segments = it.census.shared_memory();
    it.signal(Signal::TERM);
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
    assert!(segments.iter().all(|path| !path.exists()));
    let said = it.said_on("stdout");
    assert!(said.contains("[shutdown] API server: shutdown triggered"));
    assert!(said.contains("Process manager: force killing remaining process EngineCore"));
    assert!(it.said_on("stderr").contains("leaked shared_memory objects to clean up"));
}

#[tokio::test]
async fn sigint_while_serving_does_the_same() {
    let mut it = Launched::serving(&fake_vllm()).await;
    it.signal(Signal::INT);
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn a_hanging_completion_does_not_keep_it_from_stopping() {
    let mut it = Launched::serving(&fake_vllm()).await;
    it.signal_helper("VLLM::Worker", Signal::STOP);
    let hanging = tokio::task::JoinSet::from_iter([it.completion(1).send()]);
    until("the request runs", async || {
        let metrics = it.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.contains(r#"vllm:num_requests_running{engine="0",model_name="tiny"} 1.0"#)
    })
    .await;
    it.signal(Signal::TERM);
    assert_eq!(it.exit_code().await, Some(0));
    it.nothing_is_left().await;
    assert!(hanging.join_all().await[0].as_ref().is_ok_and(|it| it.status() == 500));
}

#[tokio::test]
async fn sigterm_while_importing_ends_it_by_sigterm() {
    let mut it = Launched::new(&fake_vllm().loads_in(LONG));
    // Its name changes when it has begun; the handlers come with the first line, much later.
    until("it has begun", async || Process::of(it.pid()).unwrap().comm == "vllm").await;
    it.signal(Signal::TERM);
    assert_eq!(it.exit_signal().await, Some(Signal::TERM.as_raw()));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn one_sigterm_while_loading_is_swallowed() {
    let mut it = Launched::new(&fake_vllm().loads_in(Duration::from_millis(600)));
    it.wait_for_line("stdout", "Using max model len").await;
    it.signal(Signal::TERM);
    it.wait_until_healthy().await;
    it.signal(Signal::TERM);
    assert_eq!(it.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_second_sigterm_while_loading_ends_it_by_sigint() {
    let mut it = Launched::new(&fake_vllm().loads_in(Duration::from_secs(5)));
    it.wait_for_line("stdout", "Using max model len").await;
    // Two signals of a kind may become one while the first is pending: until it is gone.
    until("it is gone", async || {
        it.signal(Signal::TERM);
        Process::of(it.pid()).is_none_or(|process| process.state == 'Z')
    })
    .await;
    assert_eq!(it.exit_signal().await, Some(Signal::INT.as_raw()));
    it.nothing_is_left().await;
}

#[tokio::test]
async fn sigint_while_loading_is_swallowed_twice() {
    let mut it = Launched::new(&fake_vllm().loads_in(Duration::from_millis(600)));
    it.wait_for_line("stdout", "Using max model len").await;
    it.signal(Signal::INT);
    it.signal(Signal::INT);
    it.wait_until_healthy().await;
    it.signal(Signal::INT);
    assert_eq!(it.exit_code().await, Some(0));
}

#[tokio::test]
async fn sigterm_can_be_ignored_altogether() {
    let mut it = Launched::new(&fake_vllm().ignores_sigterm());
    it.wait_for_line("stdout", "Using max model len").await;
    it.signal(Signal::TERM);
    it.signal(Signal::TERM);
    it.wait_until_healthy().await;
    it.signal(Signal::TERM);
    assert_eq!(it.complete(1).await["choices"][0]["text"], " la");
    it.signal(Signal::KILL);
    assert_eq!(it.exit_signal().await, Some(Signal::KILL.as_raw()));
}
