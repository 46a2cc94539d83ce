//! From nothing to a completion and back.

use std::time::Duration;

use vllm_supervisor::ServiceState;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};
use vllm_supervisor_tests::trials;

use crate::FAKE;

#[tokio::test]
async fn a_started_service_serves_and_a_stopped_one_leaves_nothing() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    assert_eq!(scenario.handle().state(), ServiceState::Running);
    assert!(!scenario.complete().await.is_empty());
    scenario.end().await;
}

#[tokio::test]
async fn every_death_is_survived() {
    let server = Server::fake(FAKE, &fake_vllm());
    trials::every_death_is_survived(server, &trials::DEATHS).await;
}

#[tokio::test]
async fn a_stop_while_loading_leaves_nothing() {
    let slow = fake_vllm().loads_in(Duration::from_secs(60));
    trials::a_stop_while_loading_leaves_nothing(Server::fake(FAKE, &slow)).await;
}

#[tokio::test]
async fn a_successor_adopts_what_is_left_running() {
    trials::a_successor_adopts_what_is_left_running(Server::fake(FAKE, &fake_vllm())).await;
}

#[tokio::test]
async fn a_load_is_told_by_the_clock_of_the_one_before() {
    trials::a_load_is_told_by_the_clock_of_the_one_before(Server::fake(FAKE, &fake_vllm())).await;
}

#[tokio::test]
async fn the_same_model_can_be_told_something_else() {
    trials::the_same_model_can_be_told_something_else(Server::fake(FAKE, &fake_vllm())).await;
}

#[tokio::test]
async fn another_model_can_be_loaded() {
    trials::another_model_can_be_loaded(Server::fake(FAKE, &fake_vllm())).await;
}

#[tokio::test]
async fn one_that_is_not_ours_is_watched() {
    trials::one_that_is_not_ours_is_watched(Server::fake(FAKE, &fake_vllm())).await;
}
