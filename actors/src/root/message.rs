//! What the [`RootSupervisor`](super::RootSupervisor) is told: the public [`Command`]s, reports from
//! its children, and what it tells itself.

use std::sync::Arc;

use ractor::{DerivedActorRef, RpcReplyPort};

use crate::domain::event::{EndReason, Event};
use crate::domain::id::Incarnation;
use crate::domain::input::{StopMode, Timer};
use crate::domain::report::{GpuReport, HealthNews, LoaderReport};
use crate::domain::spec::ModelId;
use crate::domain::ticket::Outcome;
use crate::domain::unit::UnitReading;
use crate::message::messages;
use crate::process::ProcessNews;
use crate::root::snapshot::Snapshot;

/// Where the answer to a command goes: when it has led where it should, or will not. A supervisor
/// that ends first drops it.
pub type Answer = RpcReplyPort<Outcome>;

/// What anybody may ask of a supervisor.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// Serve, whatever went wrong before. Answered when it serves.
    Start {
        /// Where the answer goes.
        reply: Answer,
    },
    /// Serve, unless the service has given up. Answered when it serves.
    EnsureHealthy {
        /// What is to be served; `None` for whatever is to be served anyway.
        model: Option<ModelId>,
        /// Where the answer goes.
        reply: Answer,
    },
    /// Stay down. Answered when nothing is alive.
    Stop {
        /// How.
        mode: StopMode,
        /// Where the answer goes.
        reply: Answer,
    },
    /// Serve with another incarnation. Answered when it serves.
    Restart {
        /// Where the answer goes.
        reply: Answer,
    },
    /// Serve this model. Answered when it is served, or the old one is being brought back; at once
    /// if vLLM could not be asked for it.
    Load {
        /// The model.
        model: ModelId,
        /// What vLLM is to be told besides, in place of what is configured; `None` where that does not matter:
        /// as the model is served now, if it is, else as configured.
        extra_args: Option<Vec<String>>,
        /// Where the answer goes.
        reply: Answer,
    },
    /// The present, as of now.
    Snapshot {
        /// Where the answer goes.
        reply: RpcReplyPort<Snapshot>,
    },
    /// Tell an actor every event from now on, in order and without a gap, up to the one that says
    /// that the supervisor has ended. One that has ended is forgotten.
    Subscribe {
        /// Whom to tell; its own messages are made of the events (`get_derived`).
        subscriber: DerivedActorRef<Arc<Event>>,
    },
    /// End the supervisor; vLLM is stopped or kept, as configured.
    Shutdown,
}

/// See the module.
#[derive(Debug)]
pub enum RootMessage {
    /// Somebody wants something.
    Command(Command),
    /// News of the process.
    Process(ProcessNews),
    /// News of its health.
    Health(HealthNews),
    /// News of its load.
    Loader(LoaderReport),
    /// News of the GPUs.
    Gpu(GpuReport),
    /// News of the unit that a service manager runs vLLM as.
    Unit(UnitReading),
    /// A timer ran out (from itself).
    Due {
        /// What it was for.
        timer: Timer,
        /// Which launch it was for.
        incarnation: Incarnation,
    },
    /// End the children (from itself).
    WindDown {
        /// Why.
        reason: EndReason,
    },
    /// The children have ended (from itself).
    WoundDown {
        /// Why.
        reason: EndReason,
    },
}

messages!(RootMessage);

/// A child's report as a message to the root, and back, as ractor's narrow references ask.
macro_rules! carries {
    ($($report:ident as $variant:ident),+) => { $(
        impl From<$report> for RootMessage {
            fn from(report: $report) -> Self {
                Self::$variant(report)
            }
        }

        impl TryFrom<RootMessage> for $report {
            type Error = RootMessage;

            fn try_from(message: RootMessage) -> Result<Self, RootMessage> {
                if let RootMessage::$variant(report) = message { Ok(report) } else { Err(message) }
            }
        }
    )+ };
}

carries!(
    Command as Command,
    ProcessNews as Process,
    HealthNews as Health,
    LoaderReport as Loader,
    GpuReport as Gpu,
    UnitReading as Unit
);
