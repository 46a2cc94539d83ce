//! What a scenario says: `state.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A driver and its GPUs. The default is a driver without any.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct State {
    /// The driver's version.
    pub driver_version: String,
    /// The code that NVML cannot be opened with, such as `DRIVER_NOT_LOADED`.
    pub init_error: Option<String>,
    /// The codes that functions fail with, by function (or `*`), then by the GPU's index (or `*`). A
    /// code is nvml.h's, without `NVML_ERROR_`.
    pub errors: BTreeMap<String, BTreeMap<String, String>>,
    /// The functions that do not return for as long as they are named here.
    pub hanging: Vec<String>,
    /// The GPUs, by index.
    pub gpus: Vec<GpuState>,
    /// The faults that the driver tells of: those that are added while somebody listens.
    pub xids: Vec<XidState>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            // With the numbering of fields from 13.0 on.
            driver_version: "580.95.05".to_owned(),
            init_error: None,
            errors: BTreeMap::new(),
            hanging: Vec::new(),
            gpus: Vec::new(),
            xids: Vec::new(),
        }
    }
}

/// A GPU. What is `None` it does not support.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GpuState {
    /// Its identity.
    pub uuid: String,
    /// The product.
    pub name: String,
    /// All memory, in bytes.
    pub memory_total: Option<u64>,
    /// What the driver keeps of it, in bytes.
    pub memory_reserved: u64,
    /// What is in use besides what processes have, in bytes.
    pub memory_used: u64,
    /// In percent.
    pub utilization: Option<u32>,
    /// In degrees Celsius.
    pub temperature: Option<u32>,
    /// In milliwatts.
    pub power_mw: Option<u32>,
    /// nvml.h's `nvmlClocksEventReason…`, as bits.
    pub throttle_reasons: Option<u64>,
    /// Memory errors that could not be corrected, since the driver was loaded.
    pub uncorrectable_errors: Option<u64>,
    /// Field 230.
    pub recovery_action: Option<u32>,
    /// Field 144.
    pub remap_pending: Option<bool>,
    /// Field 145.
    pub remap_failed: Option<bool>,
    /// Whether it is divided.
    pub mig: Option<bool>,
    /// Processes that need not be alive.
    pub processes: Vec<ProcessState>,
}

impl GpuState {
    /// An idle H100, with the identity `GPU-<index>`.
    pub fn h100(index: u32) -> Self {
        Self {
            uuid: format!("GPU-{index}"),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_total: Some(80 << 30),
            memory_reserved: 1 << 30,
            utilization: Some(0),
            temperature: Some(40),
            power_mw: Some(70_000),
            throttle_reasons: Some(1),
            uncorrectable_errors: Some(0),
            recovery_action: Some(0),
            remap_pending: Some(false),
            remap_failed: Some(false),
            mig: Some(false),
            ..Self::default()
        }
    }
}

/// A process with memory on a GPU.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct ProcessState {
    /// Its pid.
    pub pid: u32,
    /// What it has, in bytes.
    pub bytes: u64,
}

impl ProcessState {
    /// A process that has this many bytes.
    pub fn new(pid: u32, bytes: u64) -> Self {
        Self { pid, bytes }
    }
}

/// A fault that the driver tells of.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct XidState {
    /// The GPU's index.
    pub gpu: u32,
    /// Its number in NVIDIA's catalogue.
    pub xid: u32,
}

impl XidState {
    /// This fault of this GPU.
    pub fn new(gpu: u32, xid: u32) -> Self {
        Self { gpu, xid }
    }
}
