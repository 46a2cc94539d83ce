//! The child actors: how they are started, told, replaced and ended.
//!
//! Start order is process, loader, health, GPU monitor; where vLLM is not ours, its unit stands in for
//! process and loader. A child that dies takes those started after it along (rest-for-one), but for unit
//! and GPU monitor, which nobody depends on. More than three
//! deaths within a minute are too many: then the supervisor ends. A GPU monitor that dies as often
//! stays dead, and the service goes on without it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorId, ActorProcessingErr, ActorRef};
use tracing::warn;

use crate::domain::diagnosis::Phase;
use crate::domain::event::EndReason;
use crate::domain::gpu::GpuFinding;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode, Timer};
use crate::domain::moment::Moment;
use crate::domain::restart::Intensity;
use crate::domain::rules::Rules;
use crate::domain::spec::ExitPolicy;
use crate::domain::state::{Stage, State, Stopping};
use crate::domain::target::Target;
use crate::gpu_monitor::GpuMonitorMessage;
use crate::health::HealthMessage;
use crate::model_loader::ModelLoaderMessage;
use crate::ports::{OrphanLog, OrphanOutcome};
use crate::process::{ProcessMessage, ProcessNews};
use crate::root::message::RootMessage;
use crate::root::service::Service;
use crate::root::{Owner, RootArgs};
use crate::tell::{OwnedTask, tell, tell_after};

mod recipe;

use recipe::{Recipe, Source};

/// Deaths of child actors allowed within [`DEATH_WINDOW`].
const MAX_DEATHS: u32 = 3;
const DEATH_WINDOW: Duration = Duration::from_secs(60);

/// How long a child may take to end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Children {
    recipe: Recipe,
    source: Source,
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
    Unit,
    Health,
    Gpu,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "ProcessActor",
            Self::Loader => "ModelLoaderActor",
            Self::Unit => "UnitActor",
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
            source: recipe.source(root).await?,
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
        matches!(&self.source, Source::Ours { epoch, .. } if news.epoch == *epoch)
    }

    /// Does what the machine asks for.
    pub(super) fn run(&mut self, root: &ActorRef<RootMessage>, effect: Effect, service: &Service) {
        let target = service.rules().target();
        match effect {
            Effect::Adopt => self.tell_process(ProcessMessage::Adopt { target: target.clone() }),
            Effect::Launch { incarnation, target, method } => {
                self.watch(incarnation, &target);
                self.tell_process(ProcessMessage::Launch { incarnation, target, method });
            }
            Effect::Watch { incarnation } => self.watch(incarnation, target),
            Effect::FinishLoading { incarnation } => {
                self.tell_loader(ModelLoaderMessage::Cease);
                self.tell_health(HealthMessage::ProbeSteadily { incarnation });
                self.tell_process(ProcessMessage::Served { incarnation });
            }
            Effect::Probe { incarnation } => self.tell_health(HealthMessage::Probe { incarnation }),
            Effect::Compare { incarnation } => {
                self.tell_health(HealthMessage::Compare { incarnation });
            }
            Effect::Remember { target, memory } => {
                self.tell_process(ProcessMessage::Remember { target, memory });
            }
            Effect::Disregard => {
                self.tell_loader(ModelLoaderMessage::Cease);
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
            Effect::Prepare { target, method } => {
                self.tell_process(ProcessMessage::Prepare { target, method });
            }
            Effect::Rest => self.tell_process(ProcessMessage::Rest),
            // The root ends itself.
            Effect::End => {}
        }
    }

    fn tell_process(&self, message: ProcessMessage) {
        if let Source::Ours { process, .. } = &self.source {
            tell(process, message);
        }
    }

    fn tell_loader(&self, message: ModelLoaderMessage) {
        if let Source::Ours { loader, .. } = &self.source {
            tell(loader, message);
        }
    }

    fn tell_health(&self, message: HealthMessage) {
        tell(&self.health, message);
    }

    fn watch(&self, incarnation: Incarnation, target: &Target) {
        self.tell_loader(ModelLoaderMessage::Follow { incarnation, target: target.clone() });
        let name = target.listed_name().to_owned();
        self.tell_health(HealthMessage::Watch { incarnation, name });
    }

    /// Tells fresh loader and health actors where the service stands.
    pub(super) fn resume(&self, service: &Service) {
        let machine = match service.rules() {
            Rules::Managed(machine) => machine,
            Rules::Watched(watch) if watch.is_asked() => {
                let incarnation = watch.incarnation();
                self.watch(incarnation, watch.target());
                // Of one that does not serve the first check that passes is news.
                if watch.running_since().is_some() {
                    tell(&self.health, HealthMessage::ProbeSteadily { incarnation });
                }
                return;
            }
            Rules::Watched(_) => return,
        };
        match machine.state() {
            State::Starting(starting) => self.watch(starting.incarnation, &starting.target),
            State::Running(running) => {
                let incarnation = running.incarnation;
                let name = running.target.listed_name().to_owned();
                tell(&self.health, HealthMessage::Watch { incarnation, name });
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
            Role::Process | Role::Loader | Role::Unit | Role::Health => &mut self.deaths,
            Role::Gpu => &mut self.gpu_deaths,
        };
        if !deaths.admit(MAX_DEATHS, DEATH_WINDOW, now) {
            return Ok(Loss::TooMany(role));
        }
        match role {
            Role::Process => {
                self.replace_process(root).await?;
                self.replace_loader(root).await?;
                self.replace_health(root).await?;
            }
            Role::Loader => {
                self.replace_loader(root).await?;
                self.replace_health(root).await?;
            }
            Role::Unit => self.source = self.recipe.source(root).await?,
            Role::Health => self.replace_health(root).await?,
            Role::Gpu => self.gpus = self.recipe.gpus(root, findings.to_vec()).await?,
        }
        Ok(Loss::Replaced(role))
    }

    async fn replace_process(
        &mut self,
        root: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        if let (Source::Ours { process, epoch, .. }, Owner::Us(means)) =
            (&mut self.source, &self.recipe.adapters.owner)
        {
            *epoch = epoch.next();
            *process = self.recipe.process(root, means, *epoch).await?;
        }
        Ok(())
    }

    async fn replace_loader(
        &mut self,
        root: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        if let (Source::Ours { loader, .. }, Owner::Us(means)) =
            (&mut self.source, &self.recipe.adapters.owner)
        {
            let fresh = Recipe::loader(root, means).await?;
            std::mem::replace(loader, fresh).kill();
        }
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
        let all = self.in_start_order();
        all.into_iter().find_map(|(cell, role)| (cell.get_id() == child).then_some(role))
    }

    fn in_start_order(&self) -> Vec<(ActorCell, Role)> {
        let mut all = match &self.source {
            Source::Ours { process, loader, .. } => {
                vec![(process.get_cell(), Role::Process), (loader.get_cell(), Role::Loader)]
            }
            Source::Unit(unit) => vec![(unit.get_cell(), Role::Unit)],
            Source::None => Vec::new(),
        };
        all.push((self.health.get_cell(), Role::Health));
        all.push((self.gpus.get_cell(), Role::Gpu));
        all
    }

    /// Ends the children in reverse start order, then says so. ractor would kill them all at once
    /// when the root stops.
    pub(super) fn wind_down(&mut self, root: &ActorRef<RootMessage>, reason: EndReason) {
        if self.wind_down.is_some() {
            return;
        }
        self.timers.clear();
        let children = self.in_start_order();
        let listener = root.clone();
        self.wind_down = Some(OwnedTask::begin(root.get_cell(), async move {
            for (child, _) in children.into_iter().rev() {
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
