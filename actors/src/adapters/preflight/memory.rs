//! One look at the GPUs, for somebody who is not asynchronous.

use std::thread;
use std::time::Duration;

use tokio::time::timeout;

use crate::domain::gpu::GpuSnapshot;
use crate::ports::{GpuReading, GpuSource};

/// A driver that does not answer hinders nobody.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

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
