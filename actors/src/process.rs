//! The actor that owns the vLLM process.
//!
//! It launches, finds, stops and kills, one incarnation at a time. It never decides *whether*: that
//! is the machine's. It tells the root what became of the process. While it holds one, a guard in
//! its state makes sure that the process is stopped or kept as configured, however this actor ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};

use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::StopMode;
use crate::domain::report::ProcessReport;
use crate::domain::spec::ModelId;
use crate::ports::{CustodyEnded, Fate, Found, Journal, Launcher, RunningProcess};
use crate::tell::{OwnedTask, report, tell};

mod message;
mod stop_ladder;

pub use message::{ProcessMessage, ProcessNews, Tenure};

/// See the module.
#[derive(Debug)]
pub struct ProcessActor;

/// What a [`ProcessActor`] is given.
#[derive(Debug)]
pub struct ProcessArgs {
    /// Starts and finds vLLM.
    pub launcher: Arc<dyn Launcher>,
    /// Hears what became of a process whose owner ended.
    pub journal: Arc<dyn Journal>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// What becomes of the process if this actor ends before it.
    pub fate: Fate,
    /// Which of the process actors this is.
    pub tenure: Tenure,
    /// Where reports go.
    pub root: DerivedActorRef<ProcessNews>,
}

impl ProcessArgs {
    fn reporter(&self) -> impl Fn(ProcessReport) + Send + Sync + 'static {
        let (root, tenure) = (self.root.clone(), self.tenure);
        move |fact| report(&root, ProcessNews { tenure, report: fact })
    }
}

/// The state of a [`ProcessActor`].
#[derive(Debug)]
pub struct ProcessState {
    /// What it was given.
    args: ProcessArgs,
    /// The process held, if any.
    custody: Option<Custody>,
    /// Waits for the main process to end.
    waiter: Option<OwnedTask>,
    /// What it is busy with.
    errand: Errand,
    /// Measures the tree's work.
    sampler: Option<OwnedTask>,
}

/// What a process actor is busy with.
#[derive(Debug)]
enum Errand {
    None,
    /// Looking for what an earlier owner left. A stop that comes meanwhile waits for the answer:
    /// nobody is proven gone by not having been found yet.
    Looking {
        _look: OwnedTask,
        then_stop: Option<StopOrder>,
    },
    /// Stopping what it holds, and proving it gone.
    Stopping {
        _ladder: OwnedTask,
    },
}

/// A stop to be carried out.
#[derive(Clone, Copy, Debug)]
struct StopOrder {
    incarnation: Incarnation,
    mode: StopMode,
    phase: Phase,
}

#[ractor::actor(message = ProcessMessage, state = ProcessState, arguments = ProcessArgs)]
impl ProcessActor {
    async fn pre_start(
        &self,
        _myself: ActorRef<ProcessMessage>,
        args: ProcessArgs,
    ) -> Result<ProcessState, ActorProcessingErr> {
        Ok(ProcessState { args, custody: None, waiter: None, errand: Errand::None, sampler: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<ProcessMessage>,
        message: ProcessMessage,
        state: &mut ProcessState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProcessMessage::Adopt { model } => state.look(&myself, model),
            ProcessMessage::Found { found, model } => state.found(&myself, found, model),
            ProcessMessage::Launch { incarnation, model } => {
                state.launch(&myself, incarnation, &model);
            }
            ProcessMessage::Stop { incarnation, mode, phase } => {
                state.stop(&myself, StopOrder { incarnation, mode, phase });
            }
            ProcessMessage::SampleWork { incarnation } => state.sample(&myself, incarnation),
            ProcessMessage::Vacated { incarnation } => state.vacated(incarnation),
        }
        Ok(())
    }
}

impl ProcessState {
    fn report(&self, fact: ProcessReport) {
        self.args.reporter()(fact);
    }

    fn look(&mut self, myself: &ActorRef<ProcessMessage>, model: ModelId) {
        let (found, actor) = (self.args.launcher.find(&model), myself.clone());
        let look = OwnedTask::begin(myself.get_cell(), async move {
            let found = found.await;
            tell(&actor, ProcessMessage::Found { found, model });
        });
        self.errand = Errand::Looking { _look: look, then_stop: None };
    }

    fn found(&mut self, myself: &ActorRef<ProcessMessage>, found: Found, model: ModelId) {
        let Errand::Looking { then_stop, .. } = std::mem::replace(&mut self.errand, Errand::None)
        else {
            return;
        };
        match found {
            Found::Nothing => self.report(ProcessReport::NothingFound),
            Found::Ready { incarnation, process } => {
                let pid = process.pid();
                self.hold(incarnation, process);
                self.report(ProcessReport::Adopted { incarnation, pid, model });
                self.await_end(myself);
            }
            Found::Remnant { incarnation, process } => {
                self.hold(incarnation, process);
                self.report(ProcessReport::RemnantFound { incarnation });
            }
        }
        if let Some(order) = then_stop {
            self.stop(myself, order);
        }
    }

    fn launch(
        &mut self,
        myself: &ActorRef<ProcessMessage>,
        incarnation: Incarnation,
        model: &ModelId,
    ) {
        debug_assert!(self.custody.is_none(), "nothing is launched beside a living incarnation");
        // A look that is not over would find what is launched now.
        self.errand = Errand::None;
        // Between the launch and the guard there is no await at which this could be killed.
        match self.args.launcher.launch(incarnation, model) {
            Ok(process) => {
                let pid = process.pid();
                self.hold(incarnation, process);
                self.report(ProcessReport::Launched { incarnation, pid });
                self.await_end(myself);
            }
            Err(cause) => self.report(ProcessReport::LaunchFailed { incarnation, cause }),
        }
    }

    fn hold(&mut self, incarnation: Incarnation, process: Arc<dyn RunningProcess>) {
        let (fate, journal) = (self.args.fate, Arc::clone(&self.args.journal));
        self.custody = Some(Custody { incarnation, process, fate, journal, proof: Proof::Alive });
    }

    fn held(&self, incarnation: Incarnation) -> Option<&Arc<dyn RunningProcess>> {
        let custody = self.custody.as_ref().filter(|held| held.incarnation == incarnation)?;
        Some(&custody.process)
    }

    fn await_end(&mut self, myself: &ActorRef<ProcessMessage>) {
        let Some(custody) = &self.custody else { return };
        let (process, incarnation) = (Arc::clone(&custody.process), custody.incarnation);
        let report = self.args.reporter();
        self.waiter = Some(OwnedTask::begin(myself.get_cell(), async move {
            let exit = process.ended().await;
            let last_lines = process.last_lines().await;
            report(ProcessReport::Exited { incarnation, exit, last_lines });
        }));
    }

    /// A later stop replaces an earlier one: it can only be faster.
    fn stop(&mut self, myself: &ActorRef<ProcessMessage>, order: StopOrder) {
        if let Errand::Looking { then_stop, .. } = &mut self.errand {
            *then_stop = Some(order);
            return;
        }
        let incarnation = order.incarnation;
        let Some(process) = self.held(incarnation).map(Arc::clone) else {
            return self.report(ProcessReport::Vacated { incarnation });
        };
        let pauses = stop_ladder::pauses(order.mode, order.phase, self.args.grace);
        let (report, actor) = (self.args.reporter(), myself.clone());
        let ladder = OwnedTask::begin(myself.get_cell(), async move {
            stop_ladder::climb(&*process, &pauses, |survivors| {
                report(ProcessReport::Lingered { incarnation, survivors });
            })
            .await;
            tell(&actor, ProcessMessage::Vacated { incarnation });
        });
        self.errand = Errand::Stopping { _ladder: ladder };
    }

    fn sample(&mut self, myself: &ActorRef<ProcessMessage>, incarnation: Incarnation) {
        let Some(process) = self.held(incarnation).map(Arc::clone) else { return };
        let report = self.args.reporter();
        self.sampler = Some(OwnedTask::begin(myself.get_cell(), async move {
            let work = process.work().await;
            report(ProcessReport::Sampled { incarnation, work });
        }));
    }

    fn vacated(&mut self, incarnation: Incarnation) {
        if self.held(incarnation).is_none() {
            return;
        }
        self.waiter = None;
        self.errand = Errand::None;
        self.sampler = None;
        if let Some(custody) = self.custody.take() {
            custody.close();
        }
        self.report(ProcessReport::Vacated { incarnation });
    }
}

/// Holds a process, and sees to it that it has an owner or an end.
///
/// ractor skips `post_stop` on a kill and on a panic, and kills children when a parent ends: only
/// `Drop` is sure to run.
#[derive(Debug)]
struct Custody {
    incarnation: Incarnation,
    process: Arc<dyn RunningProcess>,
    fate: Fate,
    journal: Arc<dyn Journal>,
    proof: Proof,
}

/// What is known of a process in custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Alive,
    Gone,
}

impl Custody {
    /// The process is proven gone: nothing is owed.
    fn close(mut self) {
        self.proof = Proof::Gone;
    }
}

impl Drop for Custody {
    fn drop(&mut self) {
        if self.proof == Proof::Gone {
            return;
        }
        let pid = self.process.pid();
        match self.fate {
            Fate::Kept => tracing::info!(pid, "vLLM is left running"),
            Fate::Killed => {
                let survivors = self.process.sweep_blocking();
                tracing::warn!(pid, ?survivors, "vLLM was killed because its owner ended");
            }
        }
        self.journal.custody_ended(&CustodyEnded {
            at: SystemTime::now(),
            incarnation: self.incarnation,
            pid,
            fate: self.fate,
        });
    }
}

#[cfg(test)]
mod tests;
