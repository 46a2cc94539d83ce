//! The table of deaths: which of vLLM's processes, by which signal, and when; and what must come of
//! it. Each cell is written once and goes against the stand-in and against a real vLLM.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, timeout};
use vllm_supervisor::ServiceState::{Crashed, Running, Stopped};
use vllm_supervisor::config::Config;

use crate::fake_vllm::{Step, fake_vllm};
use crate::process_table::Process;
use crate::scenario::{Scenario, Server, Victim, are_gone, enters};

/// The pause between two looks at processes.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the end of a victim is waited for.
const END_WITHIN: Duration = Duration::from_secs(10);

/// As much as a real vLLM takes a while to say.
const TOKENS: u32 = 400;

/// How far vLLM has come when one of its processes dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The victim imports vLLM, or the engine does that a helper of it is for. The front has not
    /// said a word yet, an engine or a worker has no title.
    Importing,
    /// All have their titles, and nobody serves yet.
    Loading,
    /// It serves, and nobody asks for anything.
    Idle,
    /// A request runs.
    Busy,
}

/// What must come of a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is told, everything of the launch is cleared away, and the next launch serves.
    Crash,
    /// The same launch serves on, and leaves nothing when it is stopped.
    GoesOn,
    /// The victim does not die of it, and the same launch serves on.
    Survives,
}

/// One death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Who dies.
    pub victim: Victim,
    /// Of what.
    pub signal: Signal,
    /// When.
    pub phase: Phase,
}

/// What was seen of one death, in times since the signal.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Until the victim had ended: a large process takes a while to be taken down.
    pub ended: Option<Duration>,
    /// Until the event that says so; `None` where there is nothing to tell.
    pub told: Option<Duration>,
    /// Until no process and no shared memory of the launch was left; where it goes on, of its stop.
    pub cleared: Duration,
    /// Until a completion was answered.
    pub served: Duration,
}

impl Cell {
    /// All of them: those that matter most come first.
    pub fn all() -> Vec<Self> {
        let victims = [
            Victim::Worker,
            Victim::EngineCore,
            Victim::ApiServer,
            Victim::ResourceTracker,
            Victim::Helper,
        ];
        let mut all = Vec::new();
        for phase in [Phase::Idle, Phase::Busy, Phase::Loading, Phase::Importing] {
            for victim in victims {
                let of = |signal| Self { victim, signal, phase };
                all.extend([Signal::KILL, Signal::TERM, Signal::SEGV].map(of));
            }
        }
        all
    }

    /// What must come of it.
    pub fn outcome(self) -> Outcome {
        match (self.victim, self.signal, self.phase) {
            // The tracker ignores it (Python 3.11, `multiprocessing/resource_tracker.py`), and the
            // front swallows the first one (vLLM 0.32, `network_utils.py`).
            (Victim::ResourceTracker, Signal::TERM, _)
            | (Victim::ApiServer, Signal::TERM, Phase::Loading) => Outcome::Survives,
            (Victim::ResourceTracker | Victim::Helper, ..) => Outcome::GoesOn,
            // In order, with status 0, or not: nobody asked for it.
            (Victim::ApiServer | Victim::EngineCore | Victim::Worker, ..) => Outcome::Crash,
        }
    }

    /// Where the stand-in has to wait for this death.
    fn step(self) -> Option<Step> {
        match (self.phase, self.victim) {
            (Phase::Importing, Victim::ApiServer) => Some(Step::FrontImports),
            (Phase::Importing, Victim::Worker) => Some(Step::WorkerImports),
            (Phase::Importing, _) => Some(Step::EngineImports),
            (Phase::Loading, _) => Some(Step::WeightsLoad),
            (Phase::Busy, _) => Some(Step::Answers),
            (Phase::Idle, _) => None,
        }
    }

    /// The victim, if it is there and the launch is as far as this cell wants it.
    fn victim(self, scenario: &Scenario) -> Option<Process> {
        let living = scenario.processes();
        let titled = |victim| scenario.find(victim, &living);
        let untitled = |starter: &Process| {
            let is_child = |it: &&Process| it.parent == Some(starter.pid);
            living.iter().filter(is_child).find(|it| it.title.contains("spawn_main"))
        };
        let front = titled(Victim::ApiServer)?;
        let victim = match (self.phase, self.victim) {
            (Phase::Importing, Victim::ApiServer) => {
                scenario.server().imports(front).then_some(front)
            }
            (Phase::Importing, Victim::EngineCore) => untitled(front),
            (Phase::Importing, Victim::Worker) => untitled(titled(Victim::EngineCore)?),
            (Phase::Importing, helper) => untitled(front).and(titled(helper)),
            (Phase::Loading, victim) => titled(Victim::Worker).and(titled(victim)),
            (Phase::Idle | Phase::Busy, victim) => titled(victim),
        };
        let is_ready =
            |it: &&Process| self.victim != Victim::ResourceTracker || !it.dies_of(Signal::TERM);
        victim.filter(is_ready).cloned()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = match self.signal {
            Signal::KILL => "KILL",
            Signal::TERM => "TERM",
            _ => "SEGV",
        };
        write!(f, "{:?}, {signal}, {:?}", self.victim, self.phase)
    }
}

/// A supervisor for deaths: it restarts as often as need be.
pub fn without_a_cap(config: &mut Config) {
    config.lifecycle.max_restarts_per_minute = NonZeroU32::MAX;
    config.lifecycle.stable_after = Duration::ZERO;
}

/// One cell against the stand-in at `command`, with a helper that nobody would know for vLLM's.
///
/// # Panics
///
/// Where the outcome is not what it must be.
pub async fn of_the_stand_in(command: &str, cell: Cell) -> Row {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = directory.path().join("gate");
    // The front is as slow to notice as the real one.
    let mut plan = fake_vllm()
        .loads_in(Duration::ZERO)
        .engine_death_notice(Duration::from_secs(5))
        .leaves_stranger();
    if let Some(step) = cell.step() {
        plan = plan.waits_at(step, &gate);
    }
    let server = Server::fake(command, &plan);
    let scenario = Arc::new(Scenario::configure(server, without_a_cap).await);
    let row = go_through(&scenario, cell, &gate).await;
    Arc::into_inner(scenario).expect("nobody else has it").end().await;
    row
}

/// One cell. The service may be in any state when it begins, and serves or is stopped at the end.
/// `gate` is what holds a stand-in; it is opened when the victim has been sent its signal.
///
/// # Panics
///
/// Where the outcome is not what it must be.
pub async fn go_through(scenario: &Arc<Scenario>, cell: Cell, gate: &Path) -> Row {
    let mut requests = JoinSet::new();
    let victim = reach(scenario, cell, &mut requests).await;
    let launch = Launch::of(scenario, &victim);
    let mut events = scenario.handle().subscribe();
    let killed = Instant::now();
    pidfd_send_signal(&launch.victim, cell.signal).expect("it lives");
    let end = launch.end_of_the_victim();
    fs::write(gate, "").expect("the gate can be opened");
    let row = match cell.outcome() {
        Outcome::Crash => {
            let told = timeout(scenario.server().patience(), enters(&mut events, Crashed)).await;
            assert!(told.is_ok(), "{cell}: it was not told of\n{}", scenario.story());
            let told = Some(killed.elapsed());
            let ended = end.await.expect("it is awaited").map(|ended| ended - killed);
            launch.rest.is_cleared(scenario).await;
            let cleared = killed.elapsed();
            scenario.wait_for_successor_of(launch.incarnation).await;
            scenario.complete().await;
            Row { ended, told, cleared, served: killed.elapsed() }
        }
        outcome @ (Outcome::GoesOn | Outcome::Survives) => {
            let ends = || has_ended(&launch.victim);
            if outcome == Outcome::GoesOn {
                until(scenario, "the victim ends", ends).await;
            }
            scenario.wait_for(Running).await;
            scenario.complete().await;
            let served = killed.elapsed();
            while let Some(answered) = requests.join_next().await {
                let answered = answered.expect("it is asked");
                assert!(answered.is_ok(), "{cell}: {answered:?}\n{}", scenario.story());
            }
            assert_eq!(ends(), outcome == Outcome::GoesOn, "{cell}\n{}", scenario.story());
            let now = scenario.wait_for(Running).await.incarnation.get();
            assert_eq!(now, launch.incarnation, "{cell}\n{}", scenario.story());
            let rest = Rest::of(scenario);
            let asked = Instant::now();
            scenario.handle().stop().await.expect("a stop");
            rest.is_cleared(scenario).await;
            Row { ended: None, told: None, cleared: asked.elapsed(), served }
        }
    };
    requests.shutdown().await;
    row
}

/// Brings the service to the phase, and finds the victim.
async fn reach(
    scenario: &Arc<Scenario>,
    cell: Cell,
    requests: &mut JoinSet<Result<String, String>>,
) -> Process {
    let handle = scenario.handle().clone();
    match cell.phase {
        Phase::Importing | Phase::Loading => {
            handle.stop().await.expect("a stop");
            scenario.wait_for(Stopped).await;
            // What it says is of no interest: it may be overtaken by the death.
            requests.spawn(async move {
                handle.start().await.map(|()| String::new()).map_err(|error| error.to_string())
            });
        }
        Phase::Idle => scenario.start_service().await,
        Phase::Busy => {
            scenario.start_service().await;
            let request = scenario.open_request(TOKENS).await.expect("an answer that begins");
            requests.spawn(request.text());
        }
    }
    let mut found = None;
    let there = || {
        found = cell.victim(scenario);
        found.is_some()
    };
    until(scenario, &format!("{cell}: the victim is there"), there).await;
    found.expect("it was just found")
}

/// A launch, and who is to die of it.
struct Launch {
    incarnation: u64,
    victim: OwnedFd,
    rest: Rest,
}

impl Launch {
    fn of(scenario: &Scenario, victim: &Process) -> Self {
        Self {
            incarnation: scenario.handle().watch().borrow().incarnation.get(),
            victim: pidfd_open(victim.pid, PidfdFlags::empty()).expect("it lives"),
            rest: Rest::of(scenario),
        }
    }

    /// When it ends, by a thread of its own; `None` if that takes too long.
    fn end_of_the_victim(&self) -> JoinHandle<Option<Instant>> {
        let victim = self.victim.try_clone().expect("a descriptor");
        tokio::task::spawn_blocking(move || {
            let patience = Timespec::try_from(END_WITHIN).ok();
            let ended = poll(&mut [PollFd::new(&victim, PollFlags::IN)], patience.as_ref());
            (ended == Ok(1)).then(Instant::now)
        })
    }
}

/// What there is of a launch at some moment.
struct Rest {
    processes: Vec<OwnedFd>,
    segments: BTreeSet<PathBuf>,
}

impl Rest {
    fn of(scenario: &Scenario) -> Self {
        let mut processes = scenario.processes();
        // What launches are forked from is of none of them, nor is one that goes ahead of its order.
        processes.retain(|it| !it.is_warm() && !it.is_ahead());
        Self {
            segments: processes.iter().flat_map(Process::shared_memory).collect(),
            // Who has ended meanwhile needs no clearing.
            processes: processes
                .iter()
                .filter_map(|it| pidfd_open(it.pid, PidfdFlags::empty()).ok())
                .collect(),
        }
    }

    /// Waits until nothing of it is left.
    async fn is_cleared(&self, scenario: &Scenario) {
        let nothing_lives = || self.processes.iter().all(has_ended);
        until(scenario, "nothing of the launch is left", nothing_lives).await;
        let nothing_lies = || self.segments.iter().all(|segment| !segment.exists());
        until(scenario, &format!("{:?} are removed", self.segments), nothing_lies).await;
        are_gone(&self.segments);
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
}

async fn until(scenario: &Scenario, what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = interval(PAUSE);
    let held = async {
        while !holds() {
            looks.tick().await;
        }
    };
    let held = timeout(scenario.server().patience(), held).await;
    assert!(held.is_ok(), "never came true: {what}\n{}", scenario.story());
}
