//! Waits, before vLLM is started, until its GPUs have room for it: a driver takes a while to free what
//! a killed process had. If they do not come to have any, it says who holds their memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::adapters::listener;
use crate::adapters::proc_fs;
use crate::domain::cause::{Cause, Code};
use crate::domain::gpu::{Devices, GpuProcess, Shortage, gib, shortage};
use crate::ports::{GpuReading, GpuSource};

/// How long memory is waited for: a driver has freed that of a killed process within seconds.
const FREED_WITHIN: Duration = Duration::from_secs(10);

/// The same, where it was a vLLM of ours, which is dead by now.
const OURS_FREED_WITHIN: Duration = Duration::from_secs(20);

/// How long one look is waited for; a driver that does not answer hinders nobody.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// The pause between two looks while memory is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone, Debug)]
pub struct GpuRoom {
    source: Arc<dyn GpuSource>,
    share: f64,
}

impl GpuRoom {
    /// For a vLLM that takes this share (0 to 1) of all memory of its GPUs.
    pub fn new(source: Arc<dyn GpuSource>, share: f64) -> Self {
        Self { source, share }
    }

    /// Resolves when there is room on these GPUs, or nobody can say.
    ///
    /// # Errors
    ///
    /// VLM-006, after ten seconds without enough free memory, or twenty where a vLLM of ours has it.
    pub(in crate::adapters) async fn wait(&self, devices: &Devices) -> Result<(), Cause> {
        if *devices == Devices::Unknown {
            return Ok(());
        }
        let mut readings = self.source.readings();
        let begun = Instant::now();
        loop {
            let Some(short) = self.look(devices, &mut readings).await else { return Ok(()) };
            let is_ours = short.gpu.processes.iter().any(|process| process.ours);
            let patience = if is_ours { OURS_FREED_WITHIN } else { FREED_WITHIN };
            if begun.elapsed() >= patience {
                return Err(self.cause(&short));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a look that begins now says.
    async fn look(
        &self,
        devices: &Devices,
        readings: &mut watch::Receiver<GpuReading>,
    ) -> Option<Shortage> {
        readings.mark_unchanged();
        if matches!(*readings.borrow(), GpuReading::Unavailable(_)) {
            return None;
        }
        self.source.look_now();
        let end = Instant::now() + SEEN_WITHIN;
        timeout_at(end, readings.changed()).await.ok()?.ok()?;
        match &*readings.borrow_and_update() {
            GpuReading::Seen(snapshot) => shortage(snapshot, devices, self.share),
            GpuReading::Pending | GpuReading::Unavailable(_) => None,
        }
    }

    fn cause(&self, short: &Shortage) -> Cause {
        let Shortage { gpu, wanted_bytes, free_bytes, fitting_share } = short;
        let summary = format!(
            "GPU {} has {} free, and vLLM is to have {} of it (gpu.memory_utilization {}): {}",
            gpu.index,
            gib(*free_bytes),
            gib(*wanted_bytes),
            self.share,
            held(&gpu.processes),
        );
        let remedy = format!(
            "end what holds it, choose another GPU (`CUDA_VISIBLE_DEVICES`), or set \
             gpu.memory_utilization to {fitting_share:.2} or less; `nvidia-smi` shows who uses it"
        );
        Cause::new(Code::InsufficientGpuMemory, summary).with_remedy(remedy)
    }
}

/// `it is held by …`
fn held(processes: &[GpuProcess]) -> String {
    if processes.is_empty() {
        return "it is held by nobody who can be seen (a process of another container, or a driver \
                that has not freed it)"
            .to_owned();
    }
    let mut processes: Vec<&GpuProcess> = processes.iter().collect();
    processes.sort_by_key(|process| std::cmp::Reverse(process.memory_bytes));
    let named: Vec<String> = processes.iter().take(MOST_NAMED).map(|it| holder(it)).collect();
    let others = processes.len().saturating_sub(MOST_NAMED);
    let others = if others > 0 { format!(", and {others} others") } else { String::new() };
    format!("it is held by {}{others}", named.join(", "))
}

/// Holders that are named.
const MOST_NAMED: usize = 3;

fn holder(process: &GpuProcess) -> String {
    let held = process.memory_bytes.map_or_else(String::new, |bytes| format!(" ({})", gib(bytes)));
    let whose = if process.ours { ", left of a vLLM of this supervisor" } else { "" };
    // The driver knows the numbers of the first namespace alone.
    let who = if proc_fs::is_in_first_pid_namespace().unwrap_or(false) {
        listener::process(process.pid).to_string()
    } else {
        format!("a process with pid {} on the host", process.pid)
    };
    format!("{who}{held}{whose}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gpu::{Gpu, GpuSnapshot};
    use crate::testing::gpu::ScriptedGpus;

    const GIB: u64 = 1 << 30;

    fn snapshot(free: u64, processes: Vec<GpuProcess>) -> GpuSnapshot {
        let gpu = Gpu {
            memory_free_bytes: Some(free * GIB),
            memory_used_bytes: Some((80 - free) * GIB),
            processes,
            ..Gpu::new(0, "GPU-0", "NVIDIA H100")
        };
        GpuSnapshot { gpus: vec![gpu] }
    }

    fn scene() -> (Arc<ScriptedGpus>, GpuRoom) {
        let source = Arc::new(ScriptedGpus::every(Duration::from_secs(1)));
        let room = GpuRoom::new(Arc::clone(&source) as _, 0.9);
        (source, room)
    }

    /// Waits for room, while each look is answered with what this says.
    async fn wait(free: impl Fn(u32) -> GpuSnapshot) -> Result<(), Cause> {
        let (source, room) = scene();
        source.see(free(0));
        let mut looks = source.looks();
        let answering = async {
            while looks.changed().await.is_ok() {
                let asked = *looks.borrow_and_update();
                source.see(free(asked));
            }
        };
        tokio::select! {
            waited = room.wait(&Devices::First(1)) => waited,
            () = answering => panic!("the source lives as long as the room"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_room_nobody_waits() {
        let begun = Instant::now();
        let full_before = |asked| snapshot(if asked == 0 { 1 } else { 79 }, Vec::new());
        assert_eq!(wait(full_before).await, Ok(()));
        assert!(begun.elapsed() < LOOK_EVERY, "what was seen before does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_is_being_freed_is_waited_for() {
        let begun = Instant::now();
        let freed = |asked: u32| snapshot(u64::from(asked * 8).min(80), Vec::new());
        assert_eq!(wait(freed).await, Ok(()));
        assert!(begun.elapsed() >= LOOK_EVERY * 7, "there was room after nine looks");
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_it_is_named() {
        let pid = std::process::id();
        let holder = GpuProcess { memory_bytes: Some(60 * GIB), ..GpuProcess::new(pid) };
        let waited = wait(|_| snapshot(19, vec![holder.clone()])).await;
        let cause = waited.expect_err("there is no room");
        assert_eq!(cause.code, Code::InsufficientGpuMemory);
        for word in ["19.0 GiB free", "72.0 GiB", "60.0 GiB", &format!("pid {pid}")] {
            assert!(cause.summary.contains(word), "{cause}");
        }
        assert!(cause.remedy().contains("0.23 or less"), "{}", cause.remedy());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_look_does_not_hold_anybody_up() {
        let (source, room) = scene();
        let begun = Instant::now();
        assert_eq!(room.wait(&Devices::First(1)).await, Ok(()), "the driver hangs");
        assert!(begun.elapsed() <= SEEN_WITHIN);
        let begun = Instant::now();
        assert_eq!(room.wait(&Devices::Unknown).await, Ok(()));
        assert!(begun.elapsed().is_zero(), "there is nothing to look for");
        source.be_unavailable("no driver");
        assert_eq!(room.wait(&Devices::First(1)).await, Ok(()));
    }
}
