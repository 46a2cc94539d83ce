//! What can be shown without a driver: the thread, the channel, the reasons and the merging.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use tempfile::TempDir;
use tokio::time::timeout;

use super::nvml::{explain, merge, number};
use super::*;
use crate::domain::gpu::{Gpu, GpuProcess, GpuSnapshot};

/// Long enough that only a wake-up, never the next look, ends a wait.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_library_that_does_not_exist_is_named_as_the_reason() {
    let library = PathBuf::from("/nonexistent/libnvidia-ml.so.1");
    let source = GpuSampler::nvidia(HOUR, Some(library), Arc::new(|_| false));
    let mut readings = source.readings();

    ended(&mut readings).await;

    let GpuReading::Unavailable(reason) = readings.borrow().clone() else {
        panic!("expected no NVML, saw {readings:?}");
    };
    assert!(reason.contains("no NVIDIA driver"), "{reason}");
    assert!(reason.contains("/nonexistent/libnvidia-ml.so.1"), "{reason}");
}

#[tokio::test]
async fn where_neither_vendor_has_a_gpu_one_sentence_says_so() {
    let root = tempfile::tempdir().unwrap();

    let reason = reason_of(any_below(root.path())).await;

    assert!(
        reason.starts_with("no NVIDIA driver found (/nonexistent/libnvidia-ml.so.1: "),
        "{reason}"
    );
    assert!(reason.contains("), and no AMD GPU in "), "{reason}");
    assert!(reason.ends_with("/sys/class/drm"), "{reason}");
}

#[tokio::test]
async fn without_a_driver_of_nvidia_amds_gpus_are_looked_at() {
    let root = with_a_gpu_of_amd();
    let amd = GpuSampler::amd(HOUR, root.path().to_path_buf(), Arc::new(|_| false));

    for source in [any_below(root.path()), amd] {
        let mut readings = source.readings();
        let seen = in_time(readings.wait_for(|look| *look != GpuReading::Pending)).await;

        let GpuReading::Seen(snapshot) = seen.unwrap().clone() else {
            panic!("expected a GPU of AMD, saw {readings:?}");
        };
        assert_eq!(snapshot.gpus.first().map(|gpu| gpu.uuid.as_str()), Some("0000:0c:00.0"));
    }
}

#[tokio::test]
async fn a_library_of_nvidia_that_does_not_start_is_the_reason_whatever_amd_has() {
    let root = with_a_gpu_of_amd();
    // It is there, and without the functions of NVML.
    let library = Some(PathBuf::from("libc.so.6"));
    let source = GpuSampler::any_of(HOUR, library, root.path().to_path_buf(), Arc::new(|_| false));

    let reason = reason_of(source).await;

    assert!(reason.starts_with("the library is no NVML"), "{reason}");
    assert!(!reason.contains("AMD"), "{reason}");
}

#[tokio::test]
async fn a_source_without_gpus_says_why_from_the_start() {
    let source = NoGpus { reason: "gpu.monitor is off".to_owned() };
    let mut readings = source.readings();

    assert_eq!(*readings.borrow(), GpuReading::Unavailable("gpu.monitor is off".to_owned()));
    ended(&mut readings).await;
}

#[tokio::test]
async fn a_source_looks_again_after_each_pause() {
    let mut index = 0;
    let source = GpuSampler::begin(Duration::from_millis(1), move || {
        Ok(move || {
            index += 1;
            GpuSnapshot { gpus: vec![silent_gpu(index)] }
        })
    });
    let mut readings = source.readings();

    let third = readings.wait_for(|look| match look {
        GpuReading::Seen(snapshot) => snapshot.gpus.iter().any(|gpu| gpu.index >= 3),
        GpuReading::Pending | GpuReading::Unavailable(_) => false,
    });

    in_time(third).await.unwrap();
}

#[tokio::test]
async fn dropping_the_source_ends_the_thread_in_the_middle_of_a_pause() {
    let source = GpuSampler::begin(HOUR, || Ok(GpuSnapshot::default));
    let mut readings = source.readings();
    in_time(readings.wait_for(|look| matches!(look, GpuReading::Seen(_)))).await.unwrap();

    drop(source);

    ended(&mut readings).await;
}

#[tokio::test]
async fn dropping_the_source_does_not_wait_for_a_call_that_hangs() {
    let (release, hang) = mpsc::channel::<Infallible>();
    let source = GpuSampler::begin(HOUR, move || {
        Ok(move || {
            assert!(hang.recv().is_err());
            GpuSnapshot::default()
        })
    });
    let mut readings = source.readings();

    drop(source);
    assert!(readings.has_changed().is_ok(), "the thread still hangs in its call");

    drop(release);
    ended(&mut readings).await;
}

#[test]
fn the_reason_tells_what_to_do_about_a_driver_that_is_there() {
    let cases = [
        (NvmlError::DriverNotLoaded, "modprobe nvidia"),
        (NvmlError::LibRmVersionMismatch, "reboot"),
        (NvmlError::NoPermission, "/dev/nvidia"),
        (NvmlError::FailedToLoadSymbol("undefined symbol: nvmlInit_v2".to_owned()), "nvmlInit_v2"),
        (NvmlError::UnexpectedVariant(77), "77"),
    ];
    for (error, words) in cases {
        let reason = explain(&error);
        assert!(reason.contains(words), "{error:?}: {reason}");
    }
}

#[test]
fn applications_count_alike_gpus_as_the_driver_does_without_those_that_are_denied() {
    let gpu = |index, name| Gpu::new(index, format!("GPU-{index}"), name);
    let mut alike = [gpu(1, "H100"), gpu(3, "H100")];
    number(&mut alike);
    assert_eq!(alike.map(|gpu| gpu.ordinal), [Some(0), Some(1)]);
    let mut mixed = [gpu(0, "L4"), gpu(1, "H100")];
    number(&mut mixed);
    assert_eq!(mixed.map(|gpu| gpu.ordinal), [None, None]);
}

#[test]
fn a_process_on_both_lists_is_counted_once() {
    let compute = vec![process(30, UsedGpuMemory::Used(700)), process(20, UsedGpuMemory::Used(1))];
    let graphics = vec![process(30, UsedGpuMemory::Used(700)), process(10, UsedGpuMemory::Used(2))];

    let merged = merge(compute, graphics, &|pid| pid == 30);

    let expected = [
        GpuProcess { pid: 10, memory_bytes: Some(2), ours: false },
        GpuProcess { pid: 20, memory_bytes: Some(1), ours: false },
        GpuProcess { pid: 30, memory_bytes: Some(700), ours: true },
    ];
    assert_eq!(merged, expected);
}

#[test]
fn memory_that_the_driver_does_not_tell_is_unknown_unless_the_other_list_tells() {
    let compute =
        vec![process(1, UsedGpuMemory::Unavailable), process(2, UsedGpuMemory::Unavailable)];
    let graphics = vec![process(2, UsedGpuMemory::Used(0))];

    let merged = merge(compute, graphics, &|_| true);

    let memory: Vec<_> = merged.iter().map(|process| process.memory_bytes).collect();
    assert_eq!(memory, [None, Some(0)]);
}

/// Looks for whatever GPUs there are on a machine without a driver of NVIDIA's.
fn any_below(root: &Path) -> GpuSampler {
    let library = PathBuf::from("/nonexistent/libnvidia-ml.so.1");
    GpuSampler::any_of(HOUR, Some(library), root.to_path_buf(), Arc::new(|_| false))
}

/// A root directory whose sysfs shows one.
fn with_a_gpu_of_amd() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let device = root.path().join("sys/devices/0000:0c:00.0");
    let card = root.path().join("sys/class/drm/card0");
    fs::create_dir_all(&device).unwrap();
    fs::create_dir_all(&card).unwrap();
    symlink(&device, card.join("device")).unwrap();
    fs::write(device.join("vendor"), "0x1002\n").unwrap();
    fs::write(device.join("mem_info_vram_total"), "1000\n").unwrap();
    root
}

/// Why it has nothing to look at.
async fn reason_of(source: GpuSampler) -> String {
    let mut readings = source.readings();
    ended(&mut readings).await;
    let GpuReading::Unavailable(reason) = readings.borrow().clone() else {
        panic!("expected no GPUs, saw {readings:?}");
    };
    reason
}

/// Resolves when the thread has let go of its channel.
async fn ended(readings: &mut watch::Receiver<GpuReading>) {
    in_time(async { while readings.changed().await.is_ok() {} }).await;
}

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), wait).await.expect("nothing came within 10 s")
}

fn silent_gpu(index: u32) -> Gpu {
    Gpu::new(index, "", "")
}

fn process(pid: u32, used_gpu_memory: UsedGpuMemory) -> ProcessInfo {
    ProcessInfo { pid, used_gpu_memory, gpu_instance_id: None, compute_instance_id: None }
}
