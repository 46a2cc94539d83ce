//! The way down, from every state.

use std::time::Duration;

use vllm_supervisor::ServiceState::{Running, Stopped};
use vllm_supervisor::StopMode;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};

use crate::FAKE;

#[tokio::test]
async fn stopping_what_is_stopped_is_fine() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().stop().await.unwrap();
    scenario.handle().stop().await.unwrap();
    assert_eq!(scenario.states(), []);
    scenario.end().await;
}

#[tokio::test]
async fn two_callers_share_one_stop() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    let handle = scenario.handle();
    let (first, second) = tokio::join!(handle.stop(), handle.stop());
    assert_eq!((first, second), (Ok(()), Ok(())));
    let stops = scenario.states().iter().filter(|state| **state == Stopped).count();
    assert_eq!(stops, 1);
    scenario.end().await;
}

#[tokio::test]
async fn two_callers_share_one_start() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let handle = scenario.handle();
    let (first, second) = tokio::join!(handle.start(), handle.ensure_healthy(None));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(scenario.wait_for(Running).await.incarnation.get(), 1);
    scenario.end().await;
}

#[tokio::test]
async fn a_vllm_that_ignores_sigterm_is_killed_after_the_grace_with_all_it_started() {
    let stubborn = fake_vllm().ignores_sigterm().leaves_grandchild();
    let scenario = Scenario::configure(Server::fake(FAKE, &stubborn), |config| {
        config.lifecycle.shutdown_grace_period = Duration::from_millis(200);
    })
    .await;
    scenario.start_service().await;
    scenario.handle().stop().await.unwrap();
    scenario.nothing_is_left().await;
    scenario.end().await;
}

#[tokio::test]
async fn an_immediate_stop_cuts_a_graceful_one_short() {
    let scenario =
        Scenario::configure(Server::fake(FAKE, &fake_vllm().ignores_sigterm()), |config| {
            config.lifecycle.shutdown_grace_period = Duration::from_secs(3600);
        })
        .await;
    scenario.start_service().await;
    let handle = scenario.handle();
    let patient = handle.stop();
    let impatient = async {
        scenario.wait_until(|now| now.state == vllm_supervisor::ServiceState::Stopping).await;
        handle.stop_by(StopMode::Immediate).await
    };
    let (first, second) = tokio::join!(patient, impatient);
    assert_eq!((first, second), (Ok(()), Ok(())));
    scenario.end().await;
}

#[tokio::test]
async fn a_start_during_a_stop_follows_it() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    let handle = scenario.handle();
    let (stopped, started) = tokio::join!(biased; handle.stop(), handle.start());
    assert_eq!((stopped, started), (Ok(()), Ok(())));
    assert_eq!(scenario.wait_for(Running).await.incarnation.get(), 2);
    scenario.end().await;
}
