//! What becomes of a warm process, and of what was forked from it, when the supervisor ends.

use rustix::process::Signal;
use vllm_supervisor::LaunchKind;
use vllm_supervisor::ServiceState::{Crashed, Running};
use vllm_supervisor::config::ExitPolicy;
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::scenario::{Scenario, Victim};

use super::{comes_back, forgiving, server, warm_process};
use crate::FAKE;

async fn adopted(venv: &FakeVenv) -> Scenario {
    let scenario = Scenario::configure(server(venv), |config| {
        forgiving(config);
        config.lifecycle.stop_on_exit = ExitPolicy::Detach;
    })
    .await;
    scenario.start_service().await;
    let first = scenario.wait_for(Running).await;
    assert_eq!(first.launch, Some(LaunchKind::Warm));
    let scenario = scenario.abandon().await;
    scenario.wait_until_processes(|living| warm_process(living).is_none()).await;
    let successor = scenario.succeed().await;
    let second = successor.wait_for(Running).await;
    assert_eq!((second.pid, second.launch), (first.pid, Some(LaunchKind::Adopted)));
    successor
}

#[tokio::test]
async fn what_was_forked_by_one_that_has_ended_is_adopted_and_its_death_noticed() {
    for victim in [Victim::ApiServer, Victim::EngineCore, Victim::Worker] {
        let venv = FakeVenv::of(FAKE);
        let scenario = adopted(&venv).await;
        let before = scenario.wait_for(Running).await.incarnation.get();
        scenario.kill(victim, Signal::KILL);
        scenario.wait_for(Crashed).await;
        let after = scenario.wait_for_successor_of(before).await;
        assert_eq!(after.launch, Some(LaunchKind::Warm), "{victim:?}\n{}", scenario.story());
        assert_eq!(comes_back(&scenario).await, Some(LaunchKind::Warm), "{}", scenario.story());
        scenario.end().await;
    }
}
