//! How `vllmd run` ends when it is pressed, and when the service gives up.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use vllm_supervisor_tests::fake_vllm::fake_vllm;

use super::workplace::{MODEL, Started, Workplace, until};

const RUN: [&str; 5] = ["run", "--config", "vllmd.yaml", "--output", "json"];
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn the_second_signal_kills_what_does_not_stop() {
    let place = Workplace::new(fake_vllm().ignores_sigterm());
    place.configure_lifecycle("stop_on_exit: true, shutdown_grace_period: 10m");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    vllmd.signal(Signal::TERM);
    vllmd.enters("stopping").await;
    vllmd.signal(Signal::INT);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_signal_while_loading_stops_the_load() {
    let place = Workplace::new(fake_vllm().loads_in(LONG));
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("starting").await;
    vllmd.signal(Signal::HUP);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn under_nohup_a_closed_terminal_ends_nothing() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start_under_nohup(&RUN);
    vllmd.enters("running").await;
    assert!(catches(vllmd.pid(), Signal::INT) && !catches(vllmd.pid(), Signal::HUP));
    vllmd.signal(Signal::HUP);
    vllmd.signal(Signal::INT);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn a_signal_that_comes_before_vllm_is_started_is_not_forgotten() {
    let place = Workplace::new(fake_vllm());
    let vllmd = held_up_at_its_start(&place).await;
    vllmd.signal(Signal::INT);
    vllmd.signal(Signal::CONT);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert!(!finished.stdout.contains("\"to\":\"running\""), "{finished:#?}");
    place.nothing_runs().await;
}

#[tokio::test]
async fn the_third_signal_leaves_at_once_whatever_hangs() {
    let place = Workplace::new(fake_vllm());
    let vllmd = held_up_at_its_start(&place).await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::CONT] {
        vllmd.signal(signal);
    }
    let finished = vllmd.end().await;
    assert!(matches!(finished.code, Some(130 | 143)), "{finished:#?}");
    place.nothing_runs().await;
}

/// A run that listens to signals and stands still before it has started much.
async fn held_up_at_its_start(place: &Workplace) -> Started {
    place.configure_lifecycle("stop_on_exit: true");
    let vllmd = place.start(&RUN);
    let pid = vllmd.pid();
    until("it listens to signals", || catches(pid, Signal::HUP)).await;
    vllmd.signal(Signal::STOP);
    vllmd
}

/// Whether a process has a handler for a signal (`SigCgt` of `proc(5)`).
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
    let status = status.unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

#[tokio::test]
async fn a_permanent_cause_ends_it_with_code_remedy_and_last_lines() {
    let place = Workplace::new(fake_vllm());
    let port = place.port;
    place.configure(&format!("model: {MODEL}\nport: {port}\nextra_args: [--nope]"));
    let mut vllmd = place.start(&RUN);
    vllmd.enters("failed").await;
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(3), "{finished:#?}");
    finished.complains_of(&[
        "error[VLM-013]: ",
        "help: correct extra_args",
        "the last lines of vLLM's log:\n",
        "unrecognized arguments: --nope",
    ]);
    assert_eq!(place.launches(), 1);
    place.nothing_runs().await;
}

#[tokio::test]
async fn the_restart_limit_ends_it() {
    let place = Workplace::new(fake_vllm().exits_with(1));
    place.configure_lifecycle("max_restarts_per_minute: 1");
    let mut vllmd = place.start(&RUN);
    let events = vllmd.enters("failed").await;
    assert!(events.iter().any(|event| event["type"] == "restart_scheduled"), "{events:#?}");
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(3), "{finished:#?}");
    finished.complains_of(&["error[VLM-018]: ", "help: cure the cause", "last lines"]);
    assert_eq!(place.launches(), 2);
    place.nothing_runs().await;
}
