//! What cannot be seen, what takes long, and what dies meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_reported_and_made_again_until_it_says_something() {
    let mut scene = Scene::begin(OrphanOutcome::Killed).await;
    let process = scene.launcher.leave(FIRST, model("m"));
    scene.launcher.fail_searches(no_descriptors());

    scene.tell(ProcessMessage::Adopt { target: target("m") });

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

    process.lose(7, role, exit);

    let died = ProcessReport::MemberDied { incarnation: FIRST, pid: 7, role, exit };
    assert_eq!(scene.next().await, died);
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_to_read_keeps_nobody_from_being_cleared_away() {
    let (mut scene, process) = Scene::with_process(OrphanOutcome::Killed).await;
    process.hold_evidence();
    process.end(Exit::Code(1));
    let exited = ProcessReport::Exited { incarnation: FIRST, exit: Exit::Code(1) };
    assert_eq!(scene.next().await, exited);

    scene.tell(ProcessMessage::Diagnose { incarnation: FIRST });
    scene.stop(FIRST, StopMode::Immediate, Phase::Loading);

    assert_eq!(scene.next().await, vacated(FIRST));
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
    scene.tell(ProcessMessage::Sample { incarnation: FIRST });
    scene.root.hears_nothing_for(HOUR).await;
}
