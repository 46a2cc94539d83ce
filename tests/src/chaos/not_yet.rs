//! Faults that are drawn and logged, and not done: this version is known not to survive them.

use super::fault::Kind;

/// What is left out, each with what happens. `VLLMD_CHAOS_ALL=1` does them all the same.
pub(super) const NOT_YET_SURVIVED: &[(Kind, &str)] = &[
    (Kind::HungFront, "an engine that dies behind it is noticed by the health checks only"),
    (Kind::TrackerDeath, "the segments of the next crash stay in /dev/shm for ever"),
    (Kind::MassacreWithTracker, "its segments stay in /dev/shm for ever"),
    (Kind::TermStorm, "the third signal ends vllmd and leaves vLLM alive"),
    (
        Kind::NoDescriptors,
        "a living vLLM is declared dead, what lives is not found, and a second one is launched beside it",
    ),
    (Kind::SupervisorKilled, "with stop_on_exit vLLM outlives its supervisor"),
];

/// Why a fault of these kinds is left out, if it is.
pub(super) fn reason(kinds: &[Kind]) -> Option<&'static str> {
    if std::env::var_os("VLLMD_CHAOS_ALL").is_some() {
        return None;
    }
    NOT_YET_SURVIVED.iter().find(|(kind, _)| kinds.contains(kind)).map(|(_, reason)| *reason)
}
