//! What is done to a supervisor and its vLLM.

use std::time::Duration;

use rustix::process::Signal;

/// Whom a fault hits among vLLM's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The main process, which speaks HTTP.
    ApiServer,
    /// `VLLM::EngineCore`.
    EngineCore,
    /// `VLLM::Worker`.
    Worker,
    /// Python's resource tracker, which removes what the others leave in `/dev/shm`.
    ResourceTracker,
    /// A helper that left for a session of its own.
    Grandchild,
    /// Engine or worker, before it has its title.
    Importing,
    /// Not vLLM's: what its launches are forked from.
    Warm,
    /// A launch that is made ahead of its order.
    Ahead,
}

/// Something that happens at one moment, or holds for a while.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// One of vLLM's processes gets a signal.
    Kill {
        /// Which.
        victim: Role,
        /// Which signal.
        signal: Signal,
    },
    /// All of vLLM's processes get SIGKILL at once.
    Massacre {
        /// Whether the resource tracker is among them.
        tracker: Tracker,
    },
    /// The supervisor gets SIGTERM so many times, and is followed by another.
    Term {
        /// How many times.
        times: u64,
    },
    /// The supervisor gets SIGKILL, and is followed by another.
    KillSupervisor {
        /// When.
        successor: Successor,
    },
    /// Another supervisor comes, and shares something.
    SecondSupervisor {
        /// What.
        shares: Shared,
    },
    /// Several callers want something at once.
    Orders(Vec<Order>),
    /// Something holds for a while, and in the middle of it something else happens.
    Hindrance {
        /// What holds.
        hindrance: Hindrance,
        /// How long.
        lasting: Duration,
        /// What happens.
        meanwhile: Option<Box<Fault>>,
    },
}

/// Whether the resource tracker dies with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracker {
    /// It does, and nobody is left to remove what lies in `/dev/shm`.
    Killed,
    /// It does not.
    Spared,
}

/// When a killed supervisor is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// As soon as it is dead.
    AtOnce,
    /// After two seconds, in which what it was to take along must be gone.
    Later,
}

/// What a second supervisor has in common with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// The state directory: it must refuse.
    StateDirectory,
    /// The port: it must not take the first one's vLLM for its own.
    Port,
}

/// What holds for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// The supervisor is stopped, as by a suspended machine.
    Suspension,
    /// The disk of the state directory is full.
    FullDisk,
    /// The supervisor can open no further descriptor.
    NoDescriptors,
    /// One of vLLM's processes is stopped.
    StoppedMember(Role),
    /// The API server is killed, and a stranger takes its port before the next one does.
    StolenPort(Thief),
}

/// How a stranger behaves that listens on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thief {
    /// Takes connections and answers nothing.
    Silent,
    /// Answers as a healthy vLLM does that serves the model.
    Lying,
}

/// What a caller of an embedded supervisor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `stop_by(Immediate)`.
    StopNow,
    /// `restart`.
    Restart,
    /// `ensure_healthy(None)`.
    Ensure,
    /// `ensure_healthy` with the other model.
    EnsureOther,
    /// `load_model` with the configured model.
    Load,
    /// `load_model` with the other one.
    LoadOther,
    /// `status`.
    Status,
}

impl Order {
    /// All there are.
    pub(super) const ALL: [Self; 9] = [
        Self::Start,
        Self::Stop,
        Self::StopNow,
        Self::Restart,
        Self::Ensure,
        Self::EnsureOther,
        Self::Load,
        Self::LoadOther,
        Self::Status,
    ];

    /// The word that the embedding program takes it from.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::StopNow => "stop-now",
            Self::Restart => "restart",
            Self::Ensure => "ensure",
            Self::EnsureOther => "ensure-other",
            Self::Load => "load",
            Self::LoadOther => "load-other",
            Self::Status => "status",
        }
    }

    /// How many launches may follow that are no restarts: a failed switch brings the old model back.
    pub(super) fn launches(self) -> u32 {
        match self {
            Self::Stop | Self::StopNow | Self::Status => 0,
            Self::Start | Self::Restart | Self::Ensure => 1,
            Self::EnsureOther | Self::Load | Self::LoadOther => 2,
        }
    }

    pub(super) fn is_a_switch(self) -> bool {
        matches!(self, Self::EnsureOther | Self::LoadOther | Self::Load)
    }
}
