//! What a [`GpuMonitorActor`](super::GpuMonitorActor) is told.

use crate::domain::gpu::DriverFaults;
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
    /// The driver has told of faults (from itself).
    Told {
        /// Those that were told so far.
        faults: DriverFaults,
    },
    /// Nothing has come from the source for long (from itself).
    SilenceDue,
}

messages!(GpuMonitorMessage);
