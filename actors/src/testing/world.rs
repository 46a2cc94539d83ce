//! Everything that a supervisor under test meets.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::spec::{LifecycleMode, ServiceSpec};
use crate::root::{Adapters, Means, Owner};
use crate::testing::downloads::ScriptedDownloads;
use crate::testing::gpu::{MemoryQuarantine, ScriptedGpus};
use crate::testing::journal::MemoryJournal;
use crate::testing::launcher::ScriptedLauncher;
use crate::testing::models::ScriptedModels;
use crate::testing::output::ScriptedOutput;
use crate::testing::probe::ScriptedProbe;
use crate::testing::unit::ScriptedUnit;

/// Everything that the supervisor meets, each part steered by the test.
#[derive(Clone, Debug)]
pub struct World {
    /// Starts and finds vLLM.
    pub launcher: Arc<ScriptedLauncher>,
    /// What vLLM writes.
    pub output: Arc<ScriptedOutput>,
    /// What it downloads.
    pub downloads: Arc<ScriptedDownloads>,
    /// How vLLM is.
    pub probe: Arc<ScriptedProbe>,
    /// The GPUs.
    pub gpus: Arc<ScriptedGpus>,
    /// What was kept.
    pub journal: Arc<MemoryJournal>,
    /// The models that there are.
    pub models: Arc<ScriptedModels>,
    /// Its service manager, where it has one.
    pub unit: Arc<ScriptedUnit>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            launcher: Arc::default(),
            output: Arc::default(),
            downloads: Arc::default(),
            probe: Arc::default(),
            gpus: Arc::new(ScriptedGpus::every(Duration::from_secs(1))),
            journal: Arc::default(),
            models: Arc::default(),
            unit: Arc::default(),
        }
    }
}

impl World {
    fn owner(&self, spec: &ServiceSpec) -> Owner {
        match spec.mode {
            LifecycleMode::Managed => Owner::Us(Means {
                launcher: Arc::clone(&self.launcher) as _,
                output: Arc::clone(&self.output) as _,
                downloads: Arc::clone(&self.downloads) as _,
                models: Arc::clone(&self.models) as _,
            }),
            LifecycleMode::Monitored | LifecycleMode::External => {
                Owner::Other(spec.unit.is_some().then(|| Arc::clone(&self.unit) as _))
            }
        }
    }

    pub(super) fn adapters(&self, spec: &ServiceSpec) -> Adapters {
        Adapters {
            owner: self.owner(spec),
            probe: Arc::clone(&self.probe) as _,
            gpus: Arc::clone(&self.gpus) as _,
            quarantine: Arc::new(MemoryQuarantine::default()),
            journal: Arc::clone(&self.journal) as _,
        }
    }
}
