//! Who has been stopped.

use super::*;

#[tokio::test]
async fn whoever_is_killed_has_been_stopped_when_he_is_looked_at_for_the_last_time() {
    let planted = Planted::ungrouped("while :; do sleep 0.01; done & exec sleep 600");
    until("both are seen", || planted.pids().len() >= 2).await;
    let watched = &planted.tree.watched;
    let mut states = Vec::new();
    let last_look = |roster: &Roster| {
        // One that had ended, and was waited for before its parent was stopped, is not there any more.
        let state = |pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok();
        states.extend(roster.members().filter_map(|member| state(member.held.pid)));
    };
    watched.ownership.kill(&mut watched.roster(), Spare::Nobody, last_look).unwrap();
    assert!(states.len() >= 2, "{states:?}");
    // One that ended before it could be stopped waits for its parent, who is; and a shell that starts
    // another sleeps until that has run (vfork(2)), which it does not when it is stopped before.
    let stands_still = |status: &String| {
        let states = ["T (stopped)", "Z (zombie)", "D (disk sleep)"];
        states.iter().any(|it| status.contains(&format!("\nState:\t{it}")))
    };
    assert!(states.iter().all(stands_still), "{states:?}");
}

#[tokio::test]
async fn a_stopped_main_process_heeds_the_signal() {
    let planted = Planted::new("trap 'exit 5' TERM; kill -STOP $$; while :; do sleep 600; done");
    let is_stopped = || stat(planted.main()).is_some_and(|stat| stat.state == 'T');
    until("it has stopped", is_stopped).await;

    planted.tree.signal_main(Signal::TERM);

    assert_eq!(in_time(planted.tree.ended()).await, Exit::Code(5));
}
