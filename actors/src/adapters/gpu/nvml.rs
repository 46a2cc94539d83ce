//! NVIDIA's GPUs, by NVML.

use std::collections::BTreeMap;
use std::path::Path;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
};
use nvml_wrapper::{Device, Nvml};
use tracing::debug;

use super::Ours;
use crate::domain::gpu::{Gpu, GpuCondition, GpuProcess, GpuSnapshot, Reachability, Slowdown};

/// An NVML that is open; dropping it shuts NVML down.
pub(super) struct Nvidia {
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

impl Nvidia {
    /// Opens NVML: the driver's, or this library.
    ///
    /// # Errors
    ///
    /// Why it cannot be had; [`explain`] puts it in words.
    pub(super) fn open(library: Option<&Path>, ours: Ours) -> Result<Self, NvmlError> {
        let nvml = open(library)?;
        Ok(Self { nvml, ours, count: 0, identities: BTreeMap::new() })
    }

    pub(super) fn look(&mut self) -> GpuSnapshot {
        match self.nvml.device_count() {
            Ok(count) => self.count = count,
            Err(error) => debug!(%error, "the driver does not count its GPUs"),
        }
        let mut gpus: Vec<Gpu> = (0..self.count).filter_map(|index| self.look_at(index)).collect();
        number(&mut gpus);
        GpuSnapshot { gpus }
    }

    /// One GPU, with what can be known of it; `None` for one that is not ours to look at.
    fn look_at(&mut self, index: u32) -> Option<Gpu> {
        let device = self.nvml.device_by_index(index);
        if matches!(device, Err(NvmlError::NoPermission)) && !self.identities.contains_key(&index) {
            // Counted all the same, for example in a container that was given other GPUs.
            return None;
        }
        // A handle is given of some GPUs that are lost: they are asked for something too.
        let memory = match &device {
            Ok(device) => device.memory_info().map_err(|error| reachability(&error)),
            Err(error) => Err(reachability(error)),
        };
        let reachability = memory.as_ref().err().copied().unwrap_or_default();
        let memory = memory.ok();
        let device = device.as_ref().ok();
        let identity = self.identities.entry(index).or_default();
        identity.learn(device);
        Some(Gpu {
            index,
            ordinal: None,
            uuid: identity.uuid.clone(),
            name: identity.name.clone(),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            memory_free_bytes: memory.map(|memory| memory.free),
            utilization_percent: ask(device, Device::utilization_rates).map(|rates| rates.gpu),
            temperature_celsius: ask(device, |gpu| gpu.temperature(TemperatureSensor::Gpu)),
            power_watts: ask(device, Device::power_usage).map(|milliwatts| milliwatts / 1000),
            condition: condition(device, reachability),
            processes: merge(
                ask(device, Device::running_compute_processes).unwrap_or_default(),
                ask(device, Device::running_graphics_processes).unwrap_or_default(),
                &*self.ours,
            ),
        })
    }
}

/// CUDA counts those that it may use, in PCI's order where all are alike, and else with the fastest
/// before the others (CUDA programming guide, `CUDA_DEVICE_ORDER`).
pub(super) fn number(gpus: &mut [Gpu]) {
    // One that is lost may not have said what it is.
    let mut names = gpus.iter().map(|gpu| &gpu.name).filter(|name| !name.is_empty());
    let first = names.next().cloned();
    let are_alike = names.all(|name| Some(name) == first.as_ref());
    for (ordinal, gpu) in (0..).zip(gpus) {
        gpu.ordinal = are_alike.then_some(ordinal);
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

/// Opens NVML: the driver's, or this library.
pub(super) fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(path.as_os_str());
    }
    builder.init()
}

/// What an error says of whether a GPU answers.
fn reachability(error: &NvmlError) -> Reachability {
    match error {
        // A device that has the memory of its host has none of its own to tell of.
        NvmlError::NotSupported => Reachability::Answers,
        NvmlError::GpuLost => Reachability::Lost,
        NvmlError::ResetRequired => Reachability::NeedsReset,
        error => {
            debug!(%error, "a GPU does not answer");
            Reachability::Unknown
        }
    }
}

fn condition(device: Option<&Device<'_>>, reachability: Reachability) -> GpuCondition {
    let [recovery_action, pending, failed] = fields(
        device,
        [
            NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
            NVML_FI_DEV_REMAPPED_PENDING,
            NVML_FI_DEV_REMAPPED_FAILURE,
        ],
    );
    let uncorrected =
        |gpu: &Device<'_>| gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    GpuCondition {
        reachability,
        recovery_action: recovery_action.and_then(|action| u32::try_from(action).ok()),
        uncorrectable_errors: ask(device, uncorrected),
        row_remap_pending: pending.map(|rows| rows > 0),
        row_remap_failed: failed.map(|rows| rows > 0),
        slowdown: ask(device, Device::current_throttle_reasons).and_then(slowdown),
        is_partitioned: ask(device, Device::mig_mode).map(|mode| mode.current != MIG_DISABLED),
    }
}

/// nvml.h, `NVML_DEVICE_MIG_DISABLE`.
const MIG_DISABLED: u32 = 0;

/// Readings that NVML has no function for, by their numbers, all with one call.
fn fields<const N: usize>(device: Option<&Device<'_>>, ids: [u32; N]) -> [Option<u64>; N] {
    let asked = ids.map(FieldId);
    let values = ask(device, |gpu| gpu.field_values_for(&asked)).unwrap_or_default();
    let mut values = values.into_iter();
    ids.map(|_| match values.next()?.ok()?.value.ok()? {
        SampleValue::U32(value) => Some(u64::from(value)),
        SampleValue::U64(value) => Some(value),
        SampleValue::I64(value) => u64::try_from(value).ok(),
        SampleValue::F64(_) => None,
    })
}

/// Being at the limit of power is how a busy GPU runs, and no slowdown.
fn slowdown(reasons: ThrottleReasons) -> Option<Slowdown> {
    let thermal = ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::SW_THERMAL_SLOWDOWN;
    if reasons.intersects(thermal) {
        Some(Slowdown::Thermal)
    } else if reasons.contains(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN) {
        Some(Slowdown::PowerBrake)
    } else {
        None
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
pub(super) fn merge(
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
pub(super) fn explain(error: &NvmlError) -> String {
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
