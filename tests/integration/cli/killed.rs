//! What becomes of vLLM when `vllmd` is killed with SIGKILL, which no program can handle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use vllm_supervisor_tests::fake_venv::{FakeVenv, IN_WARM_PROCESS};
use vllm_supervisor_tests::fake_vllm::{FakeVllm, fake_vllm};
use vllm_supervisor_tests::process_table::Process;

use super::workplace::{Started, Workplace, until};

const RUN: [&str; 5] = ["run", "--config", "vllmd.yaml", "--output", "json"];
const LONG: Duration = Duration::from_secs(300);

/// What is promised.
const PROMISE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn killed_at_the_launch_it_leaves_nothing_of_vllm() {
    let place = stopping_on_exit(fake_vllm().loads_in(LONG));
    let mut vllmd = place.start(&RUN);
    vllmd.enters("starting").await;
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_while_vllm_imports_it_leaves_nothing_of_vllm() {
    let place = stopping_on_exit(fake_vllm().loads_in(LONG));
    let vllmd = place.start(&RUN);
    until("vLLM runs", || place.launches() == 1).await;
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_while_vllm_loads_it_leaves_nothing_of_vllm() {
    let load = Duration::from_secs(20);
    let place = stopping_on_exit(fake_vllm().loads_in(load).leaves_grandchild());
    let vllmd = place.start(&RUN);
    until("the engine is there", || {
        place.census.processes().iter().any(|it| it.title.starts_with("VLLM::EngineCore"))
    })
    .await;
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_while_vllm_serves_it_leaves_nothing_of_vllm() {
    let place = stopping_on_exit(fake_vllm().leaves_grandchild());
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    assert!(!place.census.shared_memory().is_empty());
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_while_vllm_is_deaf_and_works_it_leaves_nothing_of_vllm() {
    let place = stopping_on_exit(fake_vllm().ignores_sigterm().hangs_after(Duration::ZERO));
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_after_it_adopted_vllm_it_leaves_nothing_of_vllm() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: false");
    let mut first = place.start(&RUN);
    first.enters("running").await;
    first.signal(Signal::TERM);
    first.end().await;
    place.configure_lifecycle("stop_on_exit: true");
    let mut second = place.start(&RUN);
    second.enters("running").await;
    assert_eq!(place.launches(), 1, "it was not adopted");
    nothing_survives_sigkill(place, second).await;
}

#[tokio::test]
async fn killed_with_orders_to_leave_it_vllm_serves_on_and_the_next_adopts_it() {
    let place = Workplace::new(fake_vllm());
    place.configure_lifecycle("stop_on_exit: false");
    let mut first = place.start(&RUN);
    first.enters("running").await;
    first.signal(Signal::KILL);
    first.end().await;

    let mut second = place.start(&RUN);
    second.enters("running").await;
    assert_eq!(place.launches(), 1);
    second.signal(Signal::KILL);
    second.end().await;
}

#[tokio::test]
async fn stopped_in_order_it_leaves_no_guardian() {
    let place = stopping_on_exit(fake_vllm());
    let mut vllmd = place.start(&RUN);
    vllmd.enters("running").await;
    assert_eq!(guardians(&place).len(), 1);
    vllmd.signal(Signal::TERM);
    vllmd.end().await;
    place.nothing_runs().await;
    assert_eq!(guardians(&place), Vec::<i32>::new());
}

#[tokio::test]
async fn killed_while_a_launch_waits_for_its_warm_process_it_leaves_neither() {
    let source = format!("if {IN_WARM_PROCESS}: __import__('time').sleep(600)");
    let venv = FakeVenv::of(crate::FAKE).with_module("hanging", &source);
    let place = Workplace::with_venv(&venv, fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let vllmd = place.start(&RUN);
    until("a warm process is there", || is_kept_warm(&place)).await;
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn a_launch_that_is_called_off_is_not_said_to_be_launched_cold() {
    let source = format!("if {IN_WARM_PROCESS}: __import__('time').sleep(600)");
    let venv = FakeVenv::of(crate::FAKE).with_module("hanging", &source);
    let place = Workplace::with_venv(&venv, fake_vllm());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN);
    vllmd.enters("starting").await;
    until("a warm process is there", || is_kept_warm(&place)).await;
    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    assert!(!finished.stderr.contains("cold"), "{finished:#?}");
    assert_eq!(place.launches(), 0);
    place.nothing_runs().await;
}

#[tokio::test]
async fn killed_while_what_was_forked_loads_it_leaves_nothing_of_vllm() {
    let venv = FakeVenv::of(crate::FAKE);
    let place = Workplace::with_venv(&venv, fake_vllm().loads_in(LONG));
    place.configure_lifecycle("stop_on_exit: true");
    let vllmd = place.start(&RUN);
    until("vLLM runs", || place.launches() == 1).await;
    assert!(is_kept_warm(&place));
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_while_what_was_forked_serves_it_leaves_nothing_of_vllm() {
    let venv = FakeVenv::of(crate::FAKE);
    let place = Workplace::with_venv(&venv, fake_vllm().leaves_grandchild());
    place.configure_lifecycle("stop_on_exit: true");
    let mut vllmd = place.start(&RUN);
    let events = vllmd.enters("running").await;
    assert!(is_kept_warm(&place), "{events:#?}");
    nothing_survives_sigkill(place, vllmd).await;
}

#[tokio::test]
async fn killed_with_orders_to_leave_it_what_was_forked_serves_on_and_comes_back() {
    let venv = FakeVenv::of(crate::FAKE);
    let place = Workplace::with_venv(&venv, fake_vllm());
    place.configure_lifecycle("stop_on_exit: false");
    let mut first = place.start(&RUN);
    first.enters("running").await;
    first.signal(Signal::KILL);
    first.end().await;
    until("the warm process has ended", || !is_kept_warm(&place)).await;

    let mut second = place.start(&RUN);
    second.enters("running").await;
    assert_eq!(place.launches(), 1);
    let front = place.census.processes().into_iter().find(|it| it.title.contains(" serve "));
    rustix::process::kill_process(front.unwrap().pid, Signal::KILL).unwrap();
    second.enters("running").await;
    assert_eq!((place.launches(), venv.launches().len()), (2, 2));
    assert!(venv.launches().iter().all(|it| it.starts_with("forked")), "{:?}", venv.launches());
    second.signal(Signal::KILL);
    second.end().await;
}

fn is_kept_warm(place: &Workplace) -> bool {
    place.census.processes().iter().any(Process::is_warm)
}

fn stopping_on_exit(plan: FakeVllm) -> Workplace {
    let place = Workplace::new(plan);
    place.configure_lifecycle("stop_on_exit: true");
    place
}

/// Kills `vllmd`; two seconds later no process, no shared memory and no file of vLLM is there.
async fn nothing_survives_sigkill(place: Workplace, vllmd: Started) {
    let segments: BTreeSet<PathBuf> = place.census.shared_memory();
    vllmd.signal(Signal::KILL);
    let killed = tokio::time::Instant::now();
    vllmd.end().await;
    let left = place.census.wait_until_empty(PROMISE.saturating_sub(killed.elapsed())).await;
    assert_eq!(left, Ok(()));
    until("the guardian has ended", || guardians(&place).is_empty()).await;
    let segments: Vec<&PathBuf> = segments.iter().filter(|segment| segment.exists()).collect();
    assert!(segments.is_empty(), "{segments:?} stayed");
    let scratch = scratch_directories(&place);
    assert!(scratch.is_empty(), "{scratch:?} stayed");
}

fn scratch_directories(place: &Workplace) -> Vec<PathBuf> {
    let is_scratch = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vllmd-"))
    };
    place.files().into_iter().filter(|path| is_scratch(path)).collect()
}

/// The pids of those that are called so and have this place's environment.
fn guardians(place: &Workplace) -> Vec<i32> {
    let (name, value) = place.census.variable();
    let variable = format!("{name}={value}");
    let all = vllm_supervisor_tests::process_table::processes();
    let all = all.into_iter().filter(|it| it.comm == "llm-guardian" && it.state != 'Z');
    let ours = all.filter(|it| it.has_in_environment(&variable));
    ours.map(|it| it.pid.as_raw_pid()).collect()
}
