//! Many crashes in a row under `vllmd run`: nothing piles up.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::processes;

use super::workplace::Workplace;

/// How many crashes there are, unless `VLLMD_SOAK_CYCLES` says otherwise.
const CYCLES: usize = 6;

#[tokio::test]
async fn crashes_in_a_row_leave_no_process_no_descriptor_and_a_gapless_journal() {
    let cycles = std::env::var("VLLMD_SOAK_CYCLES").ok().and_then(|cycles| cycles.parse().ok());
    let cycles: usize = cycles.unwrap_or(CYCLES);
    let place = Workplace::new(fake_vllm());
    let lifecycle = "stop_on_exit: true, max_restarts_per_minute: 1000000, stable_after: 0s";
    place.configure_lifecycle(lifecycle);
    let mut vllmd = place.start(&["run", "--config", "vllmd.yaml", "--output", "json"]);
    let supervisor = vllmd.pid();

    vllmd.enters("running").await;
    let descriptors_at_first = descriptors(supervisor);
    for cycle in 0..cycles {
        // Each role in turn, each by the end of it leaving something else behind.
        let victim = ["VLLM::Worker", "VLLM::EngineCore", " serve "][cycle % 3];
        kill(&place, victim);
        vllmd.enters("running").await;
    }
    let descriptors_at_last = descriptors(supervisor);
    assert!(zombies_of(supervisor).is_empty(), "{:#?}", zombies_of(supervisor));
    // A probe under way has a socket of its own.
    assert!(
        descriptors_at_last <= descriptors_at_first + 2,
        "{descriptors_at_first} descriptors became {descriptors_at_last}"
    );

    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143));
    let events: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    place.nothing_runs().await;

    let journal = fs::read_to_string(place.state().join("events.jsonl")).unwrap();
    let journal: Vec<Value> =
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = journal.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=journal.len() as u64).collect::<Vec<_>>());
    // What was printed began when somebody listened.
    assert!(journal.ends_with(&events), "the journal and the events differ");
    let entered = |state: &str| journal.iter().filter(|event| event["to"] == state).count();
    assert_eq!((entered("crashed"), entered("running")), (cycles, cycles + 1));
    let restarts = fs::read_to_string(place.state().join("restarts.jsonl")).unwrap();
    assert_eq!(restarts.lines().count(), cycles);
    let logs = fs::read_dir(place.state().join("logs")).unwrap().count();
    assert_eq!(logs, (cycles + 1).min(10));
}

fn kill(place: &Workplace, title: &str) {
    let living = place.census.processes();
    let victim = living.iter().find(|process| process.title.contains(title));
    let victim = victim.unwrap_or_else(|| panic!("no {title} among {living:#?}"));
    kill_process(victim.pid, Signal::KILL).unwrap();
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).unwrap().count()
}

fn zombies_of(parent: Pid) -> Vec<Pid> {
    let dead = processes().into_iter().filter(|it| it.state == 'Z' && it.parent == Some(parent));
    dead.map(|process| process.pid).collect()
}
