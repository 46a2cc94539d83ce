//! What a program sees: events, snapshots, statuses, and the actor behind.

use vllm_supervisor::{Command, EventKind, Notice, ServiceState, wire};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::{Scenario, Server};

use crate::FAKE;

#[tokio::test]
async fn events_are_gapless_and_replaying_them_gives_the_state() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().restart().await.unwrap();
    scenario.handle().stop().await.unwrap();
    let last = scenario.handle().status().await.unwrap().sequence.get();
    let mut expected = 0;
    let mut state = ServiceState::Stopped;
    for notice in scenario.notices() {
        let Notice::Event(event) = notice else { panic!("{notice:?}") };
        if expected > 0 {
            assert_eq!(event.sequence.get(), expected);
        }
        expected = event.sequence.get() + 1;
        if let EventKind::StateChanged { from, to, .. } = event.kind {
            assert_eq!(from, state);
            state = to;
        }
    }
    assert_eq!((state, expected - 1), (scenario.handle().state(), last));
    scenario.end().await;
}

#[tokio::test]
async fn a_subscription_ends_with_the_supervisor() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let mut events = scenario.handle().subscribe();
    scenario.handle().clone().shutdown().await;
    while events.next().await.is_some() {}
    assert!(scenario.handle().subscribe().next().await.is_none());
}

#[tokio::test]
async fn the_status_tells_what_runs() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    let status = scenario.handle().status().await.unwrap();
    let body = wire::status(&status, scenario.handle().base_url());
    assert_eq!(body["state"], "running");
    assert_eq!(body["launch"], "cold");
    assert_eq!(body["incarnation"], 1);
    assert_eq!(body["last_health_check"]["healthy"], true);
    assert_eq!(body["restarts"]["cap"], 3);
    assert!(body["pid"].is_u64() && body["uptime_seconds"].is_u64());
    scenario.end().await;
}

#[tokio::test]
async fn a_program_that_speaks_ractor_can_use_the_actor_itself() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let (reply, answer) = tokio::sync::oneshot::channel();
    let message = Command::Start { reply: reply.into() };
    scenario.handle().actor_ref().send_message(message).unwrap();
    assert_eq!(answer.await.unwrap(), Ok(()));
    assert_eq!(scenario.handle().state(), ServiceState::Running);
    scenario.end().await;
}
