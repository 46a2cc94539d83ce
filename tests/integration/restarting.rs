//! What follows a crash: a restart under the policy, or none.

use std::num::NonZeroU32;
use std::time::Duration;

use rustix::process::Signal;
use vllm_supervisor::ServiceState::{Crashed, Failed, Running, Starting, Stopped};
use vllm_supervisor::{Code, CommandError, EventKind, Notice};
use vllm_supervisor_tests::fake_vllm::{FakeVllm, fake_vllm};
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::FAKE;

fn crash_looper() -> FakeVllm {
    fake_vllm().loads_in(Duration::ZERO).exits_with(0)
}

#[tokio::test]
async fn a_killed_worker_is_the_crash_and_its_cause_names_it() {
    let plan = fake_vllm().engine_death_notice(Duration::from_secs(5));
    let scenario = Scenario::start(Server::fake(FAKE, &plan)).await;
    let before = scenario.wait_for(Running).await.incarnation.get();
    // vLLM's front would end with 0, seconds later.
    scenario.kill(Victim::Worker, Signal::KILL);
    scenario.wait_for_successor_of(before).await;
    let history = scenario.handle().history().await;
    assert_eq!(history.len(), 1);
    let summary = &history[0].cause.summary;
    assert!(summary.contains("worker") && summary.contains("SIGKILL"), "{:?}", history[0]);
    scenario.end().await;
}

#[tokio::test]
async fn the_restart_limit_ends_in_failed_with_the_history_and_a_start_clears_it() {
    let plan = crash_looper();
    let scenario = Scenario::configure(Server::fake(FAKE, &plan), |config| {
        config.lifecycle.max_restarts_per_minute = NonZeroU32::MIN;
    })
    .await;
    // It may be seen serving before it ends: either answer is right, the state decides.
    scenario.handle().start().await.ok();
    let failed = scenario.wait_for(Failed).await;
    let error = failed.last_error.expect("a cause");
    assert_eq!(error.code, Code::RestartLimitReached);
    // It writes nothing of why it ends, and is told by whether it was seen to serve.
    assert!(error.summary.contains("VLM-016") || error.summary.contains("VLM-099"), "{error}");
    scenario.nothing_is_left().await;
    assert_eq!(scenario.handle().history().await.len(), 2);
    assert_eq!(scenario.handle().status().await.unwrap().restarts.total, 1);

    let refused = scenario.handle().ensure_healthy(None).await;
    assert!(matches!(refused, Err(CommandError::Failed(_))), "{refused:?}");
    scenario.handle().start().await.ok();
    let again = scenario.wait_until(|now| now.incarnation > failed.incarnation.next()).await;
    let count = again.restarts;
    assert_eq!((count.in_window, count.total), (1, 2), "counted afresh: {again:?}");
    scenario.end().await;
}

#[tokio::test]
async fn rejected_arguments_are_not_tried_again() {
    let scenario = Scenario::configure(Server::fake(FAKE, &fake_vllm()), |config| {
        config.extra_args.push("--no-such-flag".to_owned());
    })
    .await;
    let error = scenario.handle().start().await.unwrap_err();
    let cause = error.cause().expect("a cause");
    assert_eq!(cause.code, Code::ArgumentsRejected);
    assert!(cause.summary.contains("--no-such-flag"), "{cause}");
    assert_eq!(scenario.states(), [Starting, Crashed, Failed]);
    scenario.end().await;
}

#[tokio::test]
async fn a_load_that_fails_once_is_tried_again_not_sooner_than_after_two_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let plan = fake_vllm()
        .exits_while_loading(1, Duration::from_millis(20))
        .then(fake_vllm())
        .counts_launches_in(directory.path().join("launches"));
    let scenario = Scenario::start(Server::fake(FAKE, &plan)).await;
    assert_eq!(scenario.states(), [Starting, Crashed, Starting, Running]);
    let at = |wanted| {
        let moment = |notice: &Notice| match notice {
            Notice::Event(event) => match event.kind {
                EventKind::StateChanged { to, .. } if to == wanted => Some(event.at),
                _ => None,
            },
            Notice::Gap { .. } => None,
        };
        scenario.notices().iter().rev().find_map(moment).expect("it was in that state")
    };
    let pause = at(Starting).duration_since(at(Crashed)).unwrap();
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
    scenario.end().await;
}

#[tokio::test]
async fn a_restart_waits_until_nothing_of_the_old_incarnation_lives() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm().leaves_grandchild())).await;
    let before = scenario.wait_for(Running).await;
    let old: Vec<_> = scenario.processes().iter().map(|it| it.pid).collect();
    assert!(old.len() > 3, "a tree and a runaway: {old:?}");
    // The engine and its workers outlive their front; the runaway has a session of its own.
    scenario.kill(Victim::ApiServer, Signal::KILL);
    let mut present = scenario.handle().watch();
    present.wait_for(|now| now.state == Starting).await.unwrap();
    let living: Vec<_> = scenario.processes().iter().map(|it| it.pid).collect();
    assert!(old.iter().all(|pid| !living.contains(pid)), "{old:?} {living:?}");
    scenario.wait_for_successor_of(before.incarnation.get()).await;
    scenario.end().await;
}

#[tokio::test]
async fn a_pending_restart_does_not_outlive_a_stop() {
    let scenario = Scenario::start(Server::fake(FAKE, &fake_vllm())).await;
    scenario.kill(Victim::ApiServer, Signal::KILL);
    let crashed = scenario.wait_for(Crashed).await;
    scenario.handle().stop().await.unwrap();
    assert_eq!(scenario.handle().state(), Stopped);
    // Longer than the backoff: the next launch is the one that is asked for.
    scenario.start_service().await;
    let now = scenario.wait_for(Running).await;
    assert_eq!(now.incarnation, crashed.incarnation.next());
    scenario.end().await;
}

/// It is not silent: it writes where nobody reads.
#[tokio::test]
async fn a_load_is_followed_after_the_state_directory_was_moved() {
    let plan = fake_vllm().loads_in(Duration::from_secs(4));
    let scenario = Scenario::configure(Server::fake(FAKE, &plan), |config| {
        config.lifecycle.start_timeout = Duration::from_secs(2);
    })
    .await;
    scenario.handle().start().await.unwrap();
    let before = scenario.wait_for(Running).await.incarnation;
    let state = scenario.state_dir();
    std::fs::rename(state, state.with_file_name("moved")).unwrap();
    scenario.kill(Victim::Worker, Signal::KILL);
    let after = scenario.wait_for_successor_of(before.get()).await;
    assert_eq!(after.incarnation, before.next(), "{:?}", scenario.handle().history().await);
    scenario.end().await;
}
