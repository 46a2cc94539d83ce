//! The four child actors: how they are started, told, replaced and ended.
//!
//! Start order is process, loader, health, GPU monitor. A child that dies takes those started after
//! it along (rest-for-one), but for the GPU monitor, which nobody depends on. More than three
//! deaths within a minute are too many: then the supervisor ends. A GPU monitor that dies as often
//! stays dead, and the service goes on without it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef};
use tracing::warn;

use crate::domain::diagnosis::Phase;
use crate::domain::event::EndReason;
use crate::domain::gpu::{GpuFinding, GpuRules};
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode, Timer};
use crate::domain::moment::Moment;
use crate::domain::restart::Intensity;
use crate::domain::spec::{ExitPolicy, ModelId};
use crate::domain::state::{Stage, State, Stopping};
use crate::gpu_monitor::{GpuMonitorActor, GpuMonitorArgs, GpuMonitorMessage};
use crate::health::{HealthActor, HealthArgs, HealthMessage};
use crate::model_loader::{ModelLoaderActor, ModelLoaderArgs, ModelLoaderMessage};
use crate::ports::{OrphanLog, OrphanOutcome};
use crate::process::{Epoch, ProcessActor, ProcessArgs, ProcessMessage, ProcessNews};
use crate::root::message::RootMessage;
use crate::root::service::Service;
use crate::root::{Adapters, RootArgs};
use crate::tell::{OwnedTask, tell, tell_after};

/// Deaths of child actors allowed within [`DEATH_WINDOW`].
const MAX_DEATHS: u32 = 3;
const DEATH_WINDOW: Duration = Duration::from_secs(60);

/// How long a child may take to end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Children {
    recipe: Recipe,
    process: ActorRef<ProcessMessage>,
    /// Which process actor that is.
    epoch: Epoch,
    loader: ActorRef<ModelLoaderMessage>,
    health: ActorRef<HealthMessage>,
    gpus: ActorRef<GpuMonitorMessage>,
    deaths: Intensity,
    /// Those of the GPU monitor, which count for nobody else.
    gpu_deaths: Intensity,
    /// One timer of each kind at a time.
    timers: HashMap<Timer, OwnedTask>,
    /// The way down, once begun.
    wind_down: Option<OwnedTask>,
}

/// Which child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Process,
    Loader,
    Health,
    Gpu,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "ProcessActor",
            Self::Loader => "ModelLoaderActor",
            Self::Health => "HealthActor",
            Self::Gpu => "GpuMonitorActor",
        })
    }
}

/// What the death of an actor meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was no child of ours, or one that was replaced already, or we are on the way down.
    None,
    /// It and those after it were replaced.
    Replaced(Role),
    /// It was one death too many, and was not replaced.
    TooMany(Role),
}

/// How to start each child.
#[derive(Debug)]
struct Recipe {
    adapters: Adapters,
    health_interval: Duration,
    gpu_rules: GpuRules,
    outcome: OrphanOutcome,
    /// Hears what becomes of a launch whose owner ends.
    orphans: Arc<dyn OrphanLog>,
}

impl Recipe {
    async fn process(
        &self,
        root: &ActorRef<RootMessage>,
        epoch: Epoch,
    ) -> Result<ActorRef<ProcessMessage>, ActorProcessingErr> {
        let args = ProcessArgs {
            launcher: self.adapters.launcher.clone(),
            orphans: self.orphans.clone(),
            outcome: self.outcome,
            epoch,
            root: root.get_derived(),
        };
        Ok(Actor::spawn_linked(None, ProcessActor, args, root.get_cell()).await?.0)
    }

    async fn loader(
        &self,
        root: &ActorRef<RootMessage>,
    ) -> Result<ActorRef<ModelLoaderMessage>, ActorProcessingErr> {
        let args =
            ModelLoaderArgs { output: self.adapters.output.clone(), root: root.get_derived() };
        Ok(Actor::spawn_linked(None, ModelLoaderActor, args, root.get_cell()).await?.0)
    }

    async fn health(
        &self,
        root: &ActorRef<RootMessage>,
    ) -> Result<ActorRef<HealthMessage>, ActorProcessingErr> {
        let args = HealthArgs {
            probe: self.adapters.probe.clone(),
            interval: self.health_interval,
            root: root.get_derived(),
        };
        Ok(Actor::spawn_linked(None, HealthActor, args, root.get_cell()).await?.0)
    }

    /// `findings` are those that the machine knows of.
    async fn gpus(
        &self,
        root: &ActorRef<RootMessage>,
        findings: Vec<GpuFinding>,
    ) -> Result<ActorRef<GpuMonitorMessage>, ActorProcessingErr> {
        let args = GpuMonitorArgs {
            source: self.adapters.gpus.clone(),
            quarantine: self.adapters.quarantine.clone(),
            rules: self.gpu_rules.clone(),
            findings,
            root: root.get_derived(),
        };
        Ok(Actor::spawn_linked(None, GpuMonitorActor, args, root.get_cell()).await?.0)
    }
}

impl Children {
    pub(super) async fn start(
        root: &ActorRef<RootMessage>,
        args: &RootArgs,
        orphans: Arc<dyn OrphanLog>,
    ) -> Result<Self, ActorProcessingErr> {
        let outcome = match args.spec.on_exit {
            ExitPolicy::Detach => OrphanOutcome::Kept,
            ExitPolicy::Stop => OrphanOutcome::Killed,
        };
        let recipe = Recipe {
            adapters: args.adapters.clone(),
            health_interval: args.health_interval,
            gpu_rules: args.gpus.clone(),
            outcome,
            orphans,
        };
        Ok(Self {
            process: recipe.process(root, Epoch::default()).await?,
            epoch: Epoch::default(),
            loader: recipe.loader(root).await?,
            health: recipe.health(root).await?,
            gpus: recipe.gpus(root, args.gpu_findings.clone()).await?,
            recipe,
            deaths: Intensity::default(),
            gpu_deaths: Intensity::default(),
            timers: HashMap::new(),
            wind_down: None,
        })
    }

    /// Whether these are the words of the present process actor.
    pub(super) fn hears(&self, news: &ProcessNews) -> bool {
        news.epoch == self.epoch
    }

    /// Does what the machine asks for.
    pub(super) fn run(&mut self, root: &ActorRef<RootMessage>, effect: Effect, service: &Service) {
        let model = service.machine().model();
        match effect {
            Effect::Adopt => self.tell_process(ProcessMessage::Adopt { model: model.clone() }),
            Effect::Launch { incarnation, model, method } => {
                self.watch(incarnation, &model);
                self.tell_process(ProcessMessage::Launch { incarnation, model, method });
            }
            Effect::Watch { incarnation } => self.watch(incarnation, model),
            Effect::FinishLoading { incarnation } => {
                tell(&self.loader, ModelLoaderMessage::Cease);
                self.tell_health(HealthMessage::ProbeSteadily { incarnation });
                self.tell_process(ProcessMessage::Served { incarnation });
            }
            Effect::Probe { incarnation } => self.tell_health(HealthMessage::Probe { incarnation }),
            Effect::Compare { incarnation } => {
                self.tell_health(HealthMessage::Compare { incarnation });
            }
            Effect::Remember { model, memory } => {
                self.tell_process(ProcessMessage::Remember { model, memory });
            }
            Effect::Disregard => {
                tell(&self.loader, ModelLoaderMessage::Cease);
                self.tell_health(HealthMessage::Cease);
            }
            Effect::Drain { incarnation } => {
                self.tell_process(ProcessMessage::KeepNoLonger { incarnation });
                self.tell_health(HealthMessage::Drain { incarnation });
            }
            Effect::Stop { incarnation, mode, phase, grace } => {
                self.tell_process(ProcessMessage::Stop { incarnation, mode, phase, grace });
            }
            Effect::Clear { incarnation } => {
                let (mode, phase, grace) = (StopMode::Immediate, Phase::Loading, Duration::ZERO);
                self.tell_process(ProcessMessage::Stop { incarnation, mode, phase, grace });
            }
            Effect::Diagnose { incarnation } => {
                self.tell_process(ProcessMessage::Diagnose { incarnation });
            }
            Effect::Sample { incarnation } => {
                self.tell_process(ProcessMessage::Sample { incarnation });
            }
            Effect::FeelPulse { incarnation } => {
                self.tell_health(HealthMessage::FeelPulse { incarnation });
            }
            Effect::AskForToken { incarnation } => {
                self.tell_health(HealthMessage::AskForToken { incarnation });
            }
            Effect::Schedule { timer, incarnation, after } => {
                let due = tell_after(root, after, RootMessage::Due { timer, incarnation });
                self.timers.insert(timer, due);
            }
            Effect::Prepare { model, method } => {
                self.tell_process(ProcessMessage::Prepare { model, method });
            }
            Effect::Rest => self.tell_process(ProcessMessage::Rest),
            // The root ends itself.
            Effect::End => {}
        }
    }

    fn tell_process(&self, message: ProcessMessage) {
        tell(&self.process, message);
    }

    fn tell_health(&self, message: HealthMessage) {
        tell(&self.health, message);
    }

    fn watch(&self, incarnation: Incarnation, model: &ModelId) {
        tell(&self.loader, ModelLoaderMessage::Follow { incarnation, model: model.clone() });
        tell(&self.health, HealthMessage::Watch { incarnation, model: model.clone() });
    }

    /// Tells fresh loader and health actors where the service stands.
    pub(super) fn resume(&self, service: &Service) {
        let machine = service.machine();
        match machine.state() {
            State::Starting(starting) => self.watch(starting.incarnation, &starting.model),
            State::Running(running) => {
                let (incarnation, model) = (running.incarnation, running.model.clone());
                tell(&self.health, HealthMessage::Watch { incarnation, model });
                tell(&self.health, HealthMessage::ProbeSteadily { incarnation });
            }
            // Whoever was to be waited for was waited for by an actor that is gone.
            State::Stopping(Stopping { incarnation, stage: Stage::Draining { .. }, .. }) => {
                tell(&self.health, HealthMessage::Drain { incarnation: *incarnation });
            }
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => {}
        }
    }

    /// Replaces a child that died, and those started after it.
    pub(super) async fn replace(
        &mut self,
        root: &ActorRef<RootMessage>,
        child: ActorId,
        findings: &[GpuFinding],
        now: Moment,
    ) -> Result<Loss, ActorProcessingErr> {
        let Some(role) = self.role_of(child).filter(|_| self.wind_down.is_none()) else {
            return Ok(Loss::None);
        };
        let deaths = match role {
            Role::Process | Role::Loader | Role::Health => &mut self.deaths,
            Role::Gpu => &mut self.gpu_deaths,
        };
        if !deaths.admit(MAX_DEATHS, DEATH_WINDOW, now) {
            return Ok(Loss::TooMany(role));
        }
        match role {
            Role::Process => {
                self.epoch = self.epoch.next();
                self.process = self.recipe.process(root, self.epoch).await?;
                self.replace_loader(root).await?;
                self.replace_health(root).await?;
            }
            Role::Loader => {
                self.replace_loader(root).await?;
                self.replace_health(root).await?;
            }
            Role::Health => self.replace_health(root).await?,
            Role::Gpu => self.gpus = self.recipe.gpus(root, findings.to_vec()).await?,
        }
        Ok(Loss::Replaced(role))
    }

    async fn replace_loader(
        &mut self,
        root: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let fresh = self.recipe.loader(root).await?;
        std::mem::replace(&mut self.loader, fresh).kill();
        Ok(())
    }

    async fn replace_health(
        &mut self,
        root: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let fresh = self.recipe.health(root).await?;
        std::mem::replace(&mut self.health, fresh).kill();
        Ok(())
    }

    fn role_of(&self, child: ActorId) -> Option<Role> {
        [
            (self.process.get_id(), Role::Process),
            (self.loader.get_id(), Role::Loader),
            (self.health.get_id(), Role::Health),
            (self.gpus.get_id(), Role::Gpu),
        ]
        .into_iter()
        .find_map(|(id, role)| (id == child).then_some(role))
    }

    /// Ends the children in reverse start order, then says so. ractor would kill them all at once
    /// when the root stops.
    pub(super) fn wind_down(&mut self, root: &ActorRef<RootMessage>, reason: EndReason) {
        if self.wind_down.is_some() {
            return;
        }
        self.timers.clear();
        let children = [
            self.gpus.get_cell(),
            self.health.get_cell(),
            self.loader.get_cell(),
            self.process.get_cell(),
        ];
        let listener = root.clone();
        self.wind_down = Some(OwnedTask::begin(root.get_cell(), async move {
            for child in children {
                end(&child).await;
            }
            tell(&listener, RootMessage::WoundDown { reason });
        }));
    }
}

async fn end(child: &ActorCell) {
    child.stop(None);
    if child.wait(Some(END_DEADLINE)).await.is_err() {
        warn!(actor = %child.get_id(), "a child actor does not end and is killed");
        child.kill();
        // Killed, it ends at its next await; there is nothing further to try.
        drop(child.wait(Some(END_DEADLINE)).await);
    }
}
