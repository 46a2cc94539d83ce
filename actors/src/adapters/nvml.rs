//! The GPUs as NVIDIA's driver shows them, through NVML.
//!
//! A call into a driver that hangs may never return, and no signal frees a thread that waits there.
//! So a single thread of its own makes all the calls, nobody ever joins it, and what it sees leaves
//! through a watch channel, where a reader can judge it by its age. `spawn_blocking` would not do:
//! the runtime waits for its threads when it is dropped.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use tokio::sync::watch;
use tracing::debug;

use crate::domain::gpu::{Gpu, GpuProcess, GpuSnapshot};
use crate::ports::{GpuReading, GpuSource};

/// Tells whether a pid, in the host's pid namespace, belongs to the vLLM that we launched.
pub type Ours = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// Looks at the NVIDIA GPUs until it is dropped.
///
/// Dropping it never waits: its thread wakes at once, shuts NVML down, closes the channel and ends.
/// A thread that a call holds does so when the call returns.
#[derive(Debug)]
pub struct NvmlSource {
    interval: Duration,
    readings: watch::Receiver<GpuReading>,
    /// Nothing is ever sent; that it is gone is the thread's sign to end.
    _alive: mpsc::Sender<Infallible>,
}

impl NvmlSource {
    /// Begins to look, with a pause of `interval` (above zero) after each look, and returns at once.
    ///
    /// `library` replaces the driver's `libnvidia-ml.so.1`: a path with a `/` is that very file, a
    /// bare name is searched for as dlopen(3) says. `ours` is asked for every process on a GPU, on
    /// the sampler's thread.
    ///
    /// Where NVML cannot be had, the one look is [`GpuReading::Unavailable`].
    pub fn start(interval: Duration, library: Option<PathBuf>, ours: Ours) -> Self {
        Self::begin(interval, move || {
            let mut sampler = Sampler::open(library.as_deref(), ours)?;
            Ok(move || sampler.look())
        })
    }

    /// `open` and what it returns are called on the sampler's thread alone.
    fn begin<L: FnMut() -> GpuSnapshot>(
        interval: Duration,
        open: impl FnOnce() -> Result<L, String> + Send + 'static,
    ) -> Self {
        let (publish, readings) = watch::channel(GpuReading::Pending);
        let (alive, owner) = mpsc::channel();
        let sampling = move || match open() {
            Ok(look) => sample(look, &publish, interval, &owner),
            Err(reason) => {
                publish.send_replace(GpuReading::Unavailable(reason));
            }
        };
        let readings = match thread::Builder::new().name("gpu-sampler".to_owned()).spawn(sampling) {
            Ok(_detached) => readings,
            Err(error) => unavailable(format!("no thread to look at the GPUs from: {error}")),
        };
        Self { interval, readings, _alive: alive }
    }
}

impl GpuSource for NvmlSource {
    fn readings(&self) -> watch::Receiver<GpuReading> {
        self.readings.clone()
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}

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

    /// Zero: there is no second look to pause before.
    fn interval(&self) -> Duration {
        Duration::ZERO
    }
}

fn unavailable(reason: String) -> watch::Receiver<GpuReading> {
    watch::channel(GpuReading::Unavailable(reason)).1
}

/// Looks again and again until the owner is gone; then NVML is shut down with `look`.
fn sample(
    mut look: impl FnMut() -> GpuSnapshot,
    publish: &watch::Sender<GpuReading>,
    interval: Duration,
    owner: &mpsc::Receiver<Infallible>,
) {
    loop {
        publish.send_replace(GpuReading::Seen(look()));
        if owner.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
}

/// An NVML that is open; dropping it shuts NVML down.
struct Sampler {
    nvml: Nvml,
    ours: Ours,
    /// How many GPUs the driver last counted, those without permission included.
    count: u32,
    /// By index, so that a GPU which no longer answers keeps its name.
    identities: BTreeMap<u32, Identity>,
}

/// Who a GPU is; empty where it has never said.
#[derive(Default)]
struct Identity {
    uuid: String,
    name: String,
}

impl Sampler {
    fn open(library: Option<&Path>, ours: Ours) -> Result<Self, String> {
        let mut builder = Nvml::builder();
        if let Some(path) = library {
            builder.lib_path(path.as_os_str());
        }
        let nvml = builder.init().map_err(|error| explain(&error))?;
        Ok(Self { nvml, ours, count: 0, identities: BTreeMap::new() })
    }

    fn look(&mut self) -> GpuSnapshot {
        match self.nvml.device_count() {
            Ok(count) => self.count = count,
            Err(error) => debug!(%error, "the driver does not count its GPUs"),
        }
        GpuSnapshot { gpus: (0..self.count).filter_map(|index| self.look_at(index)).collect() }
    }

    /// One GPU, with what can be known of it; `None` for one that is not ours to look at.
    fn look_at(&mut self, index: u32) -> Option<Gpu> {
        let device = match self.nvml.device_by_index(index) {
            Ok(device) => Some(device),
            // Counted all the same, for example in a container that was given other GPUs.
            Err(NvmlError::NoPermission) => return None,
            Err(error) => {
                debug!(index, %error, "a GPU does not answer");
                None
            }
        };
        let device = device.as_ref();
        let identity = self.identities.entry(index).or_default();
        identity.learn(device);
        let memory = ask(device, Device::memory_info);
        Some(Gpu {
            index,
            uuid: identity.uuid.clone(),
            name: identity.name.clone(),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.map(|memory| memory.total),
            utilization_percent: ask(device, Device::utilization_rates).map(|rates| rates.gpu),
            temperature_celsius: ask(device, |gpu| gpu.temperature(TemperatureSensor::Gpu)),
            power_watts: ask(device, Device::power_usage).map(|milliwatts| milliwatts / 1000),
            processes: merge(
                ask(device, Device::running_compute_processes).unwrap_or_default(),
                ask(device, Device::running_graphics_processes).unwrap_or_default(),
                &*self.ours,
            ),
        })
    }
}

impl Identity {
    /// Takes over what the GPU says of itself now; what it does not say stays as it was.
    fn learn(&mut self, device: Option<&Device<'_>>) {
        if let Some(uuid) = ask(device, Device::uuid) {
            self.uuid = uuid;
        }
        if let Some(name) = ask(device, Device::name) {
            self.name = name;
        }
    }
}

/// One reading. Every error is `None`: a device may lack it (`NotSupported`), an old library the
/// symbol, a lost GPU everything, and newer drivers return codes that nvml-wrapper has no name for.
fn ask<'nvml, T>(
    device: Option<&Device<'nvml>>,
    question: impl FnOnce(&Device<'nvml>) -> Result<T, NvmlError>,
) -> Option<T> {
    device.and_then(|device| question(device).ok())
}

/// The processes by pid. One that computes and draws is on both lists, each time with all of its
/// memory, so the greater figure is the figure; a known one is greater than an unknown one.
fn merge(
    compute: Vec<ProcessInfo>,
    graphics: Vec<ProcessInfo>,
    ours: &dyn Fn(u32) -> bool,
) -> Vec<GpuProcess> {
    let mut memory_by_pid = BTreeMap::new();
    for process in compute.into_iter().chain(graphics) {
        let memory = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let greatest = memory_by_pid.entry(process.pid).or_insert(memory);
        *greatest = memory.max(*greatest);
    }
    memory_by_pid
        .into_iter()
        .map(|(pid, memory_bytes)| GpuProcess { pid, memory_bytes, ours: ours(pid) })
        .collect()
}

/// Why NVML cannot be had, and what an operator can do about it. The meaning of each code is
/// `nvmlReturn_t`'s in nvml.h; a library that is missing altogether is the loader's error.
fn explain(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(loader) => format!("no NVIDIA driver found: {loader}"),
        NvmlError::FailedToLoadSymbol(loader) => {
            format!("the library is no NVML, or too old a one: {loader}")
        }
        NvmlError::DriverNotLoaded => {
            "the NVIDIA driver is installed, but its kernel module is not loaded: load it with \
             `modprobe nvidia`, or give the container its GPUs"
                .to_owned()
        }
        NvmlError::LibRmVersionMismatch => {
            "the NVIDIA driver was updated, but the kernel still runs the old one: reboot the \
             machine"
                .to_owned()
        }
        NvmlError::NoPermission => {
            "no permission to use the NVIDIA driver: this user, or this container, lacks access \
             to /dev/nvidia*"
                .to_owned()
        }
        other => format!("NVML does not start: {other}"),
    }
}

#[cfg(test)]
mod tests;
