//! What is wrong with GPUs, spelled out.

use vllm_supervisor_actors::domain::gpu::{FindingKind, GpuAction, GpuFinding};

use super::*;

pub(super) fn finding(kind: FindingKind) -> GpuFinding {
    let mut finding = GpuFinding::new(1, "GPU-1", kind, GpuAction::Reboot, "it is unwell");
    finding.is_ours = true;
    finding
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
