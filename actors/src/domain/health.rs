//! What a health check can find, and when the next one is due.

use std::time::Duration;

use crate::domain::listener::PortHolder;

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthFailure {
    /// Nothing listens, or the connection broke.
    #[error("nobody answers at {url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// Somebody else listens where vLLM should. Nothing was asked, and no key was sent.
    #[error("{url} is held by {holder}")]
    PortTaken {
        /// What would have been asked.
        url: String,
        /// Who it is.
        holder: PortHolder,
    },
    /// It could not be found out who listens. Nothing was asked, and no key was sent.
    #[error("it cannot be told whose {url} is: {reason}")]
    ListenerUnknown {
        /// What would have been asked.
        url: String,
        /// What stood in the way.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer from {url} within {limit:?}")]
    TimedOut {
        /// What was asked.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// An answer other than 200.
    #[error("{url} answered {status}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not vLLM's.
    #[error("{url} answered something that is not a list of models")]
    NotVllm {
        /// What was asked.
        url: String,
    },
    /// The server is up, without our model.
    #[error("the server does not list {wanted:?}, only {listed:?}")]
    ModelMissing {
        /// The name that should be listed.
        wanted: String,
        /// The names that are.
        listed: Vec<String>,
    },
}

/// A check that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthy {
    /// How long both questions took together.
    pub latency: Duration,
    /// The models that the server lists, in its order.
    pub models: Vec<String>,
}

/// The result of one check: `/health`, then `/v1/models`.
pub type Check = Result<Healthy, HealthFailure>;

/// How often to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// While starting: often, and less often the longer it takes.
    Eager,
    /// When running: by the configured interval.
    Steady {
        /// The configured interval.
        interval: Duration,
    },
}

/// Shortest and longest pause between two eager checks. A refused connection on loopback costs
/// microseconds; a quarter second late is nothing next to the minutes of a slow load.
const EAGER: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// Longest pause after a failed check: a server that hangs is found out within a few of these
/// rather than within several whole intervals.
const SUSPICIOUS: Duration = Duration::from_secs(5);

impl Cadence {
    /// The pause before the next check, `elapsed` after the cadence began, after `failures` failed
    /// checks in a row.
    pub fn pause(self, elapsed: Duration, failures: u32) -> Duration {
        match self {
            Self::Eager => (elapsed / 50).clamp(EAGER.0, EAGER.1),
            Self::Steady { interval } if failures > 0 => interval.min(SUSPICIOUS),
            Self::Steady { interval } => interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn eager_checks_slow_down_as_the_start_drags_on() {
        let pause = |elapsed| Cadence::Eager.pause(elapsed, 9);
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(25));
        assert_eq!(pause(Duration::from_secs(5)), Duration::from_millis(100));
        assert_eq!(pause(MINUTE), Duration::from_millis(250));
    }

    #[test]
    fn a_suspect_is_asked_again_sooner_but_never_later_than_the_interval() {
        let steady = |interval| Cadence::Steady { interval };
        assert_eq!(steady(MINUTE).pause(MINUTE, 0), MINUTE);
        assert_eq!(steady(MINUTE).pause(MINUTE, 1), Duration::from_secs(5));
        let second = Duration::from_secs(1);
        assert_eq!(steady(second).pause(MINUTE, 2), second);
    }
}
