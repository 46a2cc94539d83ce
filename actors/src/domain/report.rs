//! What the child actors tell the root: facts, in the past tense.

use std::time::Duration;

use crate::domain::cause::Cause;
use crate::domain::diagnosis::Exit;
use crate::domain::gpu::GpuSnapshot;
use crate::domain::health::Check;
use crate::domain::id::Incarnation;
use crate::domain::loading::LoadNews;
use crate::domain::spec::ModelId;

/// What became of the process. Everything carries the incarnation that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessReport {
    /// vLLM's main process runs.
    Launched {
        /// Which launch.
        incarnation: Incarnation,
        /// Its pid.
        pid: u32,
    },
    /// It could not be started; nothing of it exists.
    LaunchFailed {
        /// Which launch.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
    },
    /// The main process ended. Others of its tree may live.
    Exited {
        /// Which launch.
        incarnation: Incarnation,
        /// How.
        exit: Exit,
        /// The last lines it wrote, oldest first, secrets masked.
        last_lines: Vec<String>,
    },
    /// Nothing of the incarnation is alive: proven, not assumed.
    Vacated {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Something of it has outlived SIGKILL for as long as we care to wait. We go on trying.
    Lingered {
        /// Which launch.
        incarnation: Incarnation,
        /// The pids that live.
        survivors: Vec<u32>,
    },
    /// How much the tree has worked so far.
    Sampled {
        /// Which launch.
        incarnation: Incarnation,
        /// Its work since it was launched.
        work: Work,
    },
    /// An earlier supervisor left this, and it is what we would have launched.
    Adopted {
        /// The launch it was.
        incarnation: Incarnation,
        /// The pid of its main process.
        pid: u32,
        /// What it serves.
        model: ModelId,
    },
    /// An earlier supervisor left this, and it is of no use: other settings, or half dead.
    RemnantFound {
        /// The launch it was.
        incarnation: Incarnation,
    },
    /// No earlier supervisor left anything.
    NothingFound,
}

/// What a process tree has done since its launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Processor time, user and system, of all members alive.
    pub cpu: Duration,
    /// Bytes read and written, of all members alive.
    pub io_bytes: u64,
}

/// What a health check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// Which launch was asked.
    pub incarnation: Incarnation,
    /// What it said.
    pub check: Check,
}

/// What the health actor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthNews {
    /// A check was answered.
    Checked(HealthReport),
    /// No request runs in this launch, or nobody can say.
    Drained(Incarnation),
}

/// What vLLM's log says of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderReport {
    /// Whose log.
    pub incarnation: Incarnation,
    /// What it says.
    pub news: LoadNews,
}

/// What the GPU source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuReport {
    /// A fresh look.
    Sampled(GpuSnapshot),
    /// There is nothing to look at, and why.
    Unavailable {
        /// The driver's or the loader's words.
        reason: String,
    },
    /// No look has come back for this long: the driver may hang. vLLM is not judged by it.
    Stalled {
        /// The age of the last look.
        silent_for: Duration,
    },
}
