//! What a [`GpuMonitorActor`](super::GpuMonitorActor) is told.

use crate::message::messages;
use crate::ports::GpuReading;

/// What a [`GpuMonitorActor`](super::GpuMonitorActor) is told.
#[derive(Debug)]
pub enum GpuMonitorMessage {
    /// The source has looked (from itself).
    Looked {
        /// What it saw.
        look: GpuReading,
    },
    /// Nothing has come from the source for long (from itself).
    SilenceDue,
}

messages!(GpuMonitorMessage);
