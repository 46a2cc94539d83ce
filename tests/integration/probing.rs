//! What health checks find, and what follows.

use std::num::NonZeroU32;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use vllm_supervisor::ServiceState::{Failed, Running};
use vllm_supervisor::{Code, EventKind, Notice};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};
use vllm_supervisor_tests::trials;

use crate::FAKE;

#[tokio::test]
async fn a_front_that_hangs_is_killed_and_restarted() {
    let server = Server::fake(FAKE, &fake_vllm());
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.health_check_interval = Duration::from_millis(50);
        // One check takes five seconds to time out.
        config.lifecycle.max_consecutive_failures = NonZeroU32::MIN;
    })
    .await;
    scenario.start_service().await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    scenario.kill(Victim::ApiServer, Signal::STOP);
    scenario.wait_for_successor_of(before).await;
    let history = scenario.handle().history().await;
    assert_eq!(history[0].cause.code, Code::EngineHung, "{history:?}");
    let failing = |notice: &Notice| match notice {
        Notice::Event(event) => {
            matches!(event.kind, EventKind::HealthChanged { healthy: false, .. })
        }
        Notice::Gap { .. } => false,
    };
    assert!(scenario.notices().iter().any(failing));
    scenario.end().await;
}

#[tokio::test]
async fn whoever_stands_still_is_found_whether_vllm_has_something_to_do_or_not() {
    let mut underway = JoinSet::new();
    for standstill in trials::STANDSTILLS {
        underway.spawn(async move {
            let server = Server::fake(FAKE, &fake_vllm());
            trials::whoever_stands_still_is_found(server, &[standstill]).await;
        });
    }
    while let Some(ended) = underway.join_next().await {
        ended.expect("it is found");
    }
}

/// Nobody is stopped: the workers take what they are given, and never answer.
#[tokio::test]
async fn an_engine_that_hangs_is_found_by_its_counters_though_health_is_fine() {
    let directory = tempfile::tempdir().unwrap();
    let hangs = fake_vllm().hangs_after(Duration::ZERO).then(fake_vllm());
    let hangs = hangs.counts_launches_in(directory.path().join("launches"));
    let server = Server::fake(FAKE, &hangs).with_patience(Duration::from_secs(60));
    let scenario = Scenario::start(server).await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    let request = scenario.open_request(8).await.expect("an answer that begins");
    scenario.wait_for_successor_of(before).await;
    let history = scenario.handle().history().await;
    let cause = &history[0].cause;
    assert_eq!(cause.code, Code::EngineHung, "{history:?}");
    assert!(cause.summary.contains("in hand"), "{cause}");
    assert!(request.text().await.is_err());
    assert!(!scenario.complete().await.is_empty());
    scenario.end().await;
}

#[tokio::test]
async fn a_server_without_the_model_never_counts_as_running() {
    let scenario = Scenario::configure(Server::fake(FAKE, &fake_vllm().omits_model()), |config| {
        config.lifecycle.max_restarts_per_minute = NonZeroU32::MIN;
    })
    .await;
    let error = scenario.handle().start().await.unwrap_err();
    let cause = error.cause().expect("a cause");
    assert!(cause.summary.contains("does not list"), "{cause}");
    assert!(!scenario.states().contains(&Running));
    scenario.wait_for(Failed).await;
    scenario.end().await;
}

#[tokio::test]
async fn a_load_that_stands_still_is_ended_and_the_option_is_named() {
    let server = Server::fake(FAKE, &fake_vllm().loads_in(Duration::from_secs(3600)));
    let scenario = Scenario::configure(server, |config| {
        config.lifecycle.start_timeout = Duration::from_millis(400);
        config.lifecycle.model_load_timeout = Duration::from_millis(400);
        config.lifecycle.model_load_max_retries = 0;
    })
    .await;
    let error = scenario.handle().start().await.unwrap_err();
    let cause = error.cause().expect("a cause");
    assert_eq!(cause.code, Code::LoadTimedOut);
    assert!(cause.summary.contains("lifecycle."), "{cause}");
    scenario.end().await;
}

#[tokio::test]
async fn a_flood_of_output_without_a_newline_does_no_harm() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm().floods_log())).await;
    assert!(!scenario.complete().await.is_empty());
    scenario.end().await;
}
