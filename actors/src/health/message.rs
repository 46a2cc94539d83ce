//! What a [`HealthActor`](super::HealthActor) is told.

use crate::domain::health::Check;
use crate::domain::id::Incarnation;
use crate::message::messages;

/// What a [`HealthActor`](super::HealthActor) is told.
#[derive(Debug)]
pub enum HealthMessage {
    /// Ask this launch, often; forget the one before.
    Watch {
        /// Which launch.
        incarnation: Incarnation,
        /// The name under which it should list its model.
        name: String,
    },
    /// Ask steadily from now on.
    ProbeSteadily {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Ask now.
    Probe {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Tell when no request runs in this launch.
    Drain {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Have it complete the fixed prompt, and tell.
    Compare {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Read its counters, and tell.
    FeelPulse {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Ask it for one token, and tell.
    AskForToken {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Ask nobody.
    Cease,
    /// The pause is over (from itself).
    ProbeDue {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// A question was answered (from itself).
    Answered {
        /// Which launch.
        incarnation: Incarnation,
        /// What it said.
        check: Check,
    },
}

messages!(HealthMessage);
