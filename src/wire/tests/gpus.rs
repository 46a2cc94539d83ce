//! What is wrong with GPUs, spelled out.

use vllm_supervisor_actors::domain::gpu::{FindingKind, Gpu, GpuAction, GpuFinding, GpuProcess};

use super::*;

pub(super) fn finding(kind: FindingKind) -> GpuFinding {
    let mut finding = GpuFinding::new(1, "GPU-1", kind, GpuAction::Reboot, "it is unwell");
    finding.is_ours = true;
    finding
}

/// As it was while a GPU was in use.
pub(super) fn on_gpus(mut incident: Incident) -> Incident {
    let mut gpu = Gpu::new(0, "GPU-0", "NVIDIA H100");
    gpu.memory_used_bytes = Some(1 << 34);
    gpu.temperature_celsius = Some(91);
    let mut ours = GpuProcess::new(7);
    ours.memory_bytes = Some(1 << 33);
    ours.ours = true;
    gpu.processes = vec![ours, GpuProcess::new(8)];
    incident.gpus = vec![gpu];
    incident
}

#[test]
fn what_is_wrong_with_a_gpu_is_told_with_what_is_to_be_done() {
    let told =
        event(&seventh(GpuFindingRaised { finding: Box::new(finding(FindingKind::Xid(79))) }));
    assert_eq!(told["type"], "gpu_finding_raised");
    let remedy = told["finding"]["remedy"].as_str().unwrap();
    assert!(remedy.contains("reboot"), "{remedy}");
    let expected = json!({
        "gpu": 1, "uuid": "GPU-1", "kind": "xid", "number": 79, "action": "reboot",
        "summary": "it is unwell", "remedy": remedy, "ours": true,
    });
    assert_eq!(told["finding"], expected);
}
