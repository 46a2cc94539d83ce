//! The thread that looks, again and again.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::nvml::Nvidia;
use super::{Ours, unavailable, xid_events};
use crate::domain::gpu::{DriverFaults, GpuSnapshot};
use crate::ports::{GpuReading, GpuSource};

/// Looks at the GPUs until it is dropped.
///
/// Dropping it never waits: its thread wakes at once, lets go of the driver, closes the channel and
/// ends. A thread that a call holds does so when the call returns.
#[derive(Debug)]
pub struct GpuSampler {
    interval: Duration,
    readings: watch::Receiver<GpuReading>,
    faults: watch::Receiver<DriverFaults>,
    /// What is sent asks for a look; that it is gone is the thread's sign to end.
    looks: SyncSender<LookNow>,
    /// Keeps the thread that hears of faults.
    _alive: Option<mpsc::Sender<Infallible>>,
}

/// Somebody cannot wait for the next look.
#[derive(Debug)]
struct LookNow;

impl GpuSampler {
    /// Begins to look at NVIDIA's GPUs, with a pause of `interval` (above zero) after each look, and
    /// returns at once.
    ///
    /// `library` replaces the driver's `libnvidia-ml.so.1`: a path with a `/` is that very file, a
    /// bare name is searched for as dlopen(3) says. `ours` is asked for every process on a GPU, on
    /// the sampler's thread.
    ///
    /// Where NVML cannot be had, the one look is [`GpuReading::Unavailable`].
    pub fn nvidia(interval: Duration, library: Option<PathBuf>, ours: Ours) -> Self {
        let (tell, faults) = watch::channel(DriverFaults::default());
        let (alive, owner) = mpsc::channel();
        let sampler = Self::begin(interval, move || {
            let mut nvidia = Nvidia::open(library.as_deref(), ours)?;
            xid_events::begin(library, tell, owner);
            Ok(move || nvidia.look())
        });
        Self { faults, _alive: Some(alive), ..sampler }
    }

    /// `open` and what it returns are called on the sampler's thread alone.
    pub(super) fn begin<L: FnMut() -> GpuSnapshot>(
        interval: Duration,
        open: impl FnOnce() -> Result<L, String> + Send + 'static,
    ) -> Self {
        let (publish, readings) = watch::channel(GpuReading::Pending);
        // One that is still to be taken serves whoever asks meanwhile.
        let (looks, wanted) = mpsc::sync_channel(1);
        let sampling = move || match open() {
            Ok(look) => sample(look, &publish, interval, &wanted),
            Err(reason) => {
                publish.send_replace(GpuReading::Unavailable(reason));
            }
        };
        let readings = match thread::Builder::new().name("gpu-sampler".to_owned()).spawn(sampling) {
            Ok(_detached) => readings,
            Err(error) => unavailable(format!("no thread to look at the GPUs from: {error}")),
        };
        let faults = watch::channel(DriverFaults::default()).1;
        Self { interval, readings, faults, looks, _alive: None }
    }
}

impl GpuSource for GpuSampler {
    fn readings(&self) -> watch::Receiver<GpuReading> {
        self.readings.clone()
    }

    fn faults(&self) -> watch::Receiver<DriverFaults> {
        self.faults.clone()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn look_now(&self) {
        // Full: a look is about to be taken. Closed: there is nothing to look at.
        drop(self.looks.try_send(LookNow));
    }
}

/// Looks again and again until the owner is gone; then the driver is let go with `look`.
fn sample(
    mut look: impl FnMut() -> GpuSnapshot,
    publish: &watch::Sender<GpuReading>,
    interval: Duration,
    wanted: &mpsc::Receiver<LookNow>,
) {
    loop {
        publish.send_replace(GpuReading::Seen(look()));
        match wanted.recv_timeout(interval) {
            Ok(LookNow) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}
