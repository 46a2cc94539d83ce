//! Who belongs by session, by marker, and by cgroup.

use super::*;
use crate::domain::absence::ScanErrorKind;

/// A process without a marker in a session whose leader has ended.
struct Leaderless {
    session: u32,
    began: u64,
    pid: u32,
}

impl Leaderless {
    /// With another one in it that carries this marker, if one is given.
    #[expect(clippy::disallowed_methods, reason = "processes to look at")]
    fn begin(marker: Option<&str>) -> Self {
        let script = "env -u VLLMD_INSTANCE sleep 600 >&2 & echo $$ $!; \
                      if [ -n \"$VLLMD_INSTANCE\" ]; then sleep 600 >&2 & fi";
        let mut command = Command::new("setsid");
        command.args(["/bin/sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(marker) = marker {
            command.env(MARKER, marker);
        }
        let began = proc_fs::start_time_now();
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (session, pid) = said.trim().split_once(' ').unwrap();
        let (session, pid) = (session.parse().unwrap(), pid.parse().unwrap());
        Self { session, began, pid }
    }
}

impl Drop for Leaderless {
    fn drop(&mut self) {
        for pid in proc_fs::pids().unwrap() {
            let is_inside =
                Stat::of(pid).is_ok_and(|it| it.is_some_and(|it| it.session == self.session));
            if is_inside
                && let Ok(Some(held)) = Held::open(pid, Stat::of(pid).unwrap().unwrap().start_time)
            {
                held.send(Signal::KILL);
            }
        }
    }
}

#[tokio::test]
async fn who_has_lost_the_marker_is_found_by_the_session() {
    let planted = Planted::new("env -i sleep 600 & exec sleep 600");
    let has_lost_it = |pid: &u32| !carries_marker(*pid, "");
    until("it has lost it", || planted.pids().iter().any(has_lost_it)).await;

    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn the_session_counts_after_the_main_process_has_ended() {
    let planted = Planted::new("env -i sleep 600 & exit 0");
    in_time(planted.tree.ended()).await;
    assert!(!planted.tree.main_is_alive());
    assert!(!planted.pids().is_empty());
    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

#[tokio::test]
async fn the_session_counts_for_the_next_supervisor_too_after_the_main_process_has_ended() {
    let planted = Planted::ungrouped("env -i sleep 600 & exit 0");
    in_time(planted.tree.ended()).await;
    let main = planted.tree.main();
    // A zombie still: the number is nobody else's.
    assert!(stat(planted.main()).is_some());
    let next = ProcessTree::of_other(main, &planted.marker).unwrap();
    assert_ne!(next.remaining_in_the_end(), Ok(Vec::new()), "{:?} lives", planted.pids());

    until("it is seen", || !planted.pids().is_empty()).await;

    // Reaped by whoever was its parent.
    planted.tree.watched.head().unwrap().reap();
    let next = ProcessTree::of_other(main, &planted.marker).unwrap();
    assert_ne!(next.remaining_in_the_end(), Ok(Vec::new()), "{:?} lives", planted.pids());
    assert_eq!(next.main(), None);

    // As if the number had been given away since.
    let stranger = Planted::ungrouped("exec sleep 600");
    let (number, start_time) = stranger.tree.main().unwrap();
    let next = ProcessTree::of_other(Some((number, start_time - 1)), "another").unwrap();
    assert_eq!(next.remaining_in_the_end(), Ok(Vec::new()));
}

#[tokio::test]
async fn a_session_whose_leader_has_ended_is_a_doubt_unless_somebody_in_it_is_known() {
    // As a daemon begins, which may have been given the number of a main process that is gone.
    let daemon = Leaderless::begin(None);
    let marker = proc_fs::random_uuid().unwrap();
    let found = ProcessTree::of_other(Some((daemon.session, daemon.began)), &marker).unwrap();

    let doubt = found.sweep().unwrap_err();

    let Doubt::Unseen(error) = &doubt else { panic!("{doubt:?}") };
    assert_eq!(error.kind, ScanErrorKind::Undecided);
    assert!(doubt.to_string().contains(&format!("process {} (sleep)", daemon.pid)), "{doubt}");
    assert!(stat(daemon.pid).is_some_and(|stat| !stat.is_zombie()), "a stranger was killed");
}

#[tokio::test]
async fn a_session_whose_leader_has_ended_counts_if_somebody_in_it_carries_the_marker() {
    let marker = proc_fs::random_uuid().unwrap();
    let launch = Leaderless::begin(Some(&marker));
    let found = ProcessTree::of_other(Some((launch.session, launch.began)), &marker).unwrap();
    assert_eq!(found.remaining_in_the_end().unwrap().len(), 2);
    swept(&found);
    assert!(stat(launch.pid).is_none_or(|stat| stat.is_zombie()), "it lives");
}

#[tokio::test]
async fn a_session_is_a_strangers_for_good_once_it_was_seen_to_be_one() {
    let stranger = Planted::ungrouped("sleep 600 & exec sleep 600");
    until("both run", || stranger.pids().len() == 2).await;
    let (number, start_time) = stranger.tree.main().unwrap();
    let tree = ProcessTree::of_other(Some((number, start_time - 1)), "another").unwrap();
    assert_eq!(tree.remaining_in_the_end(), Ok(Vec::new()));

    // The leader goes, and whom it has started stays.
    stranger.tree.signal_main(Signal::KILL);
    in_time(stranger.tree.ended()).await;
    stranger.tree.watched.head().unwrap().reap();

    assert_eq!(tree.remaining_in_the_end(), Ok(Vec::new()));
    assert_eq!(stranger.pids().len(), 1);
}

#[tokio::test]
async fn a_session_counts_no_more_once_nobody_was_seen_in_it() {
    let planted = Planted::ungrouped("exit 0");
    in_time(planted.tree.ended()).await;
    planted.tree.watched.head().unwrap().reap();
    assert_eq!(planted.tree.remaining_in_the_end(), Ok(Vec::new()));
    assert_eq!(planted.tree.watched.roster().origin(), None);
}

#[tokio::test]
async fn the_main_process_is_known_and_signalled_while_somebody_looks() {
    let planted = Planted::new("exec sleep 600");
    let looking = planted.tree.watched.roster();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            planted.tree.signal_main(Signal::KILL);
            tell.send(planted.tree.main()).unwrap();
        });
        let main = told.recv_timeout(DEADLINE);
        drop(looking);
        assert!(main.is_ok_and(|main| main.is_some()));
    });
    assert_eq!(in_time(planted.tree.ended()).await, Exit::Signal(9));
}

#[tokio::test]
async fn a_cgroup_that_the_main_process_could_not_enter_owns_nobody() {
    let marker = proc_fs::random_uuid().unwrap();
    let tree = ProcessTree::claim(&marker).unwrap();
    let Some(group) = tree.cgroup_path() else {
        println!("no cgroup is to be had here");
        return;
    };
    // As the kernel refuses a process whose threads it cannot move.
    let planted = Planted::through(None, tree, marker, "setsid sleep 600 & exec sleep 600");
    assert_eq!(planted.tree.cgroup_path(), None);
    until("both are seen", || planted.pids().len() == 2).await;
    swept(&planted.tree);
    drop(planted);
    until("the watch has let go of it", || !group.exists()).await;
}

#[tokio::test]
async fn who_has_left_the_session_is_found_by_the_marker() {
    let planted = Planted::new("setsid sleep 600 & exec sleep 600");
    let has_left = |pid: &u32| stat(*pid).is_some_and(|stat| stat.session != planted.main());
    until("it has left", || planted.pids().iter().any(has_left)).await;

    swept(&planted.tree);
    assert_eq!(planted.pids(), [0; 0]);
}

/// Says nothing of anybody.
#[derive(Debug)]
struct NobodysParent;

impl Parent for NobodysParent {
    fn reap(&self, _pid: u32) {}
}

#[test]
fn a_stranger_that_has_the_number_of_what_was_forked_is_not_taken() {
    let marker = proc_fs::random_uuid().unwrap();
    let tree = ProcessTree::claim(&marker).unwrap();
    // What was forked has told its number and died with its parent; the number is another's now.
    #[expect(clippy::disallowed_methods, reason = "a process to look at")]
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let taken = tree.take(Arc::new(NobodysParent), stranger.id());
    drop(tree.sweep());
    // Of a child of ours that a sweep has ended nobody can be waited for any more.
    let is_alive = matches!(stranger.try_wait(), Ok(None));
    stranger.kill().ok();
    stranger.wait().ok();
    assert!(taken.is_err() && is_alive, "{taken:?}, alive: {is_alive}");
}
