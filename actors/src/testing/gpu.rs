//! GPUs that look as a test says.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::gpu::GpuSnapshot;
use crate::ports::{GpuLook, GpuSource};

/// A [`GpuSource`] without a thread: it has looked when the test says so, and is silent otherwise.
#[derive(Debug)]
pub struct ScriptedGpus {
    interval: Duration,
    looks: watch::Sender<GpuLook>,
}

impl ScriptedGpus {
    /// A source that claims to look once in `interval`, and has not looked yet.
    pub fn every(interval: Duration) -> Self {
        Self { interval, looks: watch::Sender::new(GpuLook::Pending) }
    }

    /// The source has looked, and this is what it saw.
    pub fn see(&self, snapshot: GpuSnapshot) {
        self.looks.send_replace(GpuLook::Seen(snapshot));
    }

    /// The source has found that there is nothing to look at.
    pub fn be_unavailable(&self, reason: &str) {
        self.looks.send_replace(GpuLook::Unavailable(reason.to_owned()));
    }

    /// Resolves when nobody listens any more.
    pub async fn deserted(&self) {
        self.looks.closed().await;
    }
}

impl GpuSource for ScriptedGpus {
    fn looks(&self) -> watch::Receiver<GpuLook> {
        self.looks.subscribe()
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}
