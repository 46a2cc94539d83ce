//! The thread that looks, again and again.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use tokio::sync::watch;

use super::amd::Amd;
use super::nvml::{Nvidia, explain};
use super::xid_events::{self, Owner};
use super::{Ours, unavailable};
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
        Self::begin_with_faults(interval, move |told, owner| {
            let nvidia = Nvidia::open(library.as_deref(), ours).map_err(|error| explain(&error))?;
            xid_events::begin(library, told, owner);
            Ok(looks_at_nvidia(nvidia))
        })
    }

    /// As [`nvidia`](Self::nvidia), of AMD's GPUs, by the sysfs below `root`, which is `/` outside of
    /// tests. It tells of no faults.
    ///
    /// Where there is no such GPU, or that cannot be told, the one look is
    /// [`GpuReading::Unavailable`].
    pub fn amd(interval: Duration, root: PathBuf, ours: Ours) -> Self {
        Self::begin(interval, move || looks_at_amd(&root, ours))
    }

    /// As [`nvidia`](Self::nvidia), of whatever is found: NVIDIA's GPUs, and where their driver is not
    /// installed, AMD's.
    ///
    /// A driver of NVIDIA's that is installed and does not start is the one look's reason, whatever
    /// else the machine has: its GPUs are what vLLM will miss.
    pub fn any(interval: Duration, library: Option<PathBuf>, ours: Ours) -> Self {
        Self::any_of(interval, library, PathBuf::from("/"), ours)
    }

    /// `any`, with this library and below this root.
    pub(super) fn any_of(
        interval: Duration,
        library: Option<PathBuf>,
        root: PathBuf,
        ours: Ours,
    ) -> Self {
        Self::begin_with_faults(interval, move |told, owner| {
            match Nvidia::open(library.as_deref(), ours.clone()) {
                Ok(nvidia) => {
                    xid_events::begin(library, told, owner);
                    Ok(looks_at_nvidia(nvidia))
                }
                Err(NvmlError::LibloadingError(loader)) => looks_at_amd(&root, ours)
                    .map_err(|amd| format!("no NVIDIA driver found ({loader}), and {amd}")),
                Err(error) => Err(explain(&error)),
            }
        })
    }

    /// As `begin`; `open` may begin to tell of faults too.
    fn begin_with_faults(
        interval: Duration,
        open: impl FnOnce(watch::Sender<DriverFaults>, Owner) -> Result<Looks, String> + Send + 'static,
    ) -> Self {
        let (tell, faults) = watch::channel(DriverFaults::default());
        let (alive, owner) = mpsc::channel();
        let sampler = Self::begin(interval, move || open(tell, owner));
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

/// One look after the other.
type Looks = Box<dyn FnMut() -> GpuSnapshot>;

fn looks_at_nvidia(mut nvidia: Nvidia) -> Looks {
    Box::new(move || nvidia.look())
}

fn looks_at_amd(root: &Path, ours: Ours) -> Result<Looks, String> {
    let mut amd = Amd::open(root, ours)?;
    Ok(Box::new(move || amd.look()))
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
