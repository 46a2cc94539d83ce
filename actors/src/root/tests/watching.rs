//! A vLLM that somebody else has in hand.

use super::*;
use crate::domain::spec::LifecycleMode;
use crate::domain::ticket::CommandError;
use crate::domain::unit::{Activity, UnitStatus};

fn plan(mode: LifecycleMode, unit: Option<&str>) -> Plan {
    let mut plan = Plan::new(ExitPolicy::Detach);
    plan.spec.mode = mode;
    plan.spec.unit = unit.map(str::to_owned);
    plan
}

async fn watching(mode: LifecycleMode, unit: Option<&str>) -> Harness {
    Harness::begin(World::default(), plan(mode, unit)).await
}

fn active(pid: u32) -> UnitStatus {
    let mut status = UnitStatus::inactive("vllm.service");
    status.active = Activity::Active;
    status.sub = "running".to_owned();
    status.main_pid = Some(pid);
    status
}

#[tokio::test(start_paused = true)]
async fn an_external_vllm_is_probed_and_nothing_is_launched() {
    let harness = watching(LifecycleMode::External, None).await;
    harness.wait_until(|now| now.last_health_check.is_some()).await;
    assert_eq!(harness.snapshot().state, Unknown);
    let refused = harness.ask(start).answer().await;
    let is_refusal = matches!(
        refused,
        Some(Err(CommandError::NotManaged { mode: LifecycleMode::External, .. }))
    );
    assert!(is_refusal, "{refused:?}");

    harness.world.probe.serve();
    let begun = Instant::now();
    harness.wait_for(Running).await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(harness.ask(ensure).answer().await, Some(Ok(())));

    let snapshot = harness.wait_for(Running).await;
    assert_eq!(snapshot.mode, LifecycleMode::External);
    assert_eq!((snapshot.pid, snapshot.launch, snapshot.incarnation.get()), (None, None, 1));
    assert_eq!(snapshot.listed_models, ["org/first"]);
    assert!(launches(&harness).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_external_vllm_that_goes_away_and_comes_back_is_noticed() {
    let harness = watching(LifecycleMode::External, None).await;
    harness.world.probe.serve();
    harness.wait_for(Running).await;
    harness.world.probe.serve_only(&[]);
    let lost = harness.wait_for(Unknown).await;
    assert!(lost.last_error.is_some());
    harness.world.probe.serve();
    harness.wait_for(Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_followed_from_start_to_restart() {
    let harness = watching(LifecycleMode::Monitored, Some("vllm.service")).await;
    harness.world.probe.serve();
    let unit = &harness.world.unit;
    unit.tell(UnitStatus::inactive("vllm.service"));
    harness.wait_for(Stopped).await;
    unit.tell(active(41));
    let snapshot = harness.wait_for(Running).await;
    assert_eq!((snapshot.pid, snapshot.mode), (Some(41), LifecycleMode::Monitored));
    assert_eq!(snapshot.unit.unwrap().main_pid, Some(41));
    unit.tell(active(42));
    harness.wait_until(|now| now.state == Running && now.pid == Some(42)).await;
    assert_eq!(harness.snapshot().restarts.total, 1);
    assert_eq!(harness.path(), [Stopped, Starting, Running, Crashed, Starting, Running]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_who_watches_is_an_end_for_nobody_else() {
    let mut harness = watching(LifecycleMode::Monitored, Some("vllm.service")).await;
    harness.world.probe.serve();
    harness.world.unit.tell(active(41));
    harness.wait_for(Running).await;
    harness.send(Command::Shutdown.into());
    harness.wait_for_end().await;
    assert!(harness.snapshot().ended.is_some());
}
