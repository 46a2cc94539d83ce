//! What other actors may ask of the supervisor, and are told.

use std::sync::Arc;

use super::*;
use crate::domain::event::Event;
use crate::domain::spec::ModelReferenceError;
use crate::testing::listener::Listener;

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_is_refused_before_anything_is_done_about_it() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let before = harness.events().len();
    harness.world.models.forbid(model("/nowhere"));
    let refusal = CommandError::InvalidModel {
        text: "/nowhere".to_owned(),
        reason: ModelReferenceError::NoSuchDirectory,
    };
    assert_eq!(harness.ask(load("/nowhere")).answer().await, Some(Err(refusal.clone())));
    assert_eq!(harness.ask(need("/nowhere")).answer().await, Some(Err(refusal)));
    assert_eq!(harness.snapshot().state, Running);
    assert_eq!(harness.events().len(), before);
    assert_eq!(calls(&process), []);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_could_not_be_loaded_is_refused_while_the_old_one_serves() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let before = harness.events().len();
    let cause = Cause::new(Code::ModelFilesBroken, "it has no config.json");
    harness.world.models.refuse(model("/broken"), cause.clone());
    let refusal = CommandError::Refused { wanted: model("/broken"), cause };
    assert_eq!(harness.ask(load("/broken")).answer().await, Some(Err(refusal.clone())));
    assert_eq!(harness.ask(need("/broken")).answer().await, Some(Err(refusal)));
    assert_eq!(harness.snapshot().state, Running);
    assert_eq!(harness.events().len(), before);
    assert_eq!(calls(&process), []);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_subscribes_is_told_everything_up_to_the_end() {
    let (mut harness, _) = running(ExitPolicy::Stop).await;
    let before = harness.events().len();
    let mut subscriber = Listener::<Arc<Event>>::begin().await;
    let deaf = Listener::<Arc<Event>>::begin().await;
    for listener in [&subscriber, &deaf] {
        harness.send(Command::Subscribe { subscriber: listener.reports() }.into());
    }
    harness.ask_for_snapshot().await;
    drop(deaf);

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    let events = harness.events();
    for event in &events[before..] {
        assert_eq!(*subscriber.next().await, *event);
    }
    assert!(matches!(events.last().unwrap().kind, EventKind::SupervisorEnded { .. }));
}
