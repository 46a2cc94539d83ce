//! What is kept ready for a launch.

use super::*;
use crate::domain::trust::{LaunchMethod, Memories, Recall};

#[tokio::test(start_paused = true)]
async fn a_launch_hears_that_it_serves_and_a_launcher_that_it_rests() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    scene.tell(ProcessMessage::Served { incarnation: SECOND });
    scene.root.hears_nothing_for(HOUR).await;
    assert!(!process.is_known_to_serve());

    scene.tell(ProcessMessage::Served { incarnation: FIRST });
    scene.root.hears_nothing_for(HOUR).await;
    assert!(process.is_known_to_serve());

    let next = target("org/next");
    scene.tell(ProcessMessage::Prepare { target: next.clone(), method: LaunchMethod::Ahead });
    scene.root.hears_nothing_for(HOUR).await;
    assert_eq!(scene.launcher.prepared(), [next.model]);

    assert_eq!(scene.launcher.rests(), 0);
    scene.tell(ProcessMessage::Rest);
    scene.root.hears_nothing_for(HOUR).await;
    assert_eq!(scene.launcher.rests(), 1);
}

#[tokio::test(start_paused = true)]
async fn how_it_was_started_is_told() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.launcher.hold_next_start();
    scene.tell(launch_of_first());
    scene.root.hears_nothing_for(HOUR).await;
    let process = scene.launcher.last();
    process.says_it_was(LaunchMethod::Tree);
    process.recalls(Recall::Nothing);
    process.let_start();
    let (pid, method) = (process.pid(), LaunchMethod::Tree);
    let memories = Memories { recall: Recall::Nothing, course: None };
    assert_eq!(
        scene.next().await,
        ProcessReport::Launched { incarnation: FIRST, pid, method, memories }
    );
}
