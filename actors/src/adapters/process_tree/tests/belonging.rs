//! Who belongs by session, by marker, and by cgroup.

use super::*;

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
