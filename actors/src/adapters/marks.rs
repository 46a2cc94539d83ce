//! The variables that every process of a launch carries, by which it is found again.

/// The launch: the prefix of its supervisor and its number.
pub(super) const MARKER: &str = "VLLMD_INSTANCE";

/// The state directory: its number, or of a launch before 2026-11-26 its path.
pub(super) const STATE: &str = "VLLMD_STATE";

/// Where that directory is, and for whom, in case that its number is lost with it.
pub(super) const STATE_PLACE: &str = "VLLMD_STATE_PLACE";

/// The private directory of the launch, whose lock its owner holds.
pub(super) const SCRATCH: &str = "VLLMD_SCRATCH";
