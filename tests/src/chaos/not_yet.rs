//! Faults that are drawn and logged, and not done: this version is known not to survive them.

use super::fault::Kind;

/// What is left out, each with what happens. `VLLMD_CHAOS_ALL=1` does them all the same.
pub(super) const NOT_YET_SURVIVED: &[(Kind, &str)] = &[
    (Kind::FullDisk, "a restart that finds no room gives up for good, with VLM-024"),
    (Kind::HungFront, "an engine that dies behind it is noticed by the health checks only"),
    (
        Kind::SharedPort,
        "while the first one's vLLM loads, the second one says running as soon as it serves",
    ),
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
