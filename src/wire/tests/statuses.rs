//! The status, with everything that it can tell and with nothing.

use vllm_supervisor_actors::domain::gpu::{Gpu, GpuProcess};
use vllm_supervisor_actors::domain::unit::{Activity, UnitStatus};

use super::*;

const BASE_URL: &str = "http://127.0.0.1:8000";

fn gpu() -> Gpu {
    let mut ours = GpuProcess::new(4243);
    ours.memory_bytes = Some(1 << 33);
    ours.ours = true;
    let mut gpu = silent_gpu();
    gpu.memory_used_bytes = Some(1 << 34);
    gpu.memory_total_bytes = Some(1 << 36);
    gpu.memory_free_bytes = Some(50_000_000_000);
    gpu.utilization_percent = Some(97);
    gpu.temperature_celsius = Some(61);
    gpu.power_watts = Some(640);
    gpu.processes = vec![ours, GpuProcess::new(99)];
    gpu
}

fn silent_gpu() -> Gpu {
    Gpu::new(1, "GPU-5a", "NVIDIA H100")
}

fn full() -> Snapshot {
    let mut snapshot = Snapshot::initial(model("org/model"), 3);
    snapshot.state = ServiceState::Running;
    snapshot.pid = Some(4242);
    snapshot.incarnation = Incarnation::new(3);
    snapshot.launch = Some(LaunchKind::Warm);
    snapshot.phases = Some(phases());
    snapshot.last_health_check = Some(HealthNote::passed(morning(), Duration::from_micros(2_500)));
    snapshot.restarts.in_window = 2;
    snapshot.restarts.reset_at = Some(morning() + Duration::from_millis(877));
    snapshot.restarts.total = 9;
    snapshot.gpus = GpuView::Seen(vec![gpu(), silent_gpu()]);
    snapshot.gpu_findings = vec![finding(FindingKind::Lost)];
    snapshot.last_error = Some(crash());
    snapshot.sequence = Sequence::new(40);
    snapshot.listed_models = vec!["org/model".to_owned()];
    snapshot
}

#[test]
fn a_status_with_everything_has_every_name_of_the_contract() {
    assert_eq!(
        status(&full(), BASE_URL),
        json!({
            "state": "running", "mode": "managed", "model": "org/model",
            "served_model_name": "org/model", "pid": 4242,
            "incarnation": 3, "uptime_seconds": null, "base_url": BASE_URL, "launch": "warm",
            "phases": [
                { "phase": "preparing", "duration_ms": 1 },
                { "phase": "importing", "duration_ms": 2 },
                { "phase": "compiling", "duration_ms": 3 },
                { "phase": "answering", "duration_ms": 4 },
            ],
            "last_health_check": {
                "at": "2026-11-23T07:00:00.123Z", "healthy": true, "latency_ms": 2.5, "error": null,
            },
            "restarts": {
                "in_window": 2, "cap": 3, "window_seconds": 60,
                "reset_at": "2026-11-23T07:00:01.000Z", "total": 9,
            },
            "gpus": [
                {
                    "index": 1, "uuid": "GPU-5a", "name": "NVIDIA H100",
                    "memory_used_bytes": 17_179_869_184_u64,
                    "memory_total_bytes": 68_719_476_736_u64, "memory_free_bytes": 50_000_000_000_u64,
                    "utilization_percent": 97, "temperature_celsius": 61, "power_watts": 640,
                    "processes": [
                        { "pid": 4243, "memory_bytes": 8_589_934_592_u64, "ours": true },
                        { "pid": 99, "memory_bytes": null, "ours": false },
                    ],
                },
                {
                    "index": 1, "uuid": "GPU-5a", "name": "NVIDIA H100",
                    "memory_used_bytes": null, "memory_total_bytes": null, "memory_free_bytes": null,
                    "utilization_percent": null, "temperature_celsius": null, "power_watts": null,
                    "processes": [],
                },
            ],
            "gpu_findings": [{
                "gpu": 1, "uuid": "GPU-1", "kind": "lost", "action": "reboot",
                "summary": "it is unwell", "remedy": finding(FindingKind::Lost).remedy(),
                "ours": true,
            }],
            "last_error": {
                "code": "VLM-016", "summary": "the engine died by SIGSEGV",
                "remedy": Code::EngineDied.remedy(), "class": "transient",
                "line_number": null, "line": null, "log": null,
                "last_lines": ["a line", "the \"last\"\nline"],
            },
        })
    );
}

#[test]
fn a_unit_is_told_of_in_the_words_of_its_manager() {
    let mut snapshot = full();
    let mut unit = UnitStatus::inactive("vllm.service");
    unit.active = Activity::Active;
    unit.sub = "running".to_owned();
    unit.main_pid = Some(4242);
    unit.restarts = 2;
    snapshot.unit = Some(unit);
    assert_eq!(
        status(&snapshot, BASE_URL)["unit"],
        json!({
            "name": "vllm.service", "active_state": "active", "sub_state": "running",
            "result": "success", "main_pid": 4242, "restarts": 2,
        })
    );
}

#[test]
fn a_status_with_nothing_keeps_every_name() {
    assert_eq!(
        status(&Snapshot::initial(model("org/model"), 3), BASE_URL),
        json!({
            "state": "unknown", "mode": "managed", "model": "org/model",
            "served_model_name": null, "pid": null,
            "incarnation": 0, "uptime_seconds": null, "base_url": BASE_URL, "launch": null,
            "phases": null,
            "last_health_check": null,
            "restarts": {
                "in_window": 0, "cap": 3, "window_seconds": 60, "reset_at": null, "total": 0,
            },
            "gpus": [], "gpu_findings": [], "last_error": null,
        })
    );
}

fn uptime(running_since: SystemTime) -> u64 {
    let mut snapshot = full();
    snapshot.running_since = Some(running_since);
    status(&snapshot, BASE_URL)["uptime_seconds"].as_u64().unwrap()
}

#[test]
fn uptime_counts_seconds_since_the_service_is_healthy() {
    let hour = Duration::from_secs(3600);
    // The upper end leaves room for a machine that is slow or adjusts its clock.
    assert!((3600..7200).contains(&uptime(SystemTime::now() - hour)));
}

#[test]
fn a_clock_that_was_set_back_makes_no_negative_uptime() {
    assert_eq!(uptime(SystemTime::now() + Duration::from_secs(3600)), 0);
}

#[test]
fn a_check_that_failed_tells_why() {
    let mut snapshot = full();
    snapshot.last_health_check = Some(HealthNote::failed(morning(), "HTTP 503"));
    assert_eq!(
        status(&snapshot, BASE_URL)["last_health_check"],
        json!({
            "at": "2026-11-23T07:00:00.123Z", "healthy": false, "latency_ms": null,
            "error": "HTTP 503",
        })
    );
}

#[test]
fn every_mode_and_every_kind_of_launch_has_its_name() {
    use crate::LifecycleMode::{External, Managed, Monitored};
    assert_eq!(
        [Managed, Monitored, External].map(crate::LifecycleMode::as_str),
        ["managed", "monitored", "external"]
    );
    assert_eq!(
        [LaunchKind::Cold, LaunchKind::Warm, LaunchKind::Adopted].map(LaunchKind::as_str),
        ["cold", "warm", "adopted"]
    );
}

#[test]
fn gpus_that_no_longer_answer_are_shown_as_last_seen() {
    let mut snapshot = full();
    snapshot.gpus = GpuView::Stalled(vec![gpu()]);
    assert_eq!(status(&snapshot, BASE_URL)["gpus"][0]["uuid"], "GPU-5a");
    snapshot.gpus = GpuView::Unavailable("no driver".to_owned());
    assert_eq!(status(&snapshot, BASE_URL)["gpus"], json!([]));
}
