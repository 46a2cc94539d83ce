//! What the rules are told, and what they ask for.

use std::time::{Duration, SystemTime};

use crate::domain::diagnosis::Phase;
use crate::domain::event::{Event, EventKind};
use crate::domain::gpu::FindingNews;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::liveness::{Pulse, Trial};
use crate::domain::report::{HealthReport, LoaderReport, ProcessReport};
use crate::domain::target::{Target, Wanted};
use crate::domain::ticket::{Outcome, Ticket};
use crate::domain::trust::{LaunchMethod, Memory};

/// Everything that can move the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants something, and waits for the answer.
    Request(Ticket, Request),
    /// The supervisor is to end: nothing is launched any more, and [`Effect::End`] says when.
    ShutDown,
    /// News of the process.
    Process(ProcessReport),
    /// News of its health.
    Health(HealthReport),
    /// News of its load.
    Loader(LoaderReport),
    /// The requests that ran have been answered, or nobody can say whether any run.
    Drained(Incarnation),
    /// What the counters of a launch say; `None` if it has none.
    Felt(Incarnation, Option<Pulse>),
    /// What came of asking a launch for one token.
    Tried(Incarnation, Trial),
    /// What a launch has made of the fixed prompt; `None` if it could not be had.
    Completed(Incarnation, Option<String>),
    /// News of what is wrong with the GPUs.
    Found(FindingNews),
    /// A timer that was asked for ran out.
    Due(Timer, Incarnation),
    /// The actor that holds the process died; another has taken its place and will look for it.
    ProcessActorLost,
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An operator wants it up, and takes responsibility: counts are cleared.
    Start,
    /// A program wants it up; a `Failed` service stays failed.
    Ensure,
    /// Somebody wants it down.
    Stop(StopMode),
    /// An operator wants another incarnation.
    Restart,
    /// Somebody wants this model served.
    Load {
        /// The model, and with which arguments.
        wanted: Wanted,
        /// Who asks.
        asker: Asker,
    },
}

/// Who asks for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A person, who takes responsibility: counts are cleared, and `Failed` is left.
    Operator,
    /// A program: a `Failed` service stays failed.
    Program,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopMode {
    /// SIGTERM, the grace period, then SIGKILL.
    Graceful,
    /// SIGKILL at once.
    Immediate,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The backoff of a restart is over.
    Restart,
    /// Time to ask whether a load still moves.
    Silence,
    /// Whatever still runs is not waited for any longer.
    Drain,
    /// Time to see whether what serves is alive.
    Vitals,
    /// What a launch that has ended has written is not waited for any longer.
    Diagnosis,
    /// The restart window holds one restart fewer.
    Window,
    /// The supervisor ends, whatever is left.
    End,
}

/// What should be done about an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look for what an earlier supervisor (or process actor) left.
    Adopt,
    /// Start vLLM, read its log and probe it eagerly.
    Launch {
        /// The number of this launch.
        incarnation: Incarnation,
        /// What it is to serve.
        target: Target,
        /// How much of it may be forked.
        method: LaunchMethod,
    },
    /// Probe an adopted vLLM eagerly.
    Watch {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// It is proven healthy: probe it by the interval, and leave its log alone.
    FinishLoading {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Probe at once: the log says that the server is about to listen.
    Probe {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Have it complete the fixed prompt, and say [`Input::Completed`].
    Compare {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Keep this of launches like this, for as long as vLLM and we are what they are.
    Remember {
        /// What it serves.
        target: Target,
        /// What to keep.
        memory: Memory,
    },
    /// Read its counters, and say [`Input::Felt`].
    FeelPulse {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Ask it for one token, and say [`Input::Tried`].
    AskForToken {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Leave health and log of the current launch alone.
    Disregard,
    /// Say [`Input::Drained`] when no request runs.
    Drain {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Climb the stop ladder until nothing is left.
    Stop {
        /// Which launch.
        incarnation: Incarnation,
        /// How.
        mode: StopMode,
        /// How far it had come, which decides how it takes a SIGTERM.
        phase: Phase,
        /// The time between the first SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Its main process is dead or judged dead: kill whatever is left.
    Clear {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Read what it has written, and say [`ProcessReport::Diagnosed`].
    Diagnose {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Report what is to be seen of its tree.
    Sample {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Say [`Input::Due`] after a while.
    Schedule {
        /// What for.
        timer: Timer,
        /// Which launch.
        incarnation: Incarnation,
        /// How long.
        after: Duration,
    },
    /// This will be launched once what runs now has ended: make ready for it.
    Prepare {
        /// What it serves.
        target: Target,
        /// How it will be launched.
        method: LaunchMethod,
    },
    /// Nothing will be launched until somebody asks for it: keep nothing ready.
    Rest,
    /// End the supervisor: what was to be stopped is stopped, or cannot be.
    End,
}

/// What an input leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "what is not run, published or answered is lost"]
pub struct Reaction {
    /// What to do, in this order.
    pub effects: Vec<Effect>,
    /// What happened, in this order.
    pub events: Vec<Event>,
    /// Whose requests are answered now, and how.
    pub answers: Vec<(Ticket, Outcome)>,
}

impl Reaction {
    /// Something has happened: an event with the next number.
    pub(super) fn tell(
        &mut self,
        sequence: &mut Sequence,
        at: SystemTime,
        incarnation: Incarnation,
        kind: EventKind,
    ) {
        *sequence = sequence.next();
        self.events.push(Event { sequence: *sequence, at, incarnation, kind });
    }
}
