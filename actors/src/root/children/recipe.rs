//! How each child is started.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::domain::gpu::{GpuFinding, GpuRules};
use crate::gpu_monitor::{GpuMonitorActor, GpuMonitorArgs, GpuMonitorMessage};
use crate::health::{HealthActor, HealthArgs, HealthMessage};
use crate::model_loader::{ModelLoaderActor, ModelLoaderArgs, ModelLoaderMessage};
use crate::ports::{OrphanLog, OrphanOutcome, UnitSource};
use crate::process::{Epoch, ProcessActor, ProcessArgs, ProcessMessage};
use crate::root::message::RootMessage;
use crate::root::{Adapters, Means, Owner};
use crate::unit::{UnitActor, UnitArgs, UnitMessage};

/// What tells of the process.
#[derive(Debug)]
pub(super) enum Source {
    /// It is ours.
    Ours {
        process: ActorRef<ProcessMessage>,
        /// Which process actor that is.
        epoch: Epoch,
        loader: ActorRef<ModelLoaderMessage>,
    },
    /// Its manager tells of its unit.
    Unit(ActorRef<UnitMessage>),
    /// Nobody does.
    None,
}

/// How to start each child.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) adapters: Adapters,
    pub(super) health_interval: Duration,
    pub(super) gpu_rules: GpuRules,
    pub(super) outcome: OrphanOutcome,
    /// Hears what becomes of a launch whose owner ends.
    pub(super) orphans: Arc<dyn OrphanLog>,
}

impl Recipe {
    pub(super) async fn source(
        &self,
        root: &ActorRef<RootMessage>,
    ) -> Result<Source, ActorProcessingErr> {
        Ok(match &self.adapters.owner {
            Owner::Us(means) => {
                let epoch = Epoch::default();
                let process = self.process(root, means, epoch).await?;
                Source::Ours { process, epoch, loader: Self::loader(root, means).await? }
            }
            Owner::Other(Some(unit)) => Source::Unit(Self::unit(root, unit).await?),
            Owner::Other(None) => Source::None,
        })
    }

    async fn unit(
        root: &ActorRef<RootMessage>,
        source: &Arc<dyn UnitSource>,
    ) -> Result<ActorRef<UnitMessage>, ActorProcessingErr> {
        let args = UnitArgs { source: Arc::clone(source), root: root.get_derived() };
        Ok(Actor::spawn_linked(None, UnitActor, args, root.get_cell()).await?.0)
    }

    pub(super) async fn process(
        &self,
        root: &ActorRef<RootMessage>,
        means: &Means,
        epoch: Epoch,
    ) -> Result<ActorRef<ProcessMessage>, ActorProcessingErr> {
        let args = ProcessArgs {
            launcher: means.launcher.clone(),
            orphans: self.orphans.clone(),
            outcome: self.outcome,
            epoch,
            root: root.get_derived(),
        };
        Ok(Actor::spawn_linked(None, ProcessActor, args, root.get_cell()).await?.0)
    }

    pub(super) async fn loader(
        root: &ActorRef<RootMessage>,
        means: &Means,
    ) -> Result<ActorRef<ModelLoaderMessage>, ActorProcessingErr> {
        let args = ModelLoaderArgs {
            output: means.output.clone(),
            downloads: means.downloads.clone(),
            root: root.get_derived(),
        };
        Ok(Actor::spawn_linked(None, ModelLoaderActor, args, root.get_cell()).await?.0)
    }

    pub(super) async fn health(
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
    pub(super) async fn gpus(
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
