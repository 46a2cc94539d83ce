//! What a health check can find, and when the next one is due.

use std::time::Duration;

use crate::domain::listener::ResourceHolder;

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
        holder: ResourceHolder,
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
    /// The server wants another API key than ours, or one where we have none.
    #[error("{url} answered {status}: it does not accept our VLLM_API_KEY")]
    Unauthorised {
        /// What was asked.
        url: String,
        /// The HTTP status: 401 or 403.
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
    /// While loading: less often the longer it takes. What vLLM writes tells sooner that it serves.
    Eager,
    /// Since vLLM has said that it listens: it serves a few milliseconds later.
    Imminent,
    /// When running: at a pace of its own. What is configured is how often that is *reported*.
    Steady,
}

/// Shortest and longest pause between two eager checks, and two that are imminent: each looks through
/// the system's table of connections, at the expense of what vLLM does.
const EAGER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
const IMMINENT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The pause between two checks that pass. A check costs some milliseconds; a front that hangs is
/// found within this, three limits of a check and two suspicious pauses: less than 30 s.
const STEADY: Duration = Duration::from_secs(10);

/// The pause after a failed check.
const SUSPICIOUS: Duration = Duration::from_secs(1);

impl Cadence {
    /// The pause before the next check, `elapsed` after the cadence began, after `failures` failed
    /// checks in a row. `interval` is how often a healthy server is to be reported.
    pub fn pause(self, elapsed: Duration, failures: u32, interval: Duration) -> Duration {
        match self {
            Self::Eager => (elapsed / 50).clamp(EAGER.0, EAGER.1),
            Self::Imminent => (elapsed / 50).clamp(IMMINENT.0, IMMINENT.1),
            Self::Steady if failures > 0 => interval.min(SUSPICIOUS),
            Self::Steady => interval.min(STEADY),
        }
    }
}

/// Requests that a server has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Requests that run or wait in the engine, by its own counters. A request is counted only
    /// after the first step that the engine made for it.
    pub requests: u64,
    /// Connections of clients, idle ones included; `None` if nobody can say.
    pub connections: Option<u64>,
}

/// How often the counters are read while requests are waited for.
pub const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// How long the counters must stand at zero while clients are connected: one of them may just have
/// sent a request that is not counted yet.
pub const DRAIN_QUIET: Duration = Duration::from_millis(300);

impl InHand {
    /// Whether a server whose counters have stood at zero for `quiet` has nothing in hand.
    pub fn is_drained(self, quiet: Duration) -> bool {
        self.requests == 0 && (self.connections == Some(0) || quiet >= DRAIN_QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn eager_checks_slow_down_as_the_start_drags_on() {
        let pause = |elapsed| Cadence::Eager.pause(elapsed, 9, MINUTE);
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(50));
        assert_eq!(pause(Duration::from_secs(5)), Duration::from_millis(100));
        assert_eq!(pause(MINUTE), Duration::from_millis(250));
    }

    #[test]
    fn one_that_says_that_it_listens_is_asked_without_delay() {
        let pause = |elapsed| Cadence::Imminent.pause(elapsed, 9, MINUTE);
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(10));
        assert_eq!(pause(MINUTE), Duration::from_millis(250));
    }

    #[test]
    fn a_server_is_asked_at_least_every_ten_seconds_however_rarely_it_is_reported() {
        let pause = |interval| Cadence::Steady.pause(MINUTE, 0, interval);
        assert_eq!(pause(MINUTE), Duration::from_secs(10));
        assert_eq!(pause(Duration::from_secs(3)), Duration::from_secs(3));
    }

    #[test]
    fn a_suspect_is_asked_again_sooner_but_never_later_than_the_interval() {
        let pause = |interval| Cadence::Steady.pause(MINUTE, 1, interval);
        assert_eq!(pause(MINUTE), Duration::from_secs(1));
        assert_eq!(pause(Duration::from_millis(200)), Duration::from_millis(200));
    }

    #[test]
    fn a_hung_front_is_found_within_half_a_minute() {
        let limit_of_a_check = Duration::from_secs(5);
        assert!(STEADY + 3 * limit_of_a_check + 2 * SUSPICIOUS < Duration::from_secs(30));
    }

    #[test]
    fn a_server_with_clients_is_drained_only_after_a_quiet_while() {
        let in_hand = |requests, connections| InHand { requests, connections };
        assert!(in_hand(0, Some(0)).is_drained(Duration::ZERO));
        assert!(!in_hand(0, Some(1)).is_drained(Duration::ZERO));
        assert!(!in_hand(0, None).is_drained(Duration::ZERO));
        assert!(in_hand(0, Some(1)).is_drained(DRAIN_QUIET));
        assert!(!in_hand(1, Some(0)).is_drained(DRAIN_QUIET));
    }
}
