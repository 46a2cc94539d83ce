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
    assert_eq!(deeds(&process), [(0, TERM), (1, Deed::SweptByGuard)]);
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

impl Scene {
    /// The guard has acted, once, and has written down how.
    async fn custody_ends(&self, process: &ScriptedProcess, fate: Fate) {
        eventually("the guard acts", || !self.journal.ends_of_custody().is_empty()).await;
        let ends = self.journal.ends_of_custody();
        let [ended] = ends.as_slice() else { panic!("more than one end: {ends:?}") };
        assert_eq!((ended.incarnation, ended.pid), (process.incarnation(), process.pid()));
        assert_eq!(ended.fate, fate);
        assert_eq!(process.is_alive(), fate == Fate::Kept);
        let swept = process.deeds().iter().filter(|(_, deed)| *deed == Deed::SweptByGuard).count();
        assert_eq!(swept, usize::from(fate == Fate::Killed));
    }
}
