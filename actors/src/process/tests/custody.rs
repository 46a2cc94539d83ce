//! What becomes of the process when the actor that holds it ends, in whatever way.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_that_is_stopped() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    scene.end().await;
    scene.custody_ends(&process, Fate::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_that_is_killed() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    scene.actor.kill();
    scene.ends().await;
    scene.custody_ends(&process, Fate::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_an_actor_whose_task_panics() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    process.panic_when_measured();
    scene.tell(ProcessMessage::SampleWork { incarnation: FIRST });
    scene.ends().await;
    scene.custody_ends(&process, Fate::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_killed_dies_with_its_actors_parent() {
    let (scene, process) = Scene::with_process(Fate::Killed).await;
    scene.root.cell().kill();
    scene.custody_ends(&process, Fate::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_that_is_stopped() {
    let (mut scene, process) = Scene::with_process(Fate::Kept).await;
    scene.end().await;
    scene.custody_ends(&process, Fate::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_that_is_killed() {
    let (mut scene, process) = Scene::with_process(Fate::Kept).await;
    scene.actor.kill();
    scene.ends().await;
    scene.custody_ends(&process, Fate::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_to_be_kept_survives_an_actor_whose_task_panics() {
    let (mut scene, process) = Scene::with_process(Fate::Kept).await;
    process.panic_when_measured();
    scene.tell(ProcessMessage::SampleWork { incarnation: FIRST });
    scene.ends().await;
    scene.custody_ends(&process, Fate::Kept).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_ends_amid_a_stop_kills_what_was_to_be_killed() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    process.ignore_sigterm();
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.root.hears_nothing_for(Duration::from_secs(1)).await;
    scene.end().await;
    scene.custody_ends(&process, Fate::Killed).await;
    // The guard has a thread of its own, whose clock is not the test's.
    let deeds: Vec<_> = process.deeds().into_iter().map(|(_, deed)| deed).collect();
    assert_eq!(deeds, [TERM, Deed::SweptByGuard]);
}

#[tokio::test(start_paused = true)]
async fn what_was_adopted_is_held_like_what_was_launched() {
    let mut scene = Scene::begin(Fate::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));
    scene.tell(ProcessMessage::Adopt { model: model("m") });
    assert_eq!(scene.next().await, adopted(&process));
    scene.end().await;
    scene.custody_ends(&process, Fate::Killed).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_proven_gone_is_neither_killed_nor_written_down() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    scene.stop(FIRST, StopMode::Graceful, Phase::Serving);
    scene.vacates(FIRST).await;
    scene.end().await;
    assert_eq!(scene.journal.ends_of_custody(), []);
    assert_eq!(deeds(&process), [(0, TERM), (0, Deed::Swept)]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_has_not_started_yet_is_swept_whatever_was_to_become_of_it() {
    for fate in [Fate::Killed, Fate::Kept] {
        let mut scene = Scene::begin(fate).await;
        scene.launcher.hold_next_start();
        scene.tell(ProcessMessage::Launch { incarnation: FIRST, model: model("m") });
        scene.root.hears_nothing_for(HOUR).await;

        scene.end().await;

        let ends = scene.journal.ends_of_custody();
        let [ended] = ends.as_slice() else { panic!("not one end: {ends:?}") };
        assert_eq!((ended.pid, ended.fate, &ended.left), (None, Fate::Killed, &None));
        assert!(!scene.launcher.last().is_alive());
    }
}

#[tokio::test(start_paused = true)]
async fn the_journal_says_what_outlives_the_guard() {
    let (mut scene, process) = Scene::with_process(Fate::Killed).await;
    process.get_stuck(&[7]);

    scene.end().await;

    let ends = scene.journal.ends_of_custody();
    let left = vec![Leftover::Process { pid: 7, name: "stuck".to_owned() }];
    assert_eq!(ends[0].left, Some(Doubt::Left(left)));
}

impl Scene {
    /// The guard has acted, once, and has written down how.
    async fn custody_ends(&self, process: &ScriptedProcess, fate: Fate) {
        eventually("the guard acts", || !self.journal.ends_of_custody().is_empty()).await;
        let ends = self.journal.ends_of_custody();
        let [ended] = ends.as_slice() else { panic!("more than one end: {ends:?}") };
        assert_eq!((ended.incarnation, ended.pid), (process.incarnation(), Some(process.pid())));
        assert_eq!(ended.fate, fate);
        assert_eq!(process.is_alive(), fate == Fate::Kept);
        let swept = process.deeds().iter().filter(|(_, deed)| *deed == Deed::SweptByGuard).count();
        assert_eq!(swept, usize::from(fate == Fate::Killed));
    }
}
