//! Trees of real processes: short shell scripts, each the head of a session.

use std::process::{Command, Stdio};

use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapters::guardian::Guarded;
use crate::adapters::launcher::join;
use crate::adapters::proc_fs::Stat;
use crate::domain::report::Halt;
use crate::domain::report::Role;

mod belonging;
mod dying;
mod limits;
mod stopped;
mod unreadable;

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
    assert!(stat(planted.main()).is_some_and(|stat| stat.is_zombie()));

    swept(&planted.tree);

    assert_eq!(stat(planted.main()), None);
    swept(&planted.tree);
}

#[tokio::test]
async fn the_work_that_was_done_stays_done_when_a_member_ends() {
    let directory = tempfile::tempdir().unwrap();
    let enough = directory.path().join("enough");
    let work = format!("sh -c 'until [ -e {} ]; do :; done'", enough.display());
    let planted = Planted::new(&format!("{work}; exec sleep 600"));
    until("it has worked", || {
        planted.tree.sample().unwrap().work.cpu >= Duration::from_millis(300)
    })
    .await;
    let before = planted.tree.sample().unwrap().work;
    std::fs::write(&enough, "").unwrap();
    until("it has ended", || planted.pids().len() == 1).await;
    let after = planted.tree.sample().unwrap().work;
    assert!(after.cpu >= before.cpu, "{before:?} {after:?}");
}

#[tokio::test]
async fn who_is_stopped_is_told_from_who_runs() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("front.sh");
    let worker = "exec -a x::Worker sleep 600";
    // With a helper, which nobody stops.
    std::fs::write(&script, format!("bash -c '{worker}' & sleep 599 & exec sleep 600")).unwrap();
    let planted = Planted::new(&format!("exec bash {}", script.display()));
    let halt = || planted.tree.sample().unwrap().halt;
    let is_worker = |pid: &u32| {
        proc_fs::command_line(*pid).unwrap().is_some_and(|it| it.starts_with("x::Worker"))
    };
    until("it has a worker", || planted.pids().iter().any(is_worker)).await;
    let worker = planted.pids().into_iter().find(is_worker).unwrap();
    assert_eq!(halt(), Halt::None);
    let send = |pid: u32, signal| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    send(worker, Signal::STOP);
    let is_stopped = Halt::Some(vec![(worker, Role::Worker)]);
    until("the worker is seen to be stopped", || halt() == is_stopped).await;
    send(planted.main(), Signal::STOP);
    until("all are seen to be stopped", || halt() == Halt::All).await;
    for pid in [worker, planted.main()] {
        send(pid, Signal::CONT);
    }
    until("they go on", || halt() == Halt::None).await;
}

#[tokio::test]
async fn without_a_cgroup_session_marker_and_descent_find_everybody() {
    let script = "setsid sleep 600 & env -i sleep 600 & \
                  setsid env -i sh -c 'sleep 600; :' & exec sleep 600";
    let planted = Planted::ungrouped(script);
    until("all are seen", || planted.pids().len() == 5).await;
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn who_lost_session_and_marker_is_remembered_after_its_parent_has_ended() {
    let planted =
        Planted::ungrouped("(setsid env -i sh -c 'sleep 600; :' & sleep 3); exec sleep 600");
    until("all are seen", || planted.pids().len() >= 4).await;
    let runaway = |pid: &u32| stat(*pid).is_some_and(|it| it.parent == 1 || it.session == *pid);
    until("it has lost its parent", || planted.pids().len() == 3).await;
    assert!(planted.pids().iter().any(runaway));
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn a_helper_that_left_session_marker_and_parent_at_once_is_found_in_the_cgroup() {
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("pid");
    let script = format!(
        "(setsid env -i sh -c 'echo $$ >{}; exec sleep 600' &) ; exec sleep 600",
        written.display()
    );
    let planted = Planted::new(&script);
    if planted.tree.watched.ownership.cgroup().is_none() {
        println!("left out: no cgroup of version 2 can be made here");
        return;
    }
    let pid = || std::fs::read_to_string(&written).ok()?.trim().parse::<u32>().ok();
    until("it runs", || pid().is_some()).await;

    swept(&planted.tree);

    assert!(stat(pid().unwrap()).is_none_or(|stat| stat.is_zombie()));
}

/// What was seen alive, and has ended by the time that it could be held, may have left another.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a chain that is nobody's launch")]
async fn a_chain_that_forks_and_exits_is_never_taken_to_be_gone() {
    let directory = tempfile::tempdir().unwrap();
    let stamp = directory.path().join("stamp");
    let marker = proc_fs::random_uuid().unwrap();
    let link = format!(": >{}; sh -c \"$1\" x \"$1\" & exit", stamp.display());
    let mut command = Command::new("setsid");
    // Not reaped before the end: the group's number stays its own.
    let mut first =
        command.args(["sh", "-c", &link, "x", &link]).env(MARKER, &marker).spawn().unwrap();
    until("the chain runs", || stamp.exists()).await;

    let looks = (0..50).map(|_| ProcessTree::of_other(None, &marker).unwrap().remaining());
    let believed = looks.filter(|look| look == &Ok(Vec::new())).count();
    std::fs::remove_file(&stamp).unwrap();
    until("the chain still runs", || stamp.exists()).await;

    let group = Pid::from_raw(first.id().cast_signed()).unwrap();
    until("it is dead", || {
        kill_process_group(group, Signal::KILL).ok();
        std::fs::remove_file(&stamp).is_err()
    })
    .await;
    first.wait().unwrap();
    assert_eq!(believed, 0, "it was taken to be gone");
}

#[tokio::test]
async fn a_chain_that_forks_and_exits_does_not_outrun_a_sweep() {
    for plant in [Planted::new, Planted::ungrouped] {
        let directory = tempfile::tempdir().unwrap();
        let stamp = directory.path().join("stamp");
        // Each link starts the next one and ends; the stamp says that the chain goes on.
        let link = format!("i=$1; : >{0}; sh -c \"$2\" x $((i+1)) \"$2\" & exit", stamp.display());
        let planted =
            plant(&format!("link='{link}'; sh -c \"$link\" x 0 \"$link\"; exec sleep 600"));
        until("the chain runs", || stamp.exists()).await;

        swept(&planted.tree);

        std::fs::remove_file(&stamp).ok();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            assert!(!stamp.exists(), "the chain goes on");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_look_tells_who_is_left_though_others_come_and_go_all_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let stamp = directory.path().join("stamp");
    // Orphans, which might be anybody's.
    let script = format!("while :; do (sleep 0.01 &); : >{}; sleep 0.005; done", stamp.display());
    let _others = [Planted::new(&script), Planted::new(&script)];
    until("they come and go", || stamp.exists()).await;
    for plant in [Planted::new, Planted::ungrouped] {
        let planted = plant("exec sleep 600");
        assert_eq!(planted.tree.remaining_in_the_end().unwrap().len(), 1);
        swept(&planted.tree);
    }
}

#[tokio::test]
async fn a_sweep_leaves_other_launches_alone() {
    let (ours, other) = (Planted::new("exec sleep 600"), Planted::new("exec sleep 600"));
    swept(&ours.tree);
    assert!(!ours.tree.main_is_alive());
    assert!(other.tree.main_is_alive());
}

#[tokio::test]
async fn a_signal_to_a_main_process_that_is_gone_does_nothing() {
    let planted = Planted::new("exit 0");
    in_time(planted.tree.ended()).await;
    planted.tree.signal_main(Signal::TERM);
    swept(&planted.tree);
    planted.tree.signal_main(Signal::TERM);
}

#[tokio::test]
async fn a_resource_tracker_may_tidy_up_after_those_it_outlived() {
    let directory = tempfile::tempdir().unwrap();
    let tidied = directory.path().join("tidied");
    let tracker = format!("read _; echo yes >{}", tidied.display());
    let planted = Planted::new(&format!("sleep 600 | sh -c '{tracker}' $TRACKER; exec sleep 600"));
    planted.has_a_tracker().await;

    swept(&planted.tree);

    assert_eq!(std::fs::read_to_string(tidied).unwrap(), "yes\n");
}

#[tokio::test]
async fn a_resource_tracker_that_does_not_end_is_killed_after_all() {
    let planted = Planted::new("sh -c 'kill -STOP $$; :' $TRACKER; exec sleep 600");
    planted.has_a_tracker().await;
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn the_work_of_the_whole_tree_is_counted() {
    let planted = Planted::new("(while :; do :; done) & exec sleep 600");
    until("it has worked", || planted.tree.sample().unwrap().work.cpu >= Duration::from_millis(50))
        .await;
}

#[tokio::test]
async fn a_guardian_that_is_killed_is_replaced() {
    let planted = Planted::new("exec sleep 600");
    let guarded = Guarded {
        marker: planted.marker.clone(),
        cgroup: None,
        directories: Vec::new(),
        older: planted.tree.older(),
    };
    planted.tree.guard(Guardian::watch(&guarded).unwrap());
    let first = planted.tree.watched.guardian_pid().unwrap();
    let number = Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    kill_process(number, Signal::KILL).unwrap();
    until("another one", || planted.tree.watched.guardian_pid() != Some(first)).await;
    planted.tree.dismiss_guardian();
}

#[tokio::test]
async fn shared_memory_is_known_by_whoever_has_it_open_as_soon_as_it_appears() {
    let name = format!("/dev/shm/vllmd-test-{}", proc_fs::random_uuid().unwrap());
    // Open and not mapped, which no reading of maps would show.
    let planted = Planted::new(&format!("umask 077; exec 3>{name}; exec sleep 600"));
    until("it is seen", || planted.tree.watched.segments().holds(&name)).await;
    planted.tree.signal_main(Signal::KILL);
    swept(&planted.tree);
    assert!(!std::path::Path::new(&name).exists());
}

#[tokio::test]
async fn the_tree_of_another_supervisor_is_known_by_pid_and_start_time() {
    let planted = Planted::new("exec sleep 600");
    let (main, start_time) = planted.tree.main().unwrap();

    let found = ProcessTree::of_other(Some((main, start_time)), "another-marker").unwrap();
    assert!(found.main_is_alive() && !found.remaining_in_the_end().unwrap().is_empty());

    let impostor = ProcessTree::of_other(Some((main, start_time + 1)), "another-marker").unwrap();
    assert!(!impostor.main_is_alive() && impostor.remaining_in_the_end().unwrap().is_empty());
    swept(&impostor);
    assert_eq!(in_time(impostor.ended()).await, Exit::Unknown);
    assert!(planted.tree.main_is_alive());
}

#[tokio::test]
async fn all_launches_of_a_supervisor_are_known_by_how_their_marker_begins() {
    let planted = Planted::new("exec sleep 600");
    let prefix = planted.marker.split('-').next().unwrap();
    until("it carries it", || carries_marker(planted.main(), prefix)).await;
    assert!(!carries_marker(planted.main(), "another"));
    assert!(!carries_marker(std::process::id(), prefix));
}

/// A tree that is gone at the end.
struct Planted {
    tree: ProcessTree,
    marker: String,
}

impl Planted {
    /// In a cgroup of its own, where there is one.
    fn new(script: &str) -> Self {
        let marker = proc_fs::random_uuid().unwrap();
        Self::with(ProcessTree::claim(&marker).unwrap(), marker, script)
    }

    /// Without a cgroup.
    fn ungrouped(script: &str) -> Self {
        let marker = proc_fs::random_uuid().unwrap();
        let ownership = Ownership::SessionAndMarker(Marked::by(format!("{MARKER}={marker}")));
        let segments = Segments::before_launch().unwrap();
        Self::with(ProcessTree::new(ownership, segments).unwrap(), marker, script)
    }

    fn with(tree: ProcessTree, marker: String, script: &str) -> Self {
        let entrance = tree.entrance();
        Self::through(entrance, tree, marker, script)
    }

    #[expect(clippy::disallowed_methods, reason = "a tree needs somebody to start it")]
    fn through(entrance: Option<File>, tree: ProcessTree, marker: String, script: &str) -> Self {
        tree.watch().unwrap();
        let mut command = Command::new("setsid");
        command
            .args(["/bin/sh", "-c", script])
            .env(MARKER, &marker)
            // Not in the script, whose whole text stands in the command line of its shell.
            .env("TRACKER", "multiprocessing.resource_tracker")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(entrance) = entrance {
            join(&mut command, entrance);
        }
        tree.start(&mut command).unwrap();
        Self { tree, marker }
    }

    fn main(&self) -> u32 {
        self.tree.main().unwrap().0
    }

    fn pids(&self) -> Vec<u32> {
        let left = self.tree.remaining_in_the_end().unwrap_or_default().into_iter();
        left.filter_map(|it| match it {
            Leftover::Process { pid, .. } => Some(pid),
            _ => None,
        })
        .collect()
    }

    async fn has_a_tracker(&self) {
        let is_tracker = |pid: &u32| {
            let words = proc_fs::command_line(*pid).unwrap().unwrap_or_default();
            words.contains("multiprocessing.resource_tracker")
        };
        until("it has a tracker", || self.pids().iter().any(is_tracker)).await;
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let swept = self.tree.sweep();
        assert!(swept.is_ok() || std::thread::panicking(), "{swept:?}");
    }
}

fn swept(tree: &ProcessTree) {
    let swept = tree.sweep();
    assert!(swept.is_ok(), "{swept:?}");
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::of(pid).unwrap()
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
