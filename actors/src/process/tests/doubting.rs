//! What cannot be seen, what takes long, and what dies meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_reported_and_made_again_until_it_says_something() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));
    scene.launcher.fail_searches(no_descriptors());

    scene.tell(ProcessMessage::Adopt { model: model("m") });

    assert_eq!(scene.next().await, ProcessReport::LookFailed { error: no_descriptors() });
    scene.root.hears_nothing_for(HOUR).await;
    scene.launcher.answer_searches();
    assert_eq!(scene.next().await, adopted(&process));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_is_not_vacated_and_is_said() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.hide(no_descriptors());

    scene.stop(FIRST, StopMode::Immediate, Phase::Serving);

    assert!(matches!(scene.next().await, ProcessReport::Exited { .. }));
    let doubt = Doubt::Unseen(no_descriptors());
    assert_eq!(scene.next().await, ProcessReport::Lingered { incarnation: FIRST, doubt });
    scene.root.hears_nothing_for(HOUR).await;
    process.show();
    assert_eq!(scene.next().await, vacated(FIRST));
}

#[tokio::test(start_paused = true)]
async fn the_death_of_another_of_the_tree_is_told_with_its_role_and_exit() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    let (role, exit) = (Role::Worker, Exit::Signal(9));

    process.write_last(&["it hurts"]);

    process.lose(7, role, exit);

    let last_lines = vec!["it hurts".to_owned()];
    let died = ProcessReport::MemberDied { incarnation: FIRST, pid: 7, role, exit, last_lines };
    assert_eq!(scene.next().await, died);
}

#[tokio::test(start_paused = true)]
async fn the_notice_of_an_end_does_not_wait_for_its_last_lines() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    let begun = tokio::time::Instant::now();
    process.hold_last_lines();

    process.end(Exit::Code(1));

    let last_lines = Vec::new();
    let exited = ProcessReport::Exited { incarnation: FIRST, exit: Exit::Code(1), last_lines };
    assert_eq!(scene.next().await, exited);
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_notice_of_a_workers_death_waits_for_no_lines_that_anybody_would_notice() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.hold_last_lines();
    let begun = tokio::time::Instant::now();

    process.lose(7, Role::Worker, Exit::Signal(9));

    assert!(matches!(scene.next().await, ProcessReport::MemberDied { .. }));
    assert!(begun.elapsed() < Duration::from_millis(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_reported_once_nothing_is_left_of_it() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let cause = Cause::new(Code::VllmNotFound, "there is none");
    scene.launcher.fail_next_start(cause.clone());

    scene.tell(launch_of_first());

    assert_eq!(scene.next().await, ProcessReport::LaunchFailed { incarnation: FIRST, cause });
    assert!(!scene.launcher.last().is_alive());
    scene.end().await;
    assert!(scene.journal.orphaned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_interrupts_a_start_and_what_was_started_is_swept() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    scene.launcher.hold_next_start();
    scene.tell(launch_of_first());
    scene.root.hears_nothing_for(HOUR).await;

    scene.stop(FIRST, StopMode::Graceful, Phase::Loading);

    assert_eq!(scene.next().await, vacated(FIRST));
    assert!(!scene.launcher.last().is_alive());
    scene.launcher.last().let_start();
    scene.root.hears_nothing_for(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn work_that_cannot_be_measured_is_not_told_as_none() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.fail_when_measured(no_descriptors());
    scene.tell(ProcessMessage::SampleWork { incarnation: FIRST });
    scene.root.hears_nothing_for(HOUR).await;
}
