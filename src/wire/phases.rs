//! The parts of a launch, in their order.

use serde::Serialize;
use vllm_supervisor_actors::domain::phases::{LaunchPhase, Phases};

use super::millis;

/// One part of a launch.
#[derive(Serialize)]
pub(super) struct PhaseBody {
    phase: &'static str,
    duration_ms: u64,
}

pub(super) fn phases(phases: &Phases) -> Vec<PhaseBody> {
    let body = |(phase, took): (LaunchPhase, _)| PhaseBody {
        phase: phase.as_str(),
        duration_ms: millis(took),
    };
    phases.iter().map(body).collect()
}
