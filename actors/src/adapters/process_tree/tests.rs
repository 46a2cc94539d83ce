//! Trees of real processes: short shell scripts, each the head of a session.

use std::process::{Command, Stdio};

use tokio::time::{sleep, timeout};

use super::*;

/// Far longer than anything here takes, on a machine that is busy too.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn everybody_who_waits_hears_how_the_main_process_ended() {
    let planted = Planted::new("exit 3");
    let (first, second) = (planted.tree.ended(), planted.tree.ended());
    assert_eq!(in_time(first).await, Exit::Code(3));
    assert_eq!(in_time(second).await, Exit::Code(3));
    assert_eq!(in_time(planted.tree.ended()).await, Exit::Code(3));
}

#[tokio::test]
async fn a_main_process_that_has_ended_keeps_its_number_until_it_is_swept() {
    let planted = Planted::new("exit 0");
    in_time(planted.tree.ended()).await;
    assert!(Stat::of(planted.tree.main()).is_some_and(|stat| stat.is_zombie()));

    assert_eq!(planted.tree.sweep(), [0; 0]);

    assert_eq!(Stat::of(planted.tree.main()), None);
    assert_eq!(planted.tree.sweep(), [0; 0]);
}

#[tokio::test]
async fn who_has_lost_the_marker_is_found_by_the_session() {
    let planted = Planted::new("env -i sleep 600 & exec sleep 600");
    let has_lost_it = |member: &Member| !carries_marker(member.stat.pid, "");
    until("it has lost it", || planted.tree.members().iter().any(has_lost_it)).await;

    assert_eq!(planted.tree.sweep(), [0; 0]);
    assert!(!planted.tree.is_alive());
}

#[tokio::test]
async fn the_session_counts_after_the_main_process_has_ended() {
    let planted = Planted::new("env -i sleep 600 & exit 0");
    in_time(planted.tree.ended()).await;
    assert!(!planted.tree.main_is_alive());
    assert!(planted.tree.is_alive());
    assert_eq!(planted.tree.sweep(), [0; 0]);
    assert!(!planted.tree.is_alive());
}

#[tokio::test]
async fn who_has_left_the_session_is_found_by_the_marker() {
    let planted = Planted::new("setsid sleep 600 & exec sleep 600");
    let has_left = |member: &Member| member.stat.session != planted.tree.main();
    until("it has left", || planted.tree.members().iter().any(has_left)).await;

    assert_eq!(planted.tree.sweep(), [0; 0]);
    assert!(!planted.tree.is_alive());
}

#[tokio::test]
async fn a_sweep_leaves_other_launches_alone() {
    let (ours, other) = (Planted::new("exec sleep 600"), Planted::new("exec sleep 600"));
    assert_eq!(ours.tree.sweep(), [0; 0]);
    assert!(!ours.tree.main_is_alive());
    assert!(other.tree.main_is_alive());
}

#[tokio::test]
async fn a_stopped_main_process_heeds_the_signal() {
    let planted = Planted::new("trap 'exit 5' TERM; kill -STOP $$; while :; do sleep 600; done");
    let is_stopped = || Stat::of(planted.tree.main()).is_some_and(|stat| stat.state == 'T');
    until("it has stopped", is_stopped).await;

    planted.tree.signal_main(Signal::TERM);

    assert_eq!(in_time(planted.tree.ended()).await, Exit::Code(5));
}

#[tokio::test]
async fn a_signal_to_a_main_process_that_is_gone_does_nothing() {
    let planted = Planted::new("exit 0");
    in_time(planted.tree.ended()).await;
    planted.tree.signal_main(Signal::TERM);
    assert_eq!(planted.tree.sweep(), [0; 0]);
    planted.tree.signal_main(Signal::TERM);
}

#[tokio::test]
async fn a_resource_tracker_may_tidy_up_after_those_it_outlived() {
    let directory = tempfile::tempdir().unwrap();
    let tidied = directory.path().join("tidied");
    let tracker = format!("read _; echo yes >{}", tidied.display());
    let planted = Planted::new(&format!("sleep 600 | sh -c '{tracker}' $TRACKER; exec sleep 600"));
    planted.has_a_tracker().await;

    assert_eq!(planted.tree.sweep(), [0; 0]);

    assert_eq!(std::fs::read_to_string(tidied).unwrap(), "yes\n");
}

#[tokio::test]
async fn a_resource_tracker_that_does_not_end_is_killed_after_all() {
    let planted = Planted::new("sh -c 'kill -STOP $$; :' $TRACKER; exec sleep 600");
    planted.has_a_tracker().await;
    assert_eq!(planted.tree.sweep(), [0; 0]);
    assert!(!planted.tree.is_alive());
}

#[tokio::test]
async fn the_work_of_the_whole_tree_is_counted() {
    let planted = Planted::new("(while :; do :; done) & exec sleep 600");
    until("it has worked", || planted.tree.work().cpu >= Duration::from_millis(50)).await;
}

#[tokio::test]
async fn the_tree_of_another_supervisor_is_known_by_pid_and_start_time() {
    let planted = Planted::new("exec sleep 600");
    let (main, start_time) =
        (planted.tree.main(), Stat::of(planted.tree.main()).unwrap().start_time);

    let found = ProcessTree::of_other(main, start_time, "another-marker");
    assert!(found.main_is_alive() && found.is_alive());

    let impostor = ProcessTree::of_other(main, start_time + 1, "another-marker");
    assert!(!impostor.main_is_alive() && !impostor.is_alive());
    assert_eq!(impostor.sweep(), [0; 0]);
    assert_eq!(in_time(impostor.ended()).await, Exit::Unknown);
    assert!(planted.tree.main_is_alive());
}

#[tokio::test]
async fn all_launches_of_a_supervisor_are_known_by_how_their_marker_begins() {
    let planted = Planted::new("exec sleep 600");
    let prefix = planted.marker.split('-').next().unwrap();
    until("it carries it", || carries_marker(planted.tree.main(), prefix)).await;
    assert!(!carries_marker(planted.tree.main(), "another"));
    assert!(!carries_marker(std::process::id(), prefix));
}

/// A tree that is gone at the end.
struct Planted {
    tree: ProcessTree,
    marker: String,
}

impl Planted {
    #[expect(clippy::disallowed_methods, reason = "a tree needs somebody to start it")]
    #[expect(clippy::zombie_processes, reason = "the sweep reaps it")]
    fn new(script: &str) -> Self {
        let marker = proc_fs::random_uuid().unwrap();
        let child = Command::new("setsid")
            .args(["/bin/sh", "-c", script])
            .env(MARKER, &marker)
            // Not in the script, whose whole text stands in the command line of its shell.
            .env("TRACKER", "multiprocessing.resource_tracker")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tree = ProcessTree::of_child(child.id(), &marker).unwrap();
        Self { tree, marker }
    }

    async fn has_a_tracker(&self) {
        until("it has a tracker", || self.tree.members().iter().any(Member::is_resource_tracker))
            .await;
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let survivors = self.tree.sweep();
        assert!(survivors.is_empty() || std::thread::panicking(), "{survivors:?} live");
    }
}

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(DEADLINE, wait).await.expect("it takes too long")
}

/// Waits until something is so that nobody tells of.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
