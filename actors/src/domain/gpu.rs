//! What the GPUs were seen to be doing, and what is wrong with them.

use std::collections::VecDeque;

mod condition;
mod devices;
mod finding;
mod reading;
mod room;
mod watch;
mod xid;

pub use condition::{GpuCondition, Reachability, Slowdown};
pub use devices::{DeviceName, Devices};
pub use finding::{FindingKind, GpuAction, GpuFinding};
pub(crate) use room::gib;
pub use room::{Shortage, shortage};
pub use watch::{FindingNews, GpuWatch};
pub use xid::{XidClass, XidPolicy};

/// One look at all GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuSnapshot {
    /// The GPUs in the driver's order; empty where there are none.
    pub gpus: Vec<Gpu>,
}

impl GpuSnapshot {
    /// Those of the GPUs that are surely among these devices.
    pub fn among<'a>(&'a self, devices: &'a Devices) -> impl Iterator<Item = &'a Gpu> {
        let there_are = self.gpus.len();
        self.gpus.iter().filter(move |gpu| devices.include(gpu, there_are) == Some(true))
    }
}

/// One look at one GPU. A reading that the device does not offer is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Its place in the driver's order, from 0: that of their PCI addresses (NVML, amd-smi).
    pub index: u32,
    /// The number by which applications know it (CUDA's, HIP's), before any choice among them; `None`
    /// where that is not certain.
    pub ordinal: Option<u32>,
    /// The identity that survives a change of order.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Memory in use, in bytes, without what the driver keeps for itself.
    pub memory_used_bytes: Option<u64>,
    /// Memory there is, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Memory that can be had, in bytes.
    pub memory_free_bytes: Option<u64>,
    /// Share of the last sample period in which a kernel ran, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// Core temperature in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power draw in watts.
    pub power_watts: Option<u32>,
    /// How well it is.
    pub condition: GpuCondition,
    /// Processes with memory on it.
    pub processes: Vec<GpuProcess>,
}

impl Gpu {
    /// A device that offers no reading, and that applications count as its driver does.
    pub fn new(index: u32, uuid: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            index,
            ordinal: Some(index),
            uuid: uuid.into(),
            name: name.into(),
            memory_used_bytes: None,
            memory_total_bytes: None,
            memory_free_bytes: None,
            utilization_percent: None,
            temperature_celsius: None,
            power_watts: None,
            condition: GpuCondition::default(),
            processes: Vec::new(),
        }
    }
}

/// A process that holds memory on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuProcess {
    /// Its pid, in the host's pid namespace (the driver knows no other).
    pub pid: u32,
    /// What it holds, in bytes; `None` where the driver does not say (WSL, MIG).
    pub memory_bytes: Option<u64>,
    /// Whether it belongs to the vLLM that we launched.
    pub ours: bool,
}

impl GpuProcess {
    /// A process of others that holds nobody knows how much.
    pub fn new(pid: u32) -> Self {
        Self { pid, memory_bytes: None, ours: false }
    }
}

/// How GPUs are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuRules {
    /// What is done about Xid errors.
    pub xids: XidPolicy,
    /// Which GPUs vLLM uses, where it cannot be seen.
    pub devices: Devices,
}

impl GpuRules {
    /// Both.
    pub fn new(xids: XidPolicy, devices: Devices) -> Self {
        Self { xids, devices }
    }
}

/// A fault that the driver has told of by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverFault {
    /// Its number among those that were told, from 1.
    pub number: u64,
    /// The GPU's place in the driver's order.
    pub index: u32,
    /// The GPU's identity; empty if it has never said.
    pub uuid: String,
    /// The kind of fault, by NVIDIA's catalogue of Xid errors.
    pub xid: u32,
}

/// The latest faults that the driver has told of. Each has a number, so that whoever looks now and then
/// misses none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverFaults {
    told: u64,
    latest: VecDeque<DriverFault>,
}

impl DriverFaults {
    /// How many are kept. A GPU that fails writes a few, and some applications one for each of their
    /// threads.
    const KEPT: usize = 256;

    /// One more.
    pub fn tell(&mut self, index: u32, uuid: impl Into<String>, xid: u32) {
        self.told += 1;
        if self.latest.len() == Self::KEPT {
            self.latest.pop_front();
        }
        let number = self.told;
        self.latest.push_back(DriverFault { number, index, uuid: uuid.into(), xid });
    }

    /// Those after the one of this number, as far as they are kept, the earliest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &DriverFault> {
        self.latest.iter().filter(move |fault| fault.number > number)
    }

    /// How many have been told.
    pub fn told(&self) -> u64 {
        self.told
    }
}
