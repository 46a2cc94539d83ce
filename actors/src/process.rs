//! The actor that owns the vLLM process.
//!
//! It launches, finds, stops and kills, one incarnation at a time. It never decides *whether*: that
//! is the machine's. It tells the root what became of the process. While it holds one, a guard in
//! its state makes sure that the process is stopped or kept as configured, however this actor ends.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};

use crate::domain::absence::Proof;
use crate::domain::cause::Cause;
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::StopMode;
use crate::domain::report::ProcessReport;
use crate::domain::target::Target;
use crate::domain::trust::LaunchMethod;
use crate::ports::{Claim, Death, Found, Head, Launcher, OrphanLog, OrphanOutcome};
use crate::tell::{OwnedTask, report, tell};

mod guard;
mod message;
mod stop_ladder;

use guard::LaunchGuard;
pub use message::{Epoch, ProcessMessage, ProcessNews};

/// The pause after a look that failed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct ProcessActor;

/// What a [`ProcessActor`] is given.
#[derive(Debug)]
pub struct ProcessArgs {
    /// Starts and finds vLLM.
    pub launcher: Arc<dyn Launcher>,
    /// Hears what became of a process whose owner ended.
    pub orphans: Arc<dyn OrphanLog>,
    /// What becomes of the process if this actor ends before it.
    pub outcome: OrphanOutcome,
    /// Which of the process actors this is.
    pub epoch: Epoch,
    /// Where reports go.
    pub root: DerivedActorRef<ProcessNews>,
}

impl ProcessArgs {
    fn reporter(&self) -> impl Fn(ProcessReport) + Send + Sync + 'static {
        let (root, epoch) = (self.root.clone(), self.epoch);
        move |fact| report(&root, ProcessNews { epoch, report: fact })
    }
}

/// The state of a [`ProcessActor`].
#[derive(Debug)]
pub struct ProcessState {
    /// What it was given.
    args: ProcessArgs,
    /// The launch held, if any.
    guard: Option<LaunchGuard>,
    /// Wait for the main process to end, and for others of its tree.
    waiters: Option<[OwnedTask; 2]>,
    /// What it is busy with.
    task: Task,
    /// Measures the tree's work.
    sampler: Option<OwnedTask>,
    /// Reads what a launch has written, which may be over by then.
    reader: Option<OwnedTask>,
}

/// What a process actor is busy with.
#[derive(Debug)]
enum Task {
    Idle,
    /// Looking for what an earlier owner left. A stop that comes meanwhile waits for the answer:
    /// nobody is proven gone by not having been found yet.
    Looking {
        _look: OwnedTask,
        then_stop: Option<StopOrder>,
    },
    /// Starting what it holds a claim to.
    Starting {
        _start: OwnedTask,
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
    grace: Duration,
}

#[ractor::actor(message = ProcessMessage, state = ProcessState, arguments = ProcessArgs)]
impl ProcessActor {
    async fn pre_start(
        &self,
        _myself: ActorRef<ProcessMessage>,
        args: ProcessArgs,
    ) -> Result<ProcessState, ActorProcessingErr> {
        Ok(ProcessState {
            args,
            guard: None,
            waiters: None,
            task: Task::Idle,
            sampler: None,
            reader: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ProcessMessage>,
        message: ProcessMessage,
        state: &mut ProcessState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProcessMessage::Adopt { target } => state.look(&myself, target),
            ProcessMessage::Found { found } => state.found(&myself, found),
            ProcessMessage::Launch { incarnation, target, method } => {
                state.launch(&myself, incarnation, &target, method);
            }
            ProcessMessage::Started { incarnation, head } => {
                state.started(&myself, incarnation, head);
            }
            ProcessMessage::NotStarted { incarnation, cause, proof } => {
                state.not_started(incarnation, cause, proof);
            }
            ProcessMessage::Served { incarnation } => state.served(incarnation),
            ProcessMessage::Remember { target, memory } => {
                state.args.launcher.remember(&target, &memory);
            }
            ProcessMessage::Prepare { target, method } => {
                state.args.launcher.prepare(&target, method);
            }
            ProcessMessage::Rest => state.args.launcher.rest(),
            ProcessMessage::KeepNoLonger { incarnation } => {
                state.keep_no_longer(incarnation);
            }
            ProcessMessage::Stop { incarnation, mode, phase, grace } => {
                state.stop(&myself, StopOrder { incarnation, mode, phase, grace });
            }
            ProcessMessage::Diagnose { incarnation } => state.diagnose(&myself, incarnation),
            ProcessMessage::Sample { incarnation } => state.sample(&myself, incarnation),
            ProcessMessage::Vacated { incarnation, proof } => state.vacated(incarnation, proof),
        }
        Ok(())
    }
}

impl ProcessState {
    fn report(&self, fact: ProcessReport) {
        self.args.reporter()(fact);
    }

    /// Looks until it can be told what there is.
    fn look(&mut self, myself: &ActorRef<ProcessMessage>, target: Target) {
        let (launcher, actor) = (Arc::clone(&self.args.launcher), myself.clone());
        let report = self.args.reporter();
        let look = OwnedTask::begin(myself.get_cell(), async move {
            let mut said = None;
            let found = loop {
                match launcher.find(&target).await {
                    Ok(found) => break found,
                    Err(error) if said.as_ref() == Some(&error) => {}
                    Err(error) => {
                        report(ProcessReport::LookFailed { error: error.clone() });
                        said = Some(error);
                    }
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            };
            tell(&actor, ProcessMessage::Found { found });
        });
        self.task = Task::Looking { _look: look, then_stop: None };
    }

    fn found(&mut self, myself: &ActorRef<ProcessMessage>, found: Found) {
        let Task::Looking { then_stop, .. } = std::mem::replace(&mut self.task, Task::Idle) else {
            return;
        };
        match found {
            Found::Nothing(proof) => self.report(ProcessReport::NothingFound { proof }),
            Found::Ready { incarnation, target, phase, claim, head } => {
                let pid = head.pid();
                self.hold(incarnation, claim, Some(head));
                self.report(ProcessReport::Adopted { incarnation, pid, target, phase });
                self.await_deaths(myself);
            }
            Found::Remnant { incarnation, claim, head } => {
                let pid = head.as_ref().map(|head| head.pid());
                self.hold(incarnation, claim, head);
                self.report(ProcessReport::RemnantFound { incarnation, pid });
                self.await_deaths(myself);
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
        target: &Target,
        method: LaunchMethod,
    ) {
        debug_assert!(self.guard.is_none(), "nothing is launched beside a living incarnation");
        // A look that is not over would find what is launched now.
        self.task = Task::Idle;
        // Between the claim and the guard there is no await at which this could be killed.
        let claim = match self.args.launcher.claim(incarnation, target, method) {
            Ok(claim) => claim,
            Err(cause) => return self.report(ProcessReport::LaunchFailed { incarnation, cause }),
        };
        self.hold(incarnation, Arc::clone(&claim), None);
        let (report, actor) = (self.args.reporter(), myself.clone());
        let start = OwnedTask::begin(myself.get_cell(), async move {
            let message = match claim.start().await {
                Ok(head) => ProcessMessage::Started { incarnation, head },
                Err(cause) => {
                    let lingered = |doubt| report(ProcessReport::Lingered { incarnation, doubt });
                    let proof = stop_ladder::proven_gone(&*claim, lingered).await;
                    ProcessMessage::NotStarted { incarnation, cause, proof }
                }
            };
            tell(&actor, message);
        });
        self.task = Task::Starting { _start: start };
    }

    /// A start that was overtaken by a stop is heard no more.
    fn started(
        &mut self,
        myself: &ActorRef<ProcessMessage>,
        incarnation: Incarnation,
        head: Arc<dyn Head>,
    ) {
        let Some(guard) = self.guard.as_mut().filter(|it| it.incarnation == incarnation) else {
            return;
        };
        let (pid, method, memories) = (head.pid(), head.method(), head.memories());
        guard.head = Some(head);
        if matches!(self.task, Task::Starting { .. }) {
            self.task = Task::Idle;
            self.report(ProcessReport::Launched { incarnation, pid, method, memories });
            self.await_deaths(myself);
        }
    }

    fn not_started(&mut self, incarnation: Incarnation, cause: Cause, proof: Proof) {
        if self.held(incarnation).is_none() || !matches!(self.task, Task::Starting { .. }) {
            return;
        }
        self.let_go(proof);
        self.report(ProcessReport::LaunchFailed { incarnation, cause });
    }

    fn hold(
        &mut self,
        incarnation: Incarnation,
        claim: Arc<dyn Claim>,
        head: Option<Arc<dyn Head>>,
    ) {
        let (outcome, orphans) = (self.args.outcome, Arc::clone(&self.args.orphans));
        self.guard = Some(LaunchGuard::begin(incarnation, claim, head, outcome, orphans));
    }

    fn held(&self, incarnation: Incarnation) -> Option<&LaunchGuard> {
        self.guard.as_ref().filter(|held| held.incarnation == incarnation)
    }

    fn await_deaths(&mut self, myself: &ActorRef<ProcessMessage>) {
        let Some(LaunchGuard { incarnation, claim, head: Some(head), .. }) = &self.guard else {
            return;
        };
        let (incarnation, head) = (*incarnation, Arc::clone(head));
        let (report, mut deaths) = (self.args.reporter(), claim.deaths());
        let members = OwnedTask::begin(myself.get_cell(), async move {
            loop {
                let Death { pid, role, exit } = deaths.next_death().await;
                report(ProcessReport::MemberDied { incarnation, pid, role, exit });
            }
        });
        let report = self.args.reporter();
        let main = OwnedTask::begin(myself.get_cell(), async move {
            let exit = head.ended().await;
            report(ProcessReport::Exited { incarnation, exit });
        });
        self.waiters = Some([main, members]);
    }

    fn served(&self, incarnation: Incarnation) {
        if let Some(held) = self.held(incarnation) {
            held.claim.served();
        }
    }

    /// Only what loads or serves may be kept.
    fn keep_no_longer(&mut self, incarnation: Incarnation) -> Option<&LaunchGuard> {
        let guard = self.guard.as_mut().filter(|it| it.incarnation == incarnation)?;
        guard.outcome = OrphanOutcome::Killed;
        Some(guard)
    }

    /// A later stop replaces an earlier one: it can only be faster.
    fn stop(&mut self, myself: &ActorRef<ProcessMessage>, order: StopOrder) {
        if let Task::Looking { then_stop, .. } = &mut self.task {
            *then_stop = Some(order);
            return;
        }
        let incarnation = order.incarnation;
        let Some(guard) = self.keep_no_longer(incarnation) else {
            return self.vacant(incarnation);
        };
        let (claim, head) = (Arc::clone(&guard.claim), guard.head.clone());
        let pauses = stop_ladder::pauses(order.mode, order.phase, order.grace);
        let (report, actor) = (self.args.reporter(), myself.clone());
        let ladder = OwnedTask::begin(myself.get_cell(), async move {
            if let Some(head) = head {
                stop_ladder::ask(&*claim, &*head, &pauses).await;
            }
            let lingered = |doubt| report(ProcessReport::Lingered { incarnation, doubt });
            let proof = stop_ladder::proven_gone(&*claim, lingered).await;
            tell(&actor, ProcessMessage::Vacated { incarnation, proof });
        });
        self.task = Task::Stopping { _ladder: ladder };
    }

    /// Of what is not held nothing is left: it was never launched here, or proven gone before.
    fn vacant(&self, incarnation: Incarnation) {
        if let Ok(proof) = Proof::of(Ok(Vec::new())) {
            self.report(ProcessReport::Vacated { incarnation, proof });
        }
    }

    fn sample(&mut self, myself: &ActorRef<ProcessMessage>, incarnation: Incarnation) {
        let Some(claim) = self.held(incarnation).map(|held| Arc::clone(&held.claim)) else {
            return;
        };
        let report = self.args.reporter();
        self.sampler = Some(OwnedTask::begin(myself.get_cell(), async move {
            match claim.sample().await {
                Ok(sample) => report(ProcessReport::Sampled { incarnation, sample }),
                // Nothing is known: neither that it worked nor that it stood still.
                Err(error) => tracing::warn!(%error, "what vLLM does cannot be seen"),
            }
        }));
    }

    fn diagnose(&mut self, myself: &ActorRef<ProcessMessage>, incarnation: Incarnation) {
        let Some(claim) = self.held(incarnation).map(|held| Arc::clone(&held.claim)) else {
            return;
        };
        let report = self.args.reporter();
        self.reader = Some(OwnedTask::begin(myself.get_cell(), async move {
            let evidence = claim.evidence().await;
            report(ProcessReport::Diagnosed { incarnation, evidence });
        }));
    }

    fn vacated(&mut self, incarnation: Incarnation, proof: Proof) {
        if self.held(incarnation).is_none() {
            return;
        }
        self.let_go(proof.clone());
        self.report(ProcessReport::Vacated { incarnation, proof });
    }

    fn let_go(&mut self, proof: Proof) {
        self.waiters = None;
        self.task = Task::Idle;
        self.sampler = None;
        if let Some(guard) = self.guard.take() {
            guard.close(proof);
        }
    }
}

#[cfg(test)]
mod tests;
