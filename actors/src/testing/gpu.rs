//! GPUs that look as a test says.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::gpu::{DriverFaults, GpuFinding, GpuSnapshot};
use crate::ports::{GpuReading, GpuSource, Quarantine};

/// A [`GpuSource`] without a thread: it has looked when the test says so, and is silent otherwise.
#[derive(Debug)]
pub struct ScriptedGpus {
    interval: Duration,
    readings: watch::Sender<GpuReading>,
    faults: watch::Sender<DriverFaults>,
    looks: watch::Sender<u32>,
}

impl ScriptedGpus {
    /// A source that claims to look once in `interval`, and has not looked yet.
    pub fn every(interval: Duration) -> Self {
        let readings = watch::Sender::new(GpuReading::Pending);
        Self {
            interval,
            readings,
            faults: watch::Sender::default(),
            looks: watch::Sender::default(),
        }
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

    /// How often somebody did not want to wait for the next look.
    pub fn looks(&self) -> watch::Receiver<u32> {
        self.looks.subscribe()
    }

    /// Resolves when somebody did not want to wait for the next look.
    pub async fn was_asked_to_look(&self) {
        let asked = self.looks.subscribe().wait_for(|looks| *looks > 0).await.is_ok();
        debug_assert!(asked, "the sender lives as long as this");
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

    fn look_now(&self) {
        self.looks.send_modify(|looks| *looks += 1);
    }
}

/// Keeps in memory which GPUs cannot be used.
#[derive(Debug, Default)]
pub struct MemoryQuarantine {
    kept: watch::Sender<Vec<GpuFinding>>,
}

impl MemoryQuarantine {
    /// What is kept.
    pub fn kept(&self) -> Vec<GpuFinding> {
        self.kept.borrow().clone()
    }

    /// Resolves when nothing is kept.
    pub async fn is_empty(&self) {
        let emptied = self.kept.subscribe().wait_for(Vec::is_empty).await.is_ok();
        debug_assert!(emptied, "the sender lives as long as this");
    }
}

impl Quarantine for MemoryQuarantine {
    fn keep(&self, findings: &[GpuFinding]) {
        self.kept.send_replace(findings.to_vec());
    }
}
