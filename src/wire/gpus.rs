//! How GPUs are written, and what is wrong with them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use vllm_supervisor_actors::domain::gpu::{FindingKind, Gpu, GpuAction, GpuFinding, GpuProcess};

/// A GPU; a reading that is not there is not offered.
#[derive(Deserialize, Serialize)]
pub(super) struct GpuBody<'a> {
    index: u32,
    uuid: Cow<'a, str>,
    name: Cow<'a, str>,
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
    memory_free_bytes: Option<u64>,
    utilization_percent: Option<u32>,
    temperature_celsius: Option<u32>,
    power_watts: Option<u32>,
    processes: Vec<GpuProcessBody>,
}

#[derive(Deserialize, Serialize)]
struct GpuProcessBody {
    pid: u32,
    memory_bytes: Option<u64>,
    ours: bool,
}

impl<'a> From<&'a Gpu> for GpuBody<'a> {
    fn from(gpu: &'a Gpu) -> Self {
        let process = |process: &GpuProcess| GpuProcessBody {
            pid: process.pid,
            memory_bytes: process.memory_bytes,
            ours: process.ours,
        };
        Self {
            index: gpu.index,
            uuid: gpu.uuid.as_str().into(),
            name: gpu.name.as_str().into(),
            memory_used_bytes: gpu.memory_used_bytes,
            memory_total_bytes: gpu.memory_total_bytes,
            memory_free_bytes: gpu.memory_free_bytes,
            utilization_percent: gpu.utilization_percent,
            temperature_celsius: gpu.temperature_celsius,
            power_watts: gpu.power_watts,
            processes: gpu.processes.iter().map(process).collect(),
        }
    }
}

impl GpuBody<'_> {
    pub(super) fn read(self) -> Gpu {
        let mut gpu = Gpu::new(self.index, self.uuid, self.name);
        gpu.memory_used_bytes = self.memory_used_bytes;
        gpu.memory_total_bytes = self.memory_total_bytes;
        gpu.memory_free_bytes = self.memory_free_bytes;
        gpu.utilization_percent = self.utilization_percent;
        gpu.temperature_celsius = self.temperature_celsius;
        gpu.power_watts = self.power_watts;
        let process = |read: GpuProcessBody| {
            let mut process = GpuProcess::new(read.pid);
            process.memory_bytes = read.memory_bytes;
            process.ours = read.ours;
            process
        };
        gpu.processes = self.processes.into_iter().map(process).collect();
        gpu
    }
}

/// Something that is wrong with a GPU.
#[derive(Deserialize, Serialize)]
pub(super) struct FindingBody<'a> {
    gpu: u32,
    uuid: Cow<'a, str>,
    kind: Cow<'a, str>,
    /// Of an Xid, or of what the driver asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    action: Cow<'a, str>,
    summary: Cow<'a, str>,
    /// For people: it follows from the rest.
    #[serde(skip_deserializing)]
    remedy: String,
    ours: bool,
}

impl<'a> From<&'a GpuFinding> for FindingBody<'a> {
    fn from(finding: &'a GpuFinding) -> Self {
        Self {
            gpu: finding.index,
            uuid: finding.uuid.as_str().into(),
            kind: finding.kind.as_str().into(),
            number: finding.kind.number(),
            action: finding.action.as_str().into(),
            summary: finding.summary.as_str().into(),
            remedy: finding.remedy(),
            ours: finding.is_ours,
        }
    }
}

impl FindingBody<'_> {
    pub(super) fn read(self) -> Option<GpuFinding> {
        let kind = FindingKind::named(&self.kind, self.number)?;
        let action = GpuAction::ALL.into_iter().find(|it| it.as_str() == self.action)?;
        let mut finding = GpuFinding::new(self.gpu, self.uuid, kind, action, self.summary);
        finding.is_ours = self.ours;
        Some(finding)
    }
}
