//! One look at the GPUs, for somebody who is not asynchronous.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::time::timeout;

use crate::adapters::vllm_packages::distributions;
use crate::domain::gpu::GpuSnapshot;
use crate::ports::{GpuReading, GpuSource};

/// A driver that does not answer hinders nobody.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Whether the vLLM among these packages is a build for CPUs, which has that in its version.
pub(super) fn is_for_cpus(packages: &Path) -> bool {
    distributions(packages).any(|(_, name)| name.contains("cpu"))
}

/// The first look of this source; `None` where there is nothing to look at.
pub(super) fn first_look(source: &dyn GpuSource) -> Option<GpuSnapshot> {
    let mut readings = source.readings();
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        let seen = runtime.block_on(async {
            let seen = readings.wait_for(|reading| *reading != GpuReading::Pending);
            timeout(SEEN_WITHIN, seen).await.ok()?.ok().map(|reading| reading.clone())
        })?;
        match seen {
            GpuReading::Seen(snapshot) => Some(snapshot),
            GpuReading::Pending | GpuReading::Unavailable(_) => None,
        }
    };
    // Whoever asks may be on a thread of a runtime, where no other can be entered.
    thread::Builder::new().name("vllm-memory".to_owned()).spawn(wait).ok()?.join().ok()?
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::adapters::gpu::{GpuSampler, NoGpus};

    #[test]
    fn a_build_for_cpus_is_known_by_its_version() {
        let packages = tempfile::tempdir().unwrap();
        let install = |name: &str| fs::create_dir(packages.path().join(name)).unwrap();
        install("vllm-0.32.0.dist-info");
        install("py_cpuinfo-9.0.0.dist-info");
        assert!(!is_for_cpus(packages.path()));
        install("vllm-0.32.0+cpu.dist-info");
        assert!(is_for_cpus(packages.path()));
    }

    #[tokio::test]
    async fn the_gpus_are_seen_once_from_within_a_runtime_too() {
        let none = NoGpus { reason: "off".to_owned() };
        assert_eq!(first_look(&none), None);
        let missing = Some("/nowhere/libnvidia-ml.so".into());
        let sampler = GpuSampler::nvidia(Duration::from_secs(1), missing, Arc::new(|_| false));
        assert_eq!(first_look(&sampler), None);
    }
}
