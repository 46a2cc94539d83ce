//! What signals do to `vllmd run`, and what it makes of the children it gets.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::{Process, processes};

use super::workplace::{Started, Workplace, until};

const RUN: [&str; 5] = ["run", "--config", "vllmd.yaml", "--output", "json"];

#[tokio::test]
async fn the_third_signal_leaves_nothing_of_a_vllm_that_was_to_be_stopped() {
    let place = Workplace::new(fake_vllm().ignores_sigterm());
    place.configure_lifecycle("stop_on_exit: true, shutdown_grace_period: 10m");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        vllmd.signal(signal);
    }
    let finished = vllmd.end().await;
    assert!(matches!(finished.code, Some(130 | 143)), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_quit_stops_vllm_as_a_termination_does() {
    for (signal, code) in [(Signal::QUIT, 131), (Signal::ABORT, 143), (Signal::XCPU, 143)] {
        let place = Workplace::new(fake_vllm());
        place.configure_lifecycle("stop_on_exit: true");
        let mut vllmd = place.start(&RUN);
        vllmd.enters("running").await;
        vllmd.signal(signal);
        vllmd.enters("stopped").await;
        assert_eq!(vllmd.end().await.code, Some(code), "{signal:?}");
        place.nothing_runs().await;
    }
}

#[tokio::test]
async fn a_signal_without_a_meaning_changes_nothing_and_is_told_of() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::STKFLT,
        Signal::XFSZ,
    ] {
        vllmd.signal(signal);
    }
    vllmd.signal(Signal::INT);
    vllmd.enters("stopped").await;
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    finished.complains_of(&["SIGUSR1", "ignored"]);
    place.nothing_runs().await;
}

#[tokio::test]
async fn what_a_careless_parent_left_blocked_or_ignored_is_put_right() {
    let place =
        Workplace::new(fake_vllm().exits_while_loading(7, Duration::ZERO).then(fake_vllm()));
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start_by_a_careless_parent(&RUN);
    let events = vllmd.enters("crashed").await;
    let cause = &events.last().unwrap()["cause"];
    assert!(cause["summary"].as_str().unwrap().contains("exit status 7"), "{cause}");
    vllmd.enters("running").await;
    vllmd.signal(Signal::TERM);
    assert_eq!(vllmd.end().await.code, Some(143));
    place.nothing_runs().await;
}

#[tokio::test]
async fn orphans_of_vllm_are_reaped_and_its_own_end_is_not_lost() {
    let place = Workplace::new(fake_vllm().leaves_grandchild());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    let front = children(&vllmd).into_iter().find(|it| it.title.contains("serve")).unwrap();
    kill_process(front.pid, Signal::KILL).unwrap();
    let events = vllmd.enters("crashed").await;
    let cause = &events.last().unwrap()["cause"];
    assert!(cause["summary"].as_str().unwrap().contains("signal 9"), "{cause}");
    vllmd.enters("running").await;
    let zombies = || children(&vllmd).into_iter().filter(|it| it.state == 'Z').count();
    until("its orphans are reaped", || zombies() == 0).await;
    vllmd.signal(Signal::TERM);
    assert_eq!(vllmd.end().await.code, Some(143));
    place.nothing_runs().await;
}

#[tokio::test]
async fn where_no_process_can_be_held_nothing_is_started_and_the_refusal_says_why() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start_without_pidfds(&RUN);
    let events = vllmd.enters("failed").await;
    let cause = &events.last().unwrap()["cause"];
    assert!(cause["summary"].as_str().unwrap().contains("pidfd_open"), "{cause}");
    let launched = events.iter().filter(|event| event["to"] == "starting").count();
    assert_eq!(launched, 1, "{events:#?}");
    place.nothing_runs().await;
    assert_ne!(vllmd.end().await.code, Some(0));
}

fn children(vllmd: &Started) -> Vec<Process> {
    let parent = Some(vllmd.pid());
    processes().into_iter().filter(|process| process.parent == parent).collect()
}
