//! What the GPUs were seen to be doing.

/// One look at all GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuSnapshot {
    /// The GPUs in the driver's order; empty where there are none.
    pub gpus: Vec<Gpu>,
}

/// One look at one GPU. A reading that the device does not offer is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Its place in the driver's order, from 0 (NVML's is PCI order).
    pub index: u32,
    /// The identity that survives a change of order.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory there is, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Share of the last sample period in which a kernel ran, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// Core temperature in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power draw in watts.
    pub power_watts: Option<u32>,
    /// Processes with memory on it.
    pub processes: Vec<GpuProcess>,
}

impl Gpu {
    /// A device that offers no reading.
    pub fn new(index: u32, uuid: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            index,
            uuid: uuid.into(),
            name: name.into(),
            memory_used_bytes: None,
            memory_total_bytes: None,
            utilization_percent: None,
            temperature_celsius: None,
            power_watts: None,
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
