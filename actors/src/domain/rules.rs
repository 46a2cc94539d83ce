//! The rules of a service, by who has it in hand: us, or somebody else.

use crate::domain::cause::Cause;
use crate::domain::event::{EndReason, Event};
use crate::domain::gpu::GpuFinding;
use crate::domain::id::Incarnation;
use crate::domain::input::{Input, Reaction};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::machine::{Machine, Resume};
use crate::domain::moment::Moment;
use crate::domain::phases::Phases;
use crate::domain::report::LaunchKind;
use crate::domain::restart::RestartLedger;
use crate::domain::spec::{LifecycleMode, ServiceSpec};
use crate::domain::state::{ServiceState, State};
use crate::domain::target::{Target, Wanted};
use crate::domain::ticket::{OpenTickets, Ticket};
use crate::domain::unit::{UnitReading, UnitStatus};
use crate::domain::watch::Watch;

/// See the module.
#[derive(Clone, Debug)]
pub enum Rules {
    /// It is ours: it is started, restarted and stopped.
    Managed(Box<Machine>),
    /// It is somebody else's: it is watched.
    Watched(Box<Watch>),
}

impl Rules {
    /// A service of which nothing is known yet; this is known to be wrong with the GPUs.
    pub fn new(spec: ServiceSpec, resume: Resume, gpu_findings: Vec<GpuFinding>) -> Self {
        match spec.mode {
            LifecycleMode::Managed => {
                let machine = Machine::new(spec, resume).with_gpu_findings(gpu_findings);
                Self::Managed(Box::new(machine))
            }
            LifecycleMode::Monitored | LifecycleMode::External => {
                Self::Watched(Box::new(Watch::new(spec, resume, gpu_findings)))
            }
        }
    }

    /// The first thing to do.
    pub fn begin(&self) -> Reaction {
        match self {
            Self::Managed(machine) => machine.begin(),
            Self::Watched(watch) => watch.begin(),
        }
    }

    /// Takes one input.
    pub fn on(&mut self, input: Input, now: Moment) -> Reaction {
        match self {
            Self::Managed(machine) => machine.on(input, now),
            Self::Watched(watch) => watch.on(input, now),
        }
    }

    /// Takes what the manager of somebody else's service said of it.
    pub fn hear(&mut self, reading: UnitReading, now: Moment) -> Reaction {
        match self {
            Self::Managed(_) => Reaction::default(),
            Self::Watched(watch) => watch.hear(reading, now),
        }
    }

    /// Nobody waits for the answer to this request any more.
    pub fn forget(&mut self, ticket: Ticket) {
        match self {
            Self::Managed(machine) => machine.forget(ticket),
            Self::Watched(watch) => watch.forget(ticket),
        }
    }

    /// The last event of a supervisor that ends.
    pub fn end(&mut self, reason: EndReason, now: Moment) -> Event {
        match self {
            Self::Managed(machine) => machine.end(reason, now),
            Self::Watched(watch) => watch.end(reason, now),
        }
    }

    /// The figures that are decided by.
    pub fn spec(&self) -> &ServiceSpec {
        match self {
            Self::Managed(machine) => machine.spec(),
            Self::Watched(watch) => watch.spec(),
        }
    }

    /// What is served, or would be at the next launch.
    pub fn target(&self) -> &Target {
        match self {
            Self::Managed(machine) => machine.target(),
            Self::Watched(watch) => watch.target(),
        }
    }

    /// What vLLM is told besides, if it is not what is configured.
    pub fn switched_arguments(&self) -> Option<Vec<String>> {
        match self {
            Self::Managed(machine) => machine.switched_arguments(machine.target()),
            Self::Watched(_) => None,
        }
    }

    /// What this request would lead to.
    pub fn resolve(&self, wanted: &Wanted) -> Target {
        match self {
            Self::Managed(machine) => machine.resolve(wanted),
            Self::Watched(watch) => watch.target().clone(),
        }
    }

    /// The requests that are not answered yet.
    pub fn tickets(&self) -> &OpenTickets {
        match self {
            Self::Managed(machine) => machine.tickets(),
            Self::Watched(watch) => watch.tickets(),
        }
    }

    /// What is wrong with the GPUs.
    pub fn gpu_findings(&self) -> &[GpuFinding] {
        match self {
            Self::Managed(machine) => machine.gpu_findings(),
            Self::Watched(watch) => watch.gpu_findings(),
        }
    }

    /// The restarts so far.
    pub fn ledger(&self) -> &RestartLedger {
        match self {
            Self::Managed(machine) => machine.ledger(),
            Self::Watched(watch) => watch.ledger(),
        }
    }

    /// The launch, or run, that the state is about, where there is one.
    pub fn present_incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Managed(machine) => machine.state().incarnation(),
            Self::Watched(watch) => watch.is_asked().then(|| watch.incarnation()),
        }
    }

    /// What is to be told of the service now.
    pub fn present(&self) -> Present {
        match self {
            Self::Managed(machine) => Present::of_ours(machine),
            Self::Watched(watch) => Present::of_others(watch),
        }
    }
}

/// What is to be told of a service at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// The state.
    pub state: ServiceState,
    /// The main process, where one is known to run.
    pub pid: Option<u32>,
    /// The number of the last launch, or run.
    pub incarnation: Incarnation,
    /// Since when it has served without a break.
    pub running_since: Option<Moment>,
    /// How the process came to be ours; `None` where there is none.
    pub launch: Option<LaunchKind>,
    /// How long each part of its launch took.
    pub phases: Option<Phases>,
    /// How far the load is.
    pub progress: Option<ModelLoadProgress>,
    /// The last failure.
    pub last_error: Option<Cause>,
    /// What stands in the way of knowing, or of what should be done.
    pub blocked: Option<Cause>,
    /// What the service manager says of somebody else's.
    pub unit: Option<UnitStatus>,
}

impl Present {
    fn of_ours(machine: &Machine) -> Self {
        let state = machine.state();
        let (running, progress) = match state {
            State::Running(running) => (Some(running), None),
            State::Starting(starting) => (None, starting.progress.clone()),
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => (None, None),
        };
        Self {
            state: state.tag(),
            pid: state.pid(),
            incarnation: machine.incarnation(),
            running_since: running.map(|running| running.since),
            launch: machine.launch(),
            phases: running.and_then(|running| running.phases.clone()),
            progress,
            last_error: machine.last_error().cloned(),
            blocked: machine.blocked().cloned(),
            unit: None,
        }
    }

    fn of_others(watch: &Watch) -> Self {
        Self {
            state: watch.state(),
            pid: watch.pid(),
            incarnation: watch.incarnation(),
            running_since: watch.running_since(),
            launch: None,
            phases: None,
            progress: None,
            last_error: watch.last_error().cloned(),
            blocked: watch.obstacle().cloned(),
            unit: watch.unit().cloned(),
        }
    }
}
