//! What a program sees: events, snapshots, statuses, and the actor behind.

use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor::{
    Command, CommandError, EventKind, ModelId, Notice, Sequence, ServiceState, Snapshot, wire,
};
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

/// The numbers of everything from `from` up to `last`, and the gaps.
async fn numbers(scenario: &Scenario, from: u64, last: u64) -> (Vec<u64>, u64) {
    let mut events = scenario.handle().subscribe_from(Sequence::new(from));
    let (mut numbers, mut missed) = (Vec::new(), 0);
    while numbers.last().is_none_or(|number| *number < last) {
        match events.next().await.expect("the supervisor lives") {
            Notice::Event(event) => numbers.push(event.sequence.get()),
            Notice::Gap { missed: more } => missed += more,
        }
    }
    (numbers, missed)
}

#[tokio::test]
async fn whoever_asks_from_the_first_number_sees_everything_from_the_first_number() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    scenario.handle().stop().await.unwrap();
    let last = scenario.handle().status().await.unwrap().sequence.get();
    let everything: Vec<u64> = (1..=last).collect();
    assert_eq!(numbers(&scenario, 1, last).await, (everything.clone(), 0));
    assert_eq!(numbers(&scenario, 0, last).await, (everything, 0));
    scenario.end().await;
}

#[tokio::test]
async fn a_reader_goes_on_where_it_stood_though_another_supervisor_has_come() {
    let scenario = Scenario::configure(Server::fake(FAKE, &fake_vllm()), |config| {
        config.lifecycle.stop_on_exit = ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    let stood = scenario.handle().status().await.unwrap().sequence.get();
    let scenario = scenario.succeed().await;
    scenario.wait_for(ServiceState::Running).await;
    let last = scenario.handle().status().await.unwrap().sequence.get();

    let (seen, missed) = numbers(&scenario, stood + 1, last).await;

    assert_eq!((seen, missed), ((stood + 1..=last).collect(), 0));
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

/// Waits until vLLM serves its second model.
async fn wait_for_the_other_model(scenario: &Scenario) {
    let other = scenario.server().other_model();
    let serves = |it: &Snapshot| it.state == ServiceState::Running && it.model.as_str() == other;
    scenario.wait_until(serves).await;
}

#[tokio::test]
async fn a_load_begins_when_it_is_asked_for_not_when_it_is_read() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let mut unread = scenario.handle().load_model_stream(scenario.server().other_model());
    wait_for_the_other_model(&scenario).await;
    let mut last = None;
    while let Some(item) = unread.next().await {
        last = Some(item.unwrap().percent);
    }
    assert_eq!(last, Some(100));
    scenario.end().await;
}

#[tokio::test]
async fn a_load_goes_on_when_nobody_reads_of_it_any_more() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    drop(scenario.handle().load_model_stream(scenario.server().other_model()));
    wait_for_the_other_model(&scenario).await;
    scenario.end().await;
}

#[tokio::test]
async fn the_actor_refuses_what_the_handle_refuses() {
    let scenario = Scenario::prepare(Server::fake(FAKE, &fake_vllm())).await;
    let before = scenario.handle().status().await.unwrap().sequence;
    for text in
        ["nothing", "a/b/c", "/nowhere/at/all", "./nowhere", env!("CARGO_BIN_EXE_fake_vllm")]
    {
        let of_handle = scenario.handle().load_model(text).await;
        let (reply, answer) = tokio::sync::oneshot::channel();
        let model = ModelId::new(text).unwrap();
        let message = Command::Load { model, extra_args: None, reply: reply.into() };
        scenario.handle().actor_ref().send_message(message).unwrap();
        assert_eq!(answer.await.unwrap(), of_handle);
        assert!(matches!(of_handle, Err(CommandError::InvalidModel { .. })), "{of_handle:?}");
    }
    assert_eq!(scenario.handle().status().await.unwrap().sequence, before);
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
