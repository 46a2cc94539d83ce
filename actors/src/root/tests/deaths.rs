//! Child actors that die, which is a bug of ours and no crash of vLLM.

use ractor::{ActorId, Message};

use super::*;
use crate::domain::event::Event;
use crate::domain::gpu::GpuSnapshot;
use crate::domain::report::ProcessReport;
use crate::gpu_monitor::GpuMonitorMessage;
use crate::health::HealthMessage;
use crate::model_loader::ModelLoaderMessage;
use crate::process::{Epoch, ProcessMessage, ProcessNews};
use crate::root::Snapshot;

#[tokio::test(start_paused = true)]
async fn a_gpu_monitor_that_dies_is_replaced_and_goes_on() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let others = [id::<ProcessMessage>(&harness), id::<HealthMessage>(&harness)];

    harness.replace::<GpuMonitorMessage>().await;

    harness.world.gpus.see(GpuSnapshot::default());
    harness.wait_until(|snapshot| matches!(snapshot.gpus, GpuView::Seen(_))).await;
    assert_eq!([id::<ProcessMessage>(&harness), id::<HealthMessage>(&harness)], others);
    goes_on_undisturbed(&harness, &process);
}

#[tokio::test(start_paused = true)]
async fn a_health_actor_that_dies_is_replaced_and_goes_on() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let loader = id::<ModelLoaderMessage>(&harness);

    harness.replace::<HealthMessage>().await;

    assert_eq!(id::<ModelLoaderMessage>(&harness), loader);
    goes_on_undisturbed(&harness, &process);
    harness.world.probe.fall_silent();
    harness.wait_for(Crashed).await;
}

#[tokio::test(start_paused = true)]
async fn a_health_actor_that_dies_while_vllm_starts_still_finds_out_that_it_serves() {
    let (harness, _, started) = starting(ExitPolicy::Stop).await;
    harness.replace::<HealthMessage>().await;
    harness.world.probe.serve();
    assert_eq!(started.answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_once_costs_nothing_but_its_actor() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    let before = id::<HealthMessage>(&harness);
    harness.world.probe.panic_next(1);

    eventually("it is replaced", || {
        harness.world.probe.asked().len() > 2 && id::<HealthMessage>(&harness) != before
    })
    .await;

    harness.stays_for(5 * MINUTE, |snapshot| snapshot.state == Running).await;
    goes_on_undisturbed(&harness, &process);
}

#[tokio::test(start_paused = true)]
async fn a_model_loader_that_dies_takes_the_health_actor_along_and_both_go_on() {
    let (harness, _, started) = starting(ExitPolicy::Stop).await;
    let (process, health) = (id::<ProcessMessage>(&harness), id::<HealthMessage>(&harness));

    harness.replace::<ModelLoaderMessage>().await;

    eventually("the other is replaced", || id::<HealthMessage>(&harness) != health).await;
    assert_eq!(id::<ProcessMessage>(&harness), process);
    harness.world.output.write(FIRST, &["Starting to load model org/first..."]);
    harness.wait_until(|snapshot| snapshot.progress.is_some()).await;
    harness.world.probe.serve();
    assert_eq!(started.answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_model_loader_that_dies_does_not_turn_the_progress_back() {
    let (harness, _, _started) = starting(ExitPolicy::Stop).await;
    harness.world.output.write(FIRST, &["Initializing a V1 LLM engine", "Starting to load model"]);
    let percent = |harness: &Harness| harness.snapshot().progress.map(|load| load.percent);
    eventually("it loads", || percent(&harness) == Some(20)).await;

    harness.replace::<ModelLoaderMessage>().await;

    harness.stays_for(Duration::from_secs(20), |_| percent(&harness) == Some(20)).await;
    let percents: Vec<_> = harness.events().into_iter().filter_map(percent_of).collect();
    assert!(percents.is_sorted(), "{percents:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_actor_that_dies_takes_loader_and_health_along_but_not_the_gpu_monitor() {
    let (harness, _) = running(ExitPolicy::Detach).await;
    let before = (id::<ModelLoaderMessage>(&harness), id::<HealthMessage>(&harness));
    let gpus = id::<GpuMonitorMessage>(&harness);

    harness.replace::<ProcessMessage>().await;

    eventually("they are replaced", || {
        let after = (id::<ModelLoaderMessage>(&harness), id::<HealthMessage>(&harness));
        after.0 != before.0 && after.1 != before.1
    })
    .await;
    assert_eq!(id::<GpuMonitorMessage>(&harness), gpus);
}

#[tokio::test(start_paused = true)]
async fn a_kept_vllm_is_adopted_again_when_its_actor_dies() {
    let (harness, process) = running(ExitPolicy::Detach).await;

    harness.replace::<ProcessMessage>().await;

    adopted_again(&harness).await;
    assert_eq!(harness.path()[2..], [Running, Unknown, Starting, Running]);
    assert_eq!(harness.snapshot().pid, Some(process.pid()));
    assert_eq!(launches(&harness), [1]);
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_vllm_is_restarted_when_its_actor_dies() {
    let (harness, process) = running(ExitPolicy::Stop).await;

    harness.replace::<ProcessMessage>().await;

    harness.wait_until(|s| s.incarnation == SECOND && s.state == Running).await;
    assert!(!process.is_alive());
    assert_eq!(launches(&harness), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_about_a_running_process_neither_loses_nor_doubles_it() {
    let (harness, process) = running(ExitPolicy::Detach).await;
    process.panic_when_measured();

    let (child, incarnation) = (harness.child::<ProcessMessage>(), FIRST);
    child.send_message(ProcessMessage::Sample { incarnation }).unwrap();

    adopted_again(&harness).await;
    assert_eq!(harness.snapshot().pid, Some(process.pid()));
    assert_eq!(harness.world.launcher.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_panics_is_tried_again() {
    let harness = resting(ExitPolicy::Stop).await;
    harness.world.probe.serve();
    harness.world.launcher.panic_next();
    assert_eq!(harness.ask(start).answer().await, Some(Ok(())));
    assert_eq!(launches(&harness), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_finished_by_the_next_process_actor() {
    for on_exit in [ExitPolicy::Stop, ExitPolicy::Detach] {
        let (harness, process) = running(on_exit).await;
        process.ignore_sigterm();
        let stopped = harness.ask(stop);
        harness.wait_for(Stopping).await;

        harness.replace::<ProcessMessage>().await;

        assert_eq!(stopped.answer().await, Some(Ok(())), "{on_exit:?}");
        assert!(!process.is_alive());
        assert_eq!(launches(&harness), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_is_cleared_by_the_next_process_actor() {
    let (harness, process) = running(ExitPolicy::Detach).await;
    process.get_stuck(&[7]);
    process.end(Exit::Signal(9));
    harness.wait_for(Crashed).await;

    harness.replace::<ProcessMessage>().await;
    harness.stays_for(Duration::from_secs(5), |_| launches(&harness) == [1]).await;
    process.come_loose();

    harness.wait_until(|s| s.incarnation == SECOND && s.state == Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_actor_that_dies_while_looking_is_replaced_by_one_that_looks() {
    let world = World::default();
    world.probe.serve();
    world.launcher.hold_searches();
    world.launcher.leave(FIRST, model("org/first"));
    let harness = Harness::begin(world, Plan::new(ExitPolicy::Stop)).await;

    harness.replace::<ProcessMessage>().await;
    harness.world.launcher.answer_searches();

    harness.wait_for(Running).await;
    assert_eq!(launches(&harness), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_dead_process_actor_are_not_heard() {
    let (harness, process) = running(ExitPolicy::Detach).await;
    harness.replace::<ProcessMessage>().await;
    adopted_again(&harness).await;

    let report = ProcessReport::Exited { incarnation: FIRST, exit: Exit::Code(0) };
    harness.send(RootMessage::Process(ProcessNews { epoch: Epoch::default(), report }));

    harness.stays_for(MINUTE, |snapshot| snapshot.state == Running).await;
    assert!(process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_fourth_death_within_a_minute_ends_the_supervisor_in_order() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    for _ in 0..3 {
        harness.replace::<ModelLoaderMessage>().await;
    }

    harness.child::<ModelLoaderMessage>().kill();

    harness.wait_for_end().await;
    assert_eq!(why_it_ended(&harness), Some(EndReason::ActorsDied));
    assert_eq!(harness.snapshot().state, Stopped);
    assert_eq!(harness.path()[2..], [Running, Stopping, Stopped]);
    assert_eq!(calls(&process), [Call::Signalled(Signal::Terminate), Call::Swept]);
}

#[tokio::test(start_paused = true)]
async fn what_ends_the_supervisor_first_is_why_it_ends() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    process.ignore_sigterm();
    for _ in 0..3 {
        harness.replace::<ModelLoaderMessage>().await;
    }
    harness.child::<ModelLoaderMessage>().kill();
    harness.wait_for(Stopping).await;

    harness.send(Command::Shutdown.into());

    harness.wait_for_end().await;
    assert_eq!(why_it_ended(&harness), Some(EndReason::ActorsDied));
}

#[tokio::test(start_paused = true)]
async fn a_gpu_monitor_that_dies_too_often_stays_dead_and_the_service_goes_on() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    for _ in 0..3 {
        harness.replace::<GpuMonitorMessage>().await;
    }

    harness.child::<GpuMonitorMessage>().kill();

    harness.wait_until(|snapshot| matches!(snapshot.gpus, GpuView::Unavailable(_))).await;
    harness.stays_for(MINUTE, |snapshot| snapshot.state == Running).await;
    goes_on_undisturbed(&harness, &process);
    harness.replace::<HealthMessage>().await;
    harness.stays_for(MINUTE, |snapshot| snapshot.state == Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_fourth_death_ends_a_supervisor_that_detaches_without_its_vllm() {
    let (mut harness, process) = running(ExitPolicy::Detach).await;
    for _ in 0..3 {
        harness.replace::<HealthMessage>().await;
    }

    harness.child::<HealthMessage>().kill();

    harness.wait_for_end().await;
    assert_eq!(calls(&process), []);
    assert!(process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_fourth_death_of_the_process_actor_leaves_vllm_to_its_guard() {
    for (on_exit, outcome) in
        [(ExitPolicy::Stop, OrphanOutcome::Killed), (ExitPolicy::Detach, OrphanOutcome::Kept)]
    {
        let (mut harness, _) = running(on_exit).await;
        for _ in 0..3 {
            harness.replace::<ProcessMessage>().await;
            harness.wait_for(Running).await;
        }
        let process = harness.world.launcher.last();

        harness.child::<ProcessMessage>().kill();

        harness.wait_for_end().await;
        assert_eq!(why_it_ended(&harness), Some(EndReason::ActorsDied));
        assert_eq!(harness.snapshot().state, Unknown);
        let ends = harness.world.journal.orphaned();
        assert!(ends.iter().all(|ended| ended.outcome == outcome), "{ends:?}");
        assert_eq!(ends.len(), 4);
        assert_eq!(process.is_alive(), outcome == OrphanOutcome::Kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_always_panics_ends_the_supervisor_in_order() {
    let (mut harness, process) = running(ExitPolicy::Stop).await;
    harness.world.probe.panic_next(u32::MAX);
    harness.wait_for_end().await;
    assert_eq!(harness.path().last(), Some(&Stopped));
    assert!(!process.is_alive());
}

#[tokio::test(start_paused = true)]
async fn deaths_that_are_far_apart_never_end_the_supervisor() {
    let (harness, process) = running(ExitPolicy::Stop).await;
    for _ in 0..8 {
        harness.replace::<GpuMonitorMessage>().await;
        harness.stays_for(MINUTE / 2, |snapshot| snapshot.state == Running).await;
    }
    goes_on_undisturbed(&harness, &process);
}

/// What the last event says.
fn why_it_ended(harness: &Harness) -> Option<EndReason> {
    match harness.events().pop()?.kind {
        EventKind::SupervisorEnded { reason } => Some(reason),
        EventKind::StateChanged { .. }
        | EventKind::LoadProgressed { .. }
        | EventKind::RestartScheduled { .. }
        | EventKind::IncidentRecorded { .. }
        | EventKind::LaunchTimed { .. }
        | EventKind::LaunchDistrusted { .. }
        | EventKind::StateExplained { .. }
        | EventKind::ServiceRecovered { .. }
        | EventKind::GpuFindingRaised { .. }
        | EventKind::GpuFindingCleared { .. }
        | EventKind::HealthChanged { .. }
        | EventKind::ModelWanted { .. }
        | EventKind::CleanupBlocked { .. }
        | EventKind::Orphaned { .. }
        | EventKind::ModelSwitched { .. } => None,
    }
}

async fn adopted_again(harness: &Harness) {
    let is_back = |s: &Snapshot| s.state == Running && harness.path().contains(&Unknown);
    let snapshot = harness.wait_until(is_back).await;
    assert_eq!(snapshot.launch, Some(LaunchKind::Cold), "we started it ourselves");
}

fn goes_on_undisturbed(harness: &Harness, process: &ScriptedProcess) {
    assert_eq!(harness.path(), [Stopped, Starting, Running]);
    assert_eq!(harness.snapshot().pid, Some(process.pid()));
    assert_eq!(calls(process), []);
}

fn percent_of(event: Event) -> Option<u8> {
    match event.kind {
        EventKind::LoadProgressed { progress } => Some(progress.percent),
        EventKind::StateChanged { .. }
        | EventKind::RestartScheduled { .. }
        | EventKind::IncidentRecorded { .. }
        | EventKind::LaunchTimed { .. }
        | EventKind::LaunchDistrusted { .. }
        | EventKind::StateExplained { .. }
        | EventKind::ServiceRecovered { .. }
        | EventKind::GpuFindingRaised { .. }
        | EventKind::GpuFindingCleared { .. }
        | EventKind::HealthChanged { .. }
        | EventKind::ModelWanted { .. }
        | EventKind::CleanupBlocked { .. }
        | EventKind::SupervisorEnded { .. }
        | EventKind::Orphaned { .. }
        | EventKind::ModelSwitched { .. } => None,
    }
}

fn id<M: Message>(harness: &Harness) -> ActorId {
    harness.child::<M>().get_id()
}
