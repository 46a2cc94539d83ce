//! What can be shown without a driver: the thread, the channel, the reasons and the merging.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc;

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use tokio::time::timeout;

use super::nvml::{explain, merge};
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
