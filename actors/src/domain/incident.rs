//! The record of an end that nobody asked for.

use std::time::{Duration, SystemTime};

use crate::domain::cause::Cause;
use crate::domain::gpu::Gpu;
use crate::domain::id::Incarnation;
use crate::domain::spec::ModelId;

/// An end that nobody asked for: one entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incident {
    /// When it ended.
    pub at: SystemTime,
    /// The launch that ended.
    pub incarnation: Incarnation,
    /// The model it served or was to serve.
    pub model: ModelId,
    /// Why it ended.
    pub cause: Cause,
    /// How long it had been proven healthy; `None` if it never was.
    pub healthy_for: Option<Duration>,
    /// Whether a restart follows, and after how long.
    pub restart_after: Option<Duration>,
    /// The GPUs as they were last seen before it ended; empty where there are none.
    pub gpus: Vec<Gpu>,
}

impl Incident {
    /// The end of a launch that was never healthy and is not restarted.
    pub fn new(at: SystemTime, incarnation: Incarnation, model: ModelId, cause: Cause) -> Self {
        Self {
            at,
            incarnation,
            model,
            cause,
            healthy_for: None,
            restart_after: None,
            gpus: Vec::new(),
        }
    }
}
