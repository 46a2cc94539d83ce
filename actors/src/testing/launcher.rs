//! A launcher that starts nothing but a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::absence::{Proof, ScanError};
use crate::domain::cause::Cause;
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::spec::ModelId;
use crate::domain::target::{Arguments, Target};
use crate::domain::trust::{LaunchMethod, Memory};
use crate::ports::{Claim, Found, Launcher, Pending};
use crate::testing::process::ScriptedProcess;

/// A [`Launcher`] whose processes do what a test says.
///
/// It starts what it is asked to, until told otherwise, and what it finds is the truth: a process
/// of its own that is alive.
#[derive(Debug)]
pub struct ScriptedLauncher {
    world: Arc<Mutex<World>>,
    search: watch::Sender<Search>,
}

/// What is known of the launches.
#[derive(Debug, Default)]
struct World {
    /// Those of earlier supervisors first.
    processes: Vec<ScriptedProcess>,
    launches: Vec<Incarnation>,
    /// What the next launches come to; without an entry, to a process.
    mishaps: VecDeque<Mishap>,
    most_alive: usize,
    /// How often it was told to keep nothing ready.
    rests: u32,
    prepared: Vec<Target>,
    /// How the launches were to be made.
    methods: Vec<LaunchMethod>,
    /// What it was told to keep.
    memories: Vec<Memory>,
}

/// What goes wrong with a launch.
#[derive(Debug)]
enum Mishap {
    Refusal(Cause),
    HeldStart,
    FailedStart(Cause),
    Panic,
}

/// Whether a search is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Search {
    Answered,
    Held,
    Failed(ScanError),
}

impl Default for ScriptedLauncher {
    fn default() -> Self {
        Self { world: Arc::default(), search: watch::Sender::new(Search::Answered) }
    }
}

impl ScriptedLauncher {
    /// A process that an earlier supervisor left running.
    pub fn leave(&self, incarnation: Incarnation, model: ModelId) -> ScriptedProcess {
        let arguments = Arguments::default();
        self.world().begin(incarnation, Target { model, arguments })
    }

    /// How the launches so far were to be made.
    pub fn methods(&self) -> Vec<LaunchMethod> {
        self.world().methods.clone()
    }

    /// What it was told to keep so far.
    pub fn memories(&self) -> Vec<Memory> {
        self.world().memories.clone()
    }

    /// The next launch fails; several failures queue up.
    pub fn refuse_next(&self, cause: Cause) {
        self.world().mishaps.push_back(Mishap::Refusal(cause));
    }

    /// The next launch takes until its process may start; it queues up with the failures.
    pub fn hold_next_start(&self) {
        self.world().mishaps.push_back(Mishap::HeldStart);
    }

    /// The next launch fails after it was begun; it queues up with the failures.
    pub fn fail_next_start(&self, cause: Cause) {
        self.world().mishaps.push_back(Mishap::FailedStart(cause));
    }

    /// The next launch panics; it queues up with the failures.
    pub fn panic_next(&self) {
        self.world().mishaps.push_back(Mishap::Panic);
    }

    /// Whoever searches waits for [`Self::answer_searches`].
    pub fn hold_searches(&self) {
        self.search.send_replace(Search::Held);
    }

    /// Whoever searches is answered, with what is true then.
    pub fn answer_searches(&self) {
        self.search.send_replace(Search::Answered);
    }

    /// Whoever searches is told that it cannot be known, until [`Self::answer_searches`].
    pub fn fail_searches(&self, error: ScanError) {
        self.search.send_replace(Search::Failed(error));
    }

    /// The models that it was to make ready for.
    pub fn prepared(&self) -> Vec<ModelId> {
        self.world().prepared.iter().map(|target| target.model.clone()).collect()
    }

    /// How often it was told to keep nothing ready.
    pub fn rests(&self) -> u32 {
        self.world().rests
    }

    /// The launches that were asked for, those that failed included.
    pub fn launches(&self) -> Vec<Incarnation> {
        self.world().launches.clone()
    }

    /// The process that began last.
    ///
    /// # Panics
    ///
    /// When there has been none.
    pub fn last(&self) -> ScriptedProcess {
        self.world().processes.last().expect("nothing has been launched").clone()
    }

    /// How many processes are alive, wholly or in part.
    pub fn alive(&self) -> usize {
        self.world().alive()
    }

    /// How many have been alive at the same time, at most.
    pub fn most_alive(&self) -> usize {
        self.world().most_alive
    }

    fn world(&self) -> MutexGuard<'_, World> {
        open(&self.world)
    }
}

impl Launcher for ScriptedLauncher {
    fn claim(
        &self,
        incarnation: Incarnation,
        target: &Target,
        method: LaunchMethod,
    ) -> Result<Arc<dyn Claim>, Cause> {
        self.world().methods.push(method);
        let mishap = {
            let mut world = self.world();
            world.launches.push(incarnation);
            world.mishaps.pop_front()
        };
        match mishap {
            None => Ok(Arc::new(self.world().begin(incarnation, target.clone()))),
            Some(Mishap::HeldStart) => {
                let process = self.world().begin(incarnation, target.clone());
                process.hold_start();
                Ok(Arc::new(process))
            }
            Some(Mishap::FailedStart(cause)) => {
                let process = self.world().begin(incarnation, target.clone());
                process.fail_start(cause);
                Ok(Arc::new(process))
            }
            Some(Mishap::Refusal(cause)) => Err(cause),
            Some(Mishap::Panic) => panic!("the launch was scripted to panic"),
        }
    }

    fn remember(&self, _: &Target, memory: &Memory) {
        self.world().memories.push(memory.clone());
    }

    fn prepare(&self, target: &Target, _method: LaunchMethod) {
        self.world().prepared.push(target.clone());
    }

    fn rest(&self) {
        self.world().rests += 1;
    }

    fn find(&self, target: &Target) -> Pending<'static, Result<Found, ScanError>> {
        let (world, target) = (Arc::clone(&self.world), target.clone());
        let mut search = self.search.subscribe();
        Box::pin(async move {
            match search.wait_for(|search| *search != Search::Held).await.map(|it| it.clone()) {
                Ok(Search::Failed(error)) => Err(error),
                Ok(Search::Answered | Search::Held) => Ok(open(&world).find(&target)),
                // The launcher is gone, and with it whoever could answer.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

fn open(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn begin(&mut self, incarnation: Incarnation, target: Target) -> ScriptedProcess {
        let process = ScriptedProcess::begin(self.processes.len(), incarnation, target);
        self.processes.push(process.clone());
        self.most_alive = self.most_alive.max(self.alive());
        process
    }

    fn alive(&self) -> usize {
        self.processes.iter().filter(|process| process.is_alive()).count()
    }

    /// Of use is one with its head alive and the right model; anything else is a remnant.
    fn find(&self, target: &Target) -> Found {
        let Some(process) = self.processes.iter().rev().find(|process| process.is_alive()) else {
            return Found::Nothing(Proof::of(Ok(Vec::new())).expect("nothing is nothing"));
        };
        let (incarnation, of_use) = (process.incarnation(), process.main_serves(target));
        let process = Arc::new(process.clone());
        if of_use {
            let (claim, target) = (Arc::clone(&process) as _, target.clone());
            Found::Ready { incarnation, target, phase: Phase::Serving, claim, head: process }
        } else {
            let head = process.head_alive();
            Found::Remnant { incarnation, claim: process, head }
        }
    }
}
