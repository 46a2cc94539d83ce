//! What the child actors tell the root: facts, in the past tense.

use std::fmt;
use std::time::Duration;

use crate::domain::absence::{Doubt, Proof, ScanError};
use crate::domain::cause::Cause;
use crate::domain::diagnosis::{Evidence, Exit, Phase};
use crate::domain::gpu::{FindingNews, GpuSnapshot};
use crate::domain::health::Check;
use crate::domain::id::Incarnation;
use crate::domain::liveness::{Pulse, Trial};
use crate::domain::loading::LoadNews;
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memories};

/// What became of the process. Everything carries the incarnation that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessReport {
    /// vLLM's main process runs.
    Launched {
        /// Which launch.
        incarnation: Incarnation,
        /// Its pid.
        pid: u32,
        /// How it was started.
        method: LaunchMethod,
        /// What launches like it have come to.
        memories: Memories,
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
    },
    /// Another process of its tree ended. The end of the main process is [`Self::Exited`].
    MemberDied {
        /// Which launch.
        incarnation: Incarnation,
        /// The pid it had.
        pid: u32,
        /// What it was for.
        role: Role,
        /// How it ended.
        exit: Exit,
    },
    /// What it has written has been read.
    Diagnosed {
        /// Which launch.
        incarnation: Incarnation,
        /// What was found.
        evidence: Evidence,
    },
    /// Nothing of the incarnation is left.
    Vacated {
        /// Which launch.
        incarnation: Incarnation,
        /// That nothing is.
        proof: Proof,
    },
    /// It could not be proven gone for as long as we care to wait. We go on trying.
    Lingered {
        /// Which launch.
        incarnation: Incarnation,
        /// What is left of it, or could not be looked at.
        doubt: Doubt,
    },
    /// How much the tree has worked so far.
    Sampled {
        /// Which launch.
        incarnation: Incarnation,
        /// What was seen of it.
        sample: Sample,
    },
    /// An earlier supervisor left this, and it is what we would have launched.
    Adopted {
        /// The launch it was.
        incarnation: Incarnation,
        /// The pid of its main process.
        pid: u32,
        /// What it serves.
        target: Target,
        /// How far it had come, as far as that was kept.
        phase: Phase,
    },
    /// An earlier supervisor left this, and it is of no use: other settings, or half dead.
    RemnantFound {
        /// The launch it was.
        incarnation: Incarnation,
        /// The pid of its main process, if that lives: it may have requests in hand.
        pid: Option<u32>,
    },
    /// No earlier supervisor left anything.
    NothingFound {
        /// That nothing is there.
        proof: Proof,
    },
    /// It could not be found out what an earlier supervisor left. We go on trying.
    LookFailed {
        /// What could not be looked at.
        error: ScanError,
    },
}

/// What a process of vLLM's tree is for, by its title (vLLM 0.32, `utils/system_utils.py`,
/// `set_process_title`) and its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Speaks HTTP: one of several API servers, or the main process.
    ApiServer,
    /// `VLLM::EngineCore`.
    EngineCore,
    /// `VLLM::Worker`.
    Worker,
    /// `VLLM::DPCoordinator`.
    Coordinator,
    /// Started by Python's `multiprocessing`, and without a title yet.
    Untitled,
    /// Anything else; `multiprocessing`'s resource tracker among them. vLLM can do without it.
    Helper,
}

impl Role {
    /// Whether the end of such a process, in this way, is the end of the service.
    pub fn is_fatal(self, exit: Exit) -> bool {
        match self {
            Self::ApiServer | Self::EngineCore | Self::Worker | Self::Coordinator => true,
            // Some are there for a moment only, to find something out (vLLM 0.32,
            // `model_executor/models/registry.py`).
            Self::Untitled => match exit {
                Exit::Code(code) => code != 0,
                Exit::Signal(_) => true,
                Exit::Unknown => false,
            },
            Self::Helper => false,
        }
    }
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::ApiServer,
        Self::EngineCore,
        Self::Worker,
        Self::Coordinator,
        Self::Untitled,
        Self::Helper,
    ];

    /// The role's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "api_server",
            Self::EngineCore => "engine_core",
            Self::Worker => "worker",
            Self::Coordinator => "coordinator",
            Self::Untitled => "untitled",
            Self::Helper => "helper",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "API server",
            Self::EngineCore => "engine core",
            Self::Worker => "worker",
            Self::Coordinator => "coordinator",
            Self::Untitled => "process that was just starting",
            Self::Helper => "helper",
        })
    }
}

/// What a process tree has done since its launch. It never falls: what a process has done stays
/// counted when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Bytes read and written.
    pub io_bytes: u64,
}

/// What is seen of a tree at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its work since it was launched.
    pub work: Work,
    /// How long those that speak HTTP have worked, or waited for a processor.
    pub front: Duration,
    /// Who of it is stopped.
    pub halt: Halt,
}

/// Which of the processes that vLLM cannot do without are stopped, as by SIGSTOP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Halt {
    /// None of them.
    #[default]
    None,
    /// These, by pid, and not all others of the tree.
    Some(Vec<(u32, Role)>),
    /// All of them, or a debugger looks into one: somebody has suspended vLLM.
    All,
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
    /// What the counters of this launch say; `None` if it has none.
    Felt(Incarnation, Option<Pulse>),
    /// What came of asking this launch for one token.
    Tried(Incarnation, Trial),
    /// What this launch has made of the fixed prompt; `None` if it could not be had.
    Completed(Incarnation, Option<String>),
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
    /// What is wrong with them has changed.
    Found(FindingNews),
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

/// How the process came to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaunchKind {
    /// We started it as a process of its own, from nothing.
    Cold,
    /// It was forked for us from a process that had imported what vLLM imports.
    Warm,
    /// An earlier supervisor started it.
    Adopted,
}

impl LaunchKind {
    /// The kind's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Adopted => "adopted",
        }
    }
}

impl From<LaunchMethod> for LaunchKind {
    fn from(method: LaunchMethod) -> Self {
        match method {
            LaunchMethod::Cold => Self::Cold,
            LaunchMethod::Front | LaunchMethod::Tree | LaunchMethod::Ahead => Self::Warm,
        }
    }
}
