//! How GPUs are written, and what is wrong with them.

use serde::{Deserialize, Serialize};
use vllm_supervisor_actors::domain::gpu::{FindingKind, Gpu, GpuAction, GpuFinding, GpuProcess};

#[derive(Serialize)]
pub(super) struct GpuBody<'a> {
    index: u32,
    uuid: &'a str,
    name: &'a str,
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
            uuid: &gpu.uuid,
            name: &gpu.name,
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

/// A GPU as it is read; a reading that is not there is not offered.
#[derive(Deserialize)]
pub(super) struct GpuRead {
    index: u32,
    uuid: String,
    name: String,
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
    memory_free_bytes: Option<u64>,
    utilization_percent: Option<u32>,
    temperature_celsius: Option<u32>,
    power_watts: Option<u32>,
    processes: Vec<GpuProcessBody>,
}

impl GpuRead {
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
#[derive(Serialize)]
pub(super) struct FindingBody<'a> {
    gpu: u32,
    uuid: &'a str,
    kind: &'static str,
    /// Of an Xid, or of what the driver asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    action: &'static str,
    summary: &'a str,
    remedy: String,
    ours: bool,
}

impl<'a> From<&'a GpuFinding> for FindingBody<'a> {
    fn from(finding: &'a GpuFinding) -> Self {
        Self {
            gpu: finding.index,
            uuid: &finding.uuid,
            kind: finding.kind.as_str(),
            number: finding.kind.number(),
            action: finding.action.as_str(),
            summary: &finding.summary,
            remedy: finding.remedy(),
            ours: finding.is_ours,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct FindingRead {
    gpu: u32,
    uuid: String,
    kind: String,
    number: Option<u32>,
    action: String,
    summary: String,
    ours: bool,
}

impl FindingRead {
    pub(super) fn read(self) -> Option<GpuFinding> {
        let kind = FindingKind::named(&self.kind, self.number)?;
        let action = GpuAction::ALL.into_iter().find(|it| it.as_str() == self.action)?;
        let mut finding = GpuFinding::new(self.gpu, self.uuid, kind, action, self.summary);
        finding.is_ours = self.ours;
        Some(finding)
    }
}
