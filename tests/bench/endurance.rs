//! One supervisor whose real vLLM is launched warm again and again: because its worker is killed, and
//! because another model is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;
use vllm_supervisor::LaunchKind;
use vllm_supervisor_tests::deaths;
use vllm_supervisor_tests::process_table::Process;
use vllm_supervisor_tests::scenario::{Scenario, Server, Victim};

use crate::command::{as_f64, proportional_kib};
use crate::figure::{Figure, Unit};

/// How often it is told how far it has come.
const TOLD_EVERY: usize = 10;

/// So many restarts and so many switches.
///
/// # Panics
///
/// If vLLM does not come back, or something is left of it in the end.
pub(crate) async fn figures(server: Server, times: usize) -> Vec<Figure> {
    let other_model = server.other_model().to_owned();
    let scenario = Scenario::configure(server, deaths::without_a_cap).await;
    scenario.start_service().await;
    let model = scenario.handle().watch().borrow().model.as_str().to_owned();
    let mut seen = Seen::default();
    seen.look_at(&scenario).await;
    let warm_process = scenario.warm_process().await;
    let mut served_again = Vec::new();
    for time in 1..=times {
        let before = scenario.handle().watch().borrow().incarnation.get();
        scenario.kill(Victim::Worker, Signal::KILL);
        let killed = Instant::now();
        scenario.wait_for_successor_of(before).await;
        served_again.push(seen.complete_with(&scenario, killed).await);
        seen.look_at(&scenario).await;
        tell("restart", time, times, &seen);
    }
    let restarts = std::mem::take(&mut seen.memory);
    let mut switched = Vec::new();
    for time in 1..=times {
        let next = if time % 2 == 1 { &other_model } else { &model };
        let asked = Instant::now();
        scenario.handle().load_model(next).await.expect("a switch");
        switched.push(seen.complete_with(&scenario, asked).await);
        seen.look_at(&scenario).await;
        tell("switch", time, times, &seen);
    }
    let is_the_same = scenario.warm_process().await.pid == warm_process.pid;
    let switches = std::mem::take(&mut seen.memory);
    // It panics if anything is left.
    scenario.end().await;
    vec![
        Figure::of_times("SIGKILL of the worker to a completion", Unit::Seconds, &served_again)
            .noting("2 s of it are the pause before a restart"),
        Figure::of_times("switch of models to a completion", Unit::Seconds, &switched),
        seen.count("launches that were not warm", seen.not_warm),
        seen.count("completions that differ from the first of their model", seen.differing),
        memory("after restarts", restarts),
        memory("after switches", switches).noting(if is_the_same {
            "one warm process from the first to the last"
        } else {
            "the warm process was replaced"
        }),
    ]
}

/// What was seen of the launches so far.
#[derive(Default)]
struct Seen {
    launches: usize,
    not_warm: usize,
    differing: usize,
    /// What each model completed first.
    first_words: BTreeMap<String, String>,
    /// Of the warm process, in KiB, after each launch.
    memory: Vec<f64>,
}

impl Seen {
    /// Has a prompt completed, and says how long that took from `since`.
    async fn complete_with(&mut self, scenario: &Scenario, since: Instant) -> Duration {
        let words = scenario.complete().await;
        let elapsed = since.elapsed();
        let model = scenario.handle().watch().borrow().model.as_str().to_owned();
        let first = self.first_words.entry(model).or_insert_with(|| words.clone());
        self.differing += usize::from(*first != words);
        elapsed
    }

    async fn look_at(&mut self, scenario: &Scenario) {
        self.launches += 1;
        let launch = scenario.handle().watch().borrow().launch;
        self.not_warm += usize::from(launch != Some(LaunchKind::Warm));
        // As in life, where nobody dies at once, the next launch has begun by then.
        scenario.wait_until_processes(|living| living.iter().any(Process::is_ahead)).await;
        let warm_process = scenario.warm_process().await;
        self.memory.push(as_f64(proportional_kib(warm_process.pid).expect("its memory")));
    }

    fn count(&self, what: &str, count: usize) -> Figure {
        let sample = as_f64(u64::try_from(count).unwrap_or(u64::MAX));
        Figure::of(what, Unit::Count, vec![sample]).noting(format!("of {} launches", self.launches))
    }
}

/// Its growth shows in the order of the samples, which a figure does not keep.
fn memory(when: &str, samples: Vec<f64>) -> Figure {
    let mib = |sample: Option<&f64>| sample.map_or(0.0, |kib| kib / 1024.0);
    let note = format!("{:.1} at first, {:.1} at last", mib(samples.first()), mib(samples.last()));
    let what = format!("memory of the warm process {when}");
    Figure::of(what, Unit::Megabytes, samples).noting(note)
}

fn tell(what: &str, time: usize, times: usize, seen: &Seen) {
    if time.is_multiple_of(TOLD_EVERY) {
        let Seen { not_warm, differing, .. } = seen;
        eprintln!("{what} {time} of {times}; {not_warm} not warm, {differing} differ");
    }
}
