//! What becomes of the process when the actor that holds it ends, in whatever way.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_that_is_stopped() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    scene.end().await;
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_that_is_killed() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    scene.actor.kill();
    scene.ends().await;
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_whose_task_panics() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.panic_when_measured();
    scene.tell(ProcessMessage::Sample { incarnation: FIRST });
    scene.ends().await;
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_its_actors_parent() {
    let (scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    scene.root.cell().kill();
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_that_is_stopped() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Kept).await;
    scene.end().await;
    scene.owner_ends(&process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_that_is_killed() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Kept).await;
    scene.actor.kill();
    scene.ends().await;
    scene.owner_ends(&process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_whose_task_panics() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Kept).await;
    process.panic_when_measured();
    scene.tell(ProcessMessage::Sample { incarnation: FIRST });
    scene.ends().await;
    scene.owner_ends(&process, OrphanOutcome::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_ends_amid_a_stop_kills_what_was_to_be_killed() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.ignore_sigterm();
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.root.hears_nothing_for(Duration::from_secs(1)).await;
    scene.end().await;
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
    // The guard has a thread of its own, whose clock is not the test's.
    let calls: Vec<_> = process.calls().into_iter().map(|(_, call)| call).collect();
    assert_eq!(calls, [TERM, Call::SweptByGuard]);
}

#[tokio::test(start_paused = true)]
async fn what_was_adopted_is_held_like_what_was_launched() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));
    scene.tell(ProcessMessage::Adopt { target: target("m") });
    assert_eq!(scene.next().await, adopted(&process));
    scene.end().await;
    scene.owner_ends(&process, OrphanOutcome::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_proven_gone_is_neither_killed_nor_written_down() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.vacates(FIRST).await;
    scene.end().await;
    assert_eq!(scene.journal.orphaned(), []);
    assert_eq!(calls(&process), [(0, TERM), (0, Call::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_has_not_started_yet_is_swept_whatever_was_to_become_of_it() {
    for outcome in [OrphanOutcome::Killed, OrphanOutcome::Kept] {
        let mut scene = Scene::begin(outcome).await;
        scene.launcher.hold_next_start();
        scene.tell(launch_of_first());
        scene.root.hears_nothing_for(HOUR).await;

        scene.end().await;

        let ends = scene.journal.orphaned();
        let [ended] = ends.as_slice() else { panic!("not one end: {ends:?}") };
        assert_eq!((ended.pid, ended.outcome, &ended.left), (None, OrphanOutcome::Killed, &None));
        assert!(!scene.launcher.last().is_alive());
    }
}

#[tokio::test(start_paused = true)]
async fn the_journal_says_what_outlives_the_guard() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.get_stuck(&[7]);

    scene.end().await;

    let ends = scene.journal.orphaned();
    let left = vec![Leftover::Process { pid: 7, name: "stuck".to_owned() }];
    assert_eq!(ends[0].left, Some(Doubt::Left(left)));
}

impl Scene {
    /// The guard has acted, once, and has written down how.
    async fn owner_ends(&self, process: &ScriptedProcess, outcome: OrphanOutcome) {
        eventually("the guard acts", || !self.journal.orphaned().is_empty()).await;
        let ends = self.journal.orphaned();
        let [ended] = ends.as_slice() else { panic!("more than one end: {ends:?}") };
        assert_eq!((ended.incarnation, ended.pid), (process.incarnation(), Some(process.pid())));
        assert_eq!(ended.outcome, outcome);
        assert_eq!(process.is_alive(), outcome == OrphanOutcome::Kept);
        let swept = process.calls().iter().filter(|(_, call)| *call == Call::SweptByGuard).count();
        assert_eq!(swept, usize::from(outcome == OrphanOutcome::Killed));
    }
}
