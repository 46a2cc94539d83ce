//! A supervisor under an actor of the program.

use tempfile::TempDir;
use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor::ractor::{Actor, ActorProcessingErr, ActorRef};
use vllm_supervisor::{EndReason, StartError, Supervisor, SupervisorBuilder};
use vllm_supervisor_tests::census::Census;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::scenario::free_port;

use crate::FAKE;

/// An actor of the program.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

fn builder(directory: &TempDir, census: &Census) -> SupervisorBuilder {
    let (plan, value) = fake_vllm().environment();
    let (name, of_census) = census.variable();
    Supervisor::builder()
        .model(env!("CARGO_MANIFEST_DIR"))
        .port(free_port())
        .vllm_binary([FAKE])
        .env(plan, value)
        .env(name, of_census)
        .state_dir(directory.path().join("state"))
        .on_exit(ExitPolicy::Stop)
}

#[tokio::test]
async fn nothing_of_vllm_outlives_the_parent_of_its_supervisor_and_the_last_word_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let census = Census::of(format!("LINKED={}", directory.path().display()));
    let (parent, _) = Actor::spawn(None, Parent, ()).await.unwrap();
    let supervisor = builder(&directory, &census).spawn_linked(parent.get_cell()).await.unwrap();
    assert_eq!(parent.get_children().len(), 1);
    assert_eq!(parent.get_children()[0].get_id(), supervisor.actor_ref().get_id());
    supervisor.start().await.unwrap();

    parent.kill();

    let mut present = supervisor.watch();
    let last = present.wait_for(|snapshot| snapshot.ended.is_some()).await.unwrap().clone();
    assert_eq!(last.ended, Some(EndReason::ShutDown));
    let left = census.wait_until_empty(std::time::Duration::from_secs(20)).await;
    assert_eq!(left, Ok(()));
    supervisor.shutdown().await;
}

#[tokio::test]
async fn an_actor_that_has_ended_gets_no_supervisor() {
    let directory = tempfile::tempdir().unwrap();
    let census = Census::of(format!("LINKED={}", directory.path().display()));
    let (parent, ended) = Actor::spawn(None, Parent, ()).await.unwrap();
    parent.stop(None);
    ended.await.unwrap();
    let refused = builder(&directory, &census).spawn_linked(parent.get_cell()).await;
    assert!(matches!(refused, Err(StartError::ParentEnded)), "{refused:?}");
    assert!(!directory.path().join("state").exists());
}
