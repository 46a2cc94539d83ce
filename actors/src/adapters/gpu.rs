//! The GPUs, as their drivers show them.
//!
//! A call into a driver that hangs may never return, and no signal frees a thread that waits there.
//! So threads of their own make all the calls, nobody ever joins them, and what they see leaves
//! through watch channels, where a reader can judge it by its age. `spawn_blocking` would not do:
//! the runtime waits for its threads when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::gpu::DriverFaults;
use crate::ports::{GpuReading, GpuSource};

mod amd;
mod nvml;
mod quarantine;
mod room;
mod sampling;
mod xid_events;

pub use quarantine::QuarantineFile;
pub use room::GpuRoom;
pub use sampling::GpuSampler;

/// Tells whether a pid, in the host's pid namespace, belongs to the vLLM that we launched.
pub type Ours = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// The source for a supervisor that shall not look at GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGpus {
    /// Why there is nothing to look at.
    pub reason: String,
}

impl GpuSource for NoGpus {
    fn readings(&self) -> watch::Receiver<GpuReading> {
        unavailable(self.reason.clone())
    }

    fn faults(&self) -> watch::Receiver<DriverFaults> {
        watch::channel(DriverFaults::default()).1
    }

    /// Zero: there is no second look to pause before.
    fn interval(&self) -> Duration {
        Duration::ZERO
    }

    fn look_now(&self) {}
}

fn unavailable(reason: String) -> watch::Receiver<GpuReading> {
    watch::channel(GpuReading::Unavailable(reason)).1
}

#[cfg(test)]
mod tests;
