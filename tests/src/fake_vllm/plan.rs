//! What a test wants of the stand-in, launch by launch, and how the wish travels.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::program::LIFETIME;

/// The pause between two looks at a gate.
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// The environment variable that carries the plan, as JSON.
const PLAN_VARIABLE: &str = "FAKE_VLLM_PLAN";

/// A plan for a healthy server: loads for 100 ms, has the workers that the flags ask for, serves
/// until it is told to stop. It is what a launch without a plan follows, too.
pub fn fake_vllm() -> FakeVllm {
    FakeVllm { launches: vec![Plan::default()], counter: None }
}

/// A plan for one launch or, with [`then`](Self::then), for several in a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FakeVllm {
    launches: Vec<Plan>,
    counter: Option<PathBuf>,
}

/// How one launch goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) load_time: Duration,
    pub(super) shards: u32,
    /// `None`: as many as tensor and pipeline parallel size ask for.
    pub(super) workers: Option<u32>,
    /// Counted from the launch.
    pub(super) exit_while_loading: Option<Exit>,
    /// This and what follows are counted from the moment the server serves.
    pub(super) exit_when_serving: Option<Exit>,
    pub(super) engine_hangs_after: Option<Duration>,
    pub(super) api_hangs_after: Option<Duration>,
    pub(super) worker_dies_after: Option<Duration>,
    pub(super) engine_death_notice: Duration,
    pub(super) health_takes: Duration,
    pub(super) health_fails_after: Option<Duration>,
    pub(super) quirks: BTreeSet<Quirk>,
    pub(super) gate: Option<Gate>,
}

/// A step that waits until a file exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Gate {
    step: Step,
    opened_by: PathBuf,
}

/// A step at which a launch can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The API server imports vLLM, and has said nothing yet.
    FrontImports,
    /// The engine imports vLLM, and has no title yet.
    EngineImports,
    /// The workers import vLLM, and have no titles yet.
    WorkerImports,
    /// Everybody has a title, and the workers load weights.
    WeightsLoad,
    /// The workers have a request to answer.
    Answers,
}

/// An exit that nobody asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Exit {
    pub(super) code: u8,
    pub(super) after: Duration,
}

/// A way to differ from a healthy server that has no number to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Quirk {
    IgnoresSigterm,
    LeavesGrandchild,
    LeavesStranger,
    FloodsLog,
    OmitsModel,
    DiesOnFirstRequest,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            load_time: Duration::from_millis(100),
            shards: 1,
            workers: None,
            exit_while_loading: None,
            exit_when_serving: None,
            engine_hangs_after: None,
            api_hangs_after: None,
            worker_dies_after: None,
            engine_death_notice: Duration::from_millis(200),
            health_takes: Duration::ZERO,
            health_fails_after: None,
            quirks: BTreeSet::new(),
            gate: None,
        }
    }
}

impl Plan {
    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// The given part of the load time, in percent. Where the real server spends its time is in
    /// importing vLLM, once in each of its processes, one after the other.
    pub(super) fn share_of_load_time(&self, percent: u32) -> Duration {
        self.load_time * percent / 100
    }

    /// Returns when nothing holds this step any more; after the lifetime of a process at the latest.
    pub(super) async fn pass(&self, step: Step) {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.step == step) else { return };
        let mut looks = tokio::time::interval(GATE_PAUSE);
        let opened = async {
            while !gate.opened_by.exists() {
                looks.tick().await;
            }
        };
        tokio::time::timeout(LIFETIME, opened).await.ok();
    }
}

impl FakeVllm {
    /// Time from launch to `/health` 200. Zero is a few dozen milliseconds in truth.
    #[must_use]
    pub fn loads_in(self, load_time: Duration) -> Self {
        self.change(|plan| plan.load_time = load_time)
    }

    /// How many shards the progress bar counts while the weights load; 1 unless told.
    #[must_use]
    pub fn shards(self, shards: u32) -> Self {
        self.change(|plan| plan.shards = shards)
    }

    /// How many workers there are, whatever the flags say.
    #[must_use]
    pub fn workers(self, workers: u32) -> Self {
        self.change(|plan| plan.workers = Some(workers))
    }

    /// The API server ends with `code` once `after` has passed since its launch, if it is still
    /// loading then; the log ends as that of a failed engine start does.
    #[must_use]
    pub fn exits_while_loading(self, code: u8, after: Duration) -> Self {
        self.change(|plan| plan.exit_while_loading = Some(Exit { code, after }))
    }

    /// The API server ends with `code` as soon as it serves, taking its children along; with
    /// [`after`](Self::after), later.
    #[must_use]
    pub fn exits_with(self, code: u8) -> Self {
        self.change(|plan| plan.exit_when_serving = Some(Exit { code, after: Duration::ZERO }))
    }

    /// How long the server serves before [`exits_with`](Self::exits_with) comes true.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        self.change(|plan| {
            if let Some(exit) = &mut plan.exit_when_serving {
                exit.after = delay;
            }
        })
    }

    /// SIGTERM does nothing, at any time; only SIGKILL ends the API server.
    #[must_use]
    pub fn ignores_sigterm(self) -> Self {
        self.add(Quirk::IgnoresSigterm)
    }

    /// The workers hang once the server has served for `delay`: completions never come, `/health`
    /// stays 200, and the workers are deaf to SIGTERM, as in an endless kernel.
    #[must_use]
    pub fn hangs_after(self, delay: Duration) -> Self {
        self.change(|plan| plan.engine_hangs_after = Some(delay))
    }

    /// The API server itself hangs once it has served for `delay`: connections are taken, nothing
    /// is answered, `/health` neither, and SIGTERM is not noticed.
    #[must_use]
    pub fn api_hangs_after(self, delay: Duration) -> Self {
        self.change(|plan| plan.api_hangs_after = Some(delay))
    }

    /// `/health` answers only after `delay`, each time.
    #[must_use]
    pub fn health_takes(self, delay: Duration) -> Self {
        self.change(|plan| plan.health_takes = delay)
    }

    /// `/health` is 503 once the server has served for `delay`, though nothing is wrong with it.
    #[must_use]
    pub fn health_fails_after(self, delay: Duration) -> Self {
        self.change(|plan| plan.health_fails_after = Some(delay))
    }

    /// The worker of rank 0 kills itself with SIGKILL once it has served for `delay`.
    #[must_use]
    pub fn worker_dies_after(self, delay: Duration) -> Self {
        self.change(|plan| plan.worker_dies_after = Some(delay))
    }

    /// The first completion kills the worker, as a model does that loads and cannot run.
    #[must_use]
    pub fn dies_on_first_request(self) -> Self {
        self.add(Quirk::DiesOnFirstRequest)
    }

    /// While loading, a process starts that leaves for a session of its own, keeps the log streams
    /// open and never ends.
    #[must_use]
    pub fn leaves_grandchild(self) -> Self {
        self.add(Quirk::LeavesGrandchild)
    }

    /// The same, and it shows nothing of the environment that it was started with.
    #[must_use]
    pub fn leaves_stranger(self) -> Self {
        self.add(Quirk::LeavesStranger)
    }

    /// Every launch stays at this step until the file `gate` exists; for ten minutes at most.
    #[must_use]
    pub fn waits_at(self, step: Step, gate: impl Into<PathBuf>) -> Self {
        self.change(|plan| plan.gate = Some(Gate { step, opened_by: gate.into() }))
    }

    /// Four megabytes of log without a line's end while loading.
    #[must_use]
    pub fn floods_log(self) -> Self {
        self.add(Quirk::FloodsLog)
    }

    /// `/v1/models` lists nothing.
    #[must_use]
    pub fn omits_model(self) -> Self {
        self.add(Quirk::OmitsModel)
    }

    /// Time from a violent death of the engine or a worker to the API server's exit 0; 200 ms
    /// unless told, 4.2 to 4.7 s with the real one (vLLM 0.32 looks every 5 s, `launcher.py`).
    /// `/health` is 503 for the first nine tenths of it, then nobody listens.
    #[must_use]
    pub fn engine_death_notice(self, notice: Duration) -> Self {
        self.change(|plan| plan.engine_death_notice = notice)
    }

    /// The launch after this plan's launches follows `next`; the last plan serves all later
    /// launches. Needs [`counts_launches_in`](Self::counts_launches_in).
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.launches.extend(next.launches);
        self.counter = self.counter.or(next.counter);
        self
    }

    /// The file that grows by one byte with each launch. It need not exist; its directory must.
    #[must_use]
    pub fn counts_launches_in(mut self, file: impl Into<PathBuf>) -> Self {
        self.counter = Some(file.into());
        self
    }

    /// The environment variable, name and value, with which to launch `fake_vllm`.
    ///
    /// # Panics
    ///
    /// When launches are to differ and nothing counts them.
    pub fn environment(&self) -> (String, String) {
        let countable = self.launches.len() == 1 || self.counter.is_some();
        assert!(countable, "a plan with `then` needs `counts_launches_in`");
        let json = serde_json::to_string(self).expect("a plan is plain data");
        (PLAN_VARIABLE.to_owned(), json)
    }

    /// Reads the plan of the launch that this process is, and counts the launch.
    pub(super) fn of_this_launch() -> Plan {
        let Ok(json) = std::env::var(PLAN_VARIABLE) else { return Plan::default() };
        let plan: Self = serde_json::from_str(&json).expect("FAKE_VLLM_PLAN is a plan");
        let launch = plan.counter.as_deref().map_or(1, |file| {
            count_launch(file).expect("the launch counter lies in a directory of the test")
        });
        let index = usize::try_from(launch - 1).unwrap_or(usize::MAX).min(plan.launches.len() - 1);
        plan.launches[index].clone()
    }

    fn change(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        if let Some(last) = self.launches.last_mut() {
            change(last);
        }
        self
    }

    fn add(self, quirk: Quirk) -> Self {
        self.change(|plan| {
            plan.quirks.insert(quirk);
        })
    }
}

/// Appends one byte and returns how many there are: appending is atomic, and leaves the offset
/// after this launch's own byte even when another launch appends at the same time.
fn count_launch(file: &Path) -> io::Result<u64> {
    let mut counter = OpenOptions::new().append(true).create(true).open(file)?;
    counter.write_all(b".")?;
    counter.stream_position()
}
