//! Many crashes in a row under `vllmd run`: nothing piles up.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vllm_supervisor_tests::fake_venv::FakeVenv;
use vllm_supervisor_tests::fake_vllm::fake_vllm;
use vllm_supervisor_tests::process_table::{Process, own_kib, processes, resident_kib};
use vllm_supervisor_tests::scenario::are_gone;

use super::workplace::Workplace;

/// How many crashes there are, unless `VLLMD_SOAK_CYCLES` says otherwise.
const CYCLES: usize = 6;

/// In the title of vLLM's main process.
const FRONT: &str = " serve ";

/// How far in what a supervisor holds must have come to rest: it keeps the latest 1024 events for slow
/// subscribers, and a crash makes a dozen.
const WARM: usize = 100;

/// Over how many crashes the least is taken: a diagnosis needs megabytes for a moment, and the allocator
/// gives them back now or a crash later. What piles up never goes below where it was.
const FLOOR: usize = 25;

#[tokio::test]
async fn crashes_in_a_row_leave_no_process_no_descriptor_no_file_and_a_gapless_journal() {
    soak(Workplace::new(fake_vllm())).await;
}

#[tokio::test]
async fn crashes_of_what_was_forked_leave_no_more() {
    let venv = FakeVenv::of(crate::FAKE);
    soak(Workplace::with_venv(&venv, fake_vllm())).await;
    let launches = venv.launches();
    assert!(launches.iter().all(|it| it.starts_with("forked")), "{launches:?}");
}

async fn soak(mut place: Workplace) {
    let cycles = std::env::var("VLLMD_SOAK_CYCLES").ok().and_then(|cycles| cycles.parse().ok());
    let cycles: usize = cycles.unwrap_or(CYCLES);
    let lifecycle = "stop_on_exit: true, max_restarts_per_minute: 1000000, stable_after: 0s";
    place.configure_lifecycle(lifecycle);
    // glibc gives threads that meet heaps of their own, which are kept: two megabytes, whenever that is
    // (mallopt(3)).
    place.set("MALLOC_ARENA_MAX", "1");
    let mut vllmd = place.start(&["run", "--config", "vllmd.yaml", "--output", "json"]);
    let supervisor = vllmd.pid();

    vllmd.enters("running").await;
    let at_first = Holdings::of(&place, supervisor);
    let mut own = Vec::with_capacity(cycles);
    let mut segments = BTreeSet::new();
    for cycle in 0..cycles {
        segments.extend(place.census.shared_memory());
        // Each role in turn, each by the end of it leaving something else behind.
        let victim = ["VLLM::Worker", "VLLM::EngineCore", FRONT][cycle % 3];
        kill(&place, victim);
        vllmd.enters("running").await;
        own.push(own_kib(supervisor).expect("vllmd runs"));
    }
    let at_last = Holdings::of(&place, supervisor);
    at_last.are_no_more_than(&at_first);
    if cycles >= WARM + FLOOR {
        let least = |until: usize| own[until - FLOOR..until].iter().min().copied().unwrap_or(0);
        let (warm, last) = (least(WARM), least(cycles));
        let resident = resident_kib(supervisor);
        assert!(
            last.saturating_sub(warm) * 100 <= resident * 5,
            "before the {WARM}th crash {warm} KiB were its own, before the {cycles}th {last}: {own:?}"
        );
    }
    let living = place.census.shared_memory();
    are_gone(&segments.difference(&living).cloned().collect());
    assert!(zombies_of(supervisor).is_empty(), "{:#?}", zombies_of(supervisor));
    // They are looked at once a second.
    let logs = || fs::read_dir(place.state().join("logs")).unwrap().count();
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
    for _ in 0..200 {
        if logs() == (cycles + 1).min(10) {
            break;
        }
        looks.tick().await;
    }

    vllmd.signal(Signal::TERM);
    let finished = vllmd.end().await;
    assert_eq!(finished.code, Some(143));
    let events: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    place.nothing_runs().await;
    are_gone(&living);

    let journal = fs::read_to_string(place.state().join("events.jsonl")).unwrap();
    let journal: Vec<Value> =
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = journal.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=journal.len() as u64).collect::<Vec<_>>());
    // What was printed began when somebody listened.
    assert!(journal.ends_with(&events), "the journal and the events differ");
    let entered = |state: &str| journal.iter().filter(|event| event["to"] == state).count();
    assert_eq!((entered("crashed"), entered("running")), (cycles, cycles + 1));
    let history = fs::read_to_string(place.state().join("restarts.jsonl")).unwrap();
    let recoveries = history.lines().filter(|line| line.contains("\"recovered_at\"")).count();
    assert_eq!((history.lines().count(), recoveries), (2 * cycles, cycles));
    assert_eq!(logs(), (cycles + 1).min(10));
}

/// What a supervisor holds at a moment when its service runs.
#[derive(Clone, Debug)]
struct Holdings {
    processes: usize,
    descriptors: usize,
    /// Those of the state directory and of the temporary one, but for vLLM's logs, of which some are kept,
    /// and for what launches have come to, which is one file, written anew as soon as one serves.
    files: BTreeSet<PathBuf>,
}

impl Holdings {
    fn of(place: &Workplace, supervisor: Pid) -> Self {
        let is_log = |path: &PathBuf| path.extension().is_some_and(|it| it == "log");
        let is_memory = |path: &PathBuf| path.file_stem().is_some_and(|it| it == "launches");
        Self {
            processes: settled(&place.census.processes()),
            descriptors: descriptors(supervisor),
            files: place.files().into_iter().filter(|it| !is_log(it) && !is_memory(it)).collect(),
        }
    }

    fn are_no_more_than(&self, first: &Self) {
        assert_eq!(self.processes, first.processes, "of processes");
        // A probe under way has a socket of its own.
        assert!(self.descriptors <= first.descriptors + 2, "{first:#?} became {self:#?}");
        let is_new = |path: &&PathBuf| !first.files.contains(*path);
        let new: Vec<_> = self.files.iter().filter(is_new).collect();
        // The history of ends, and the scratch directory of the launch that is alive now.
        assert!(new.len() <= 2, "files were left: {new:#?}");
    }
}

/// How many there are but for one that goes ahead of an order, which may be on its way or not.
fn settled(living: &[Process]) -> usize {
    let is_warm = |pid: Option<Pid>| living.iter().any(|it| Some(it.pid) == pid && it.is_warm());
    let goes_ahead = |it: &&Process| it.is_ahead() || it.is_warm() && is_warm(it.parent);
    living.len() - living.iter().filter(goes_ahead).count()
}

fn kill(place: &Workplace, title: &str) {
    let living = place.census.processes();
    // A child that is just being started shows its parent's title.
    let is_it = |process: &&Process| {
        let is_head = process.session == Some(process.pid);
        process.title.contains(title) && is_head == (title == FRONT)
    };
    let victim = living.iter().find(is_it);
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
