//! Faults that are drawn and logged, and not done: this version is known not to survive them.

use super::fault::Kind;

/// What is left out, each with what happens. `VLLMD_CHAOS_ALL=1` does them all the same.
pub(super) const NOT_YET_SURVIVED: &[(Kind, &str)] = &[
    (
        Kind::TrackerDeath,
        "a segment made since the last look stays in /dev/shm, if nobody looks after it",
    ),
    (Kind::MassacreWithTracker, "amid a suspension, or made since the last look, a segment stays"),
];

/// Why a fault of these kinds is left out, if it is.
pub(super) fn reason(kinds: &[Kind]) -> Option<&'static str> {
    if std::env::var_os("VLLMD_CHAOS_ALL").is_some() {
        return None;
    }
    NOT_YET_SURVIVED.iter().find(|(kind, _)| kinds.contains(kind)).map(|(_, reason)| *reason)
}
