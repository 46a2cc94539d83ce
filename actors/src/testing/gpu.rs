//! GPUs that look as a test says.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::gpu::{DriverFaults, GpuSnapshot};
use crate::ports::{GpuReading, GpuSource};

/// A [`GpuSource`] without a thread: it has looked when the test says so, and is silent otherwise.
#[derive(Debug)]
pub struct ScriptedGpus {
    interval: Duration,
    readings: watch::Sender<GpuReading>,
    faults: watch::Sender<DriverFaults>,
}

impl ScriptedGpus {
    /// A source that claims to look once in `interval`, and has not looked yet.
    pub fn every(interval: Duration) -> Self {
        let readings = watch::Sender::new(GpuReading::Pending);
        Self { interval, readings, faults: watch::Sender::default() }
    }

    /// The source has looked, and this is what it saw.
    pub fn see(&self, snapshot: GpuSnapshot) {
        self.readings.send_replace(GpuReading::Seen(snapshot));
    }

    /// The source has found that there is nothing to look at.
    pub fn be_unavailable(&self, reason: &str) {
        self.readings.send_replace(GpuReading::Unavailable(reason.to_owned()));
    }

    /// The driver has told of a fault of a GPU.
    pub fn fail(&self, index: u32, uuid: &str, xid: u32) {
        self.faults.send_modify(|faults| faults.tell(index, uuid, xid));
    }

    /// Resolves when nobody listens any more.
    pub async fn deserted(&self) {
        self.readings.closed().await;
    }
}

impl GpuSource for ScriptedGpus {
    fn readings(&self) -> watch::Receiver<GpuReading> {
        self.readings.subscribe()
    }

    fn faults(&self) -> watch::Receiver<DriverFaults> {
        self.faults.subscribe()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn look_now(&self) {}
}
