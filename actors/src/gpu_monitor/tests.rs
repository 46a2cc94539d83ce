//! The monitor between a scripted source and a root that only writes down what it is told.

use ractor::{Actor, ActorStatus};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::domain::gpu::{Devices, FindingKind, Gpu, GpuAction, GpuSnapshot, XidPolicy};
use crate::testing::gpu::{MemoryQuarantine, ScriptedGpus};

/// The timers tick in milliseconds.
const TICK: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn what_the_source_sees_reaches_the_root() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;

    for gpus in [0, 2, 1] {
        scene.source.see(snapshot(gpus));
        assert_eq!(scene.next_report().await, GpuReport::Sampled(snapshot(gpus)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_from_before_the_monitor_began_reaches_the_root() {
    let source = ScriptedGpus::every(Duration::from_secs(1));
    source.see(snapshot(1));
    let mut scene = Scene::with(source).await;

    assert_eq!(scene.next_report().await, GpuReport::Sampled(snapshot(1)));
}

#[tokio::test(start_paused = true)]
async fn a_source_without_gpus_is_reported_once_and_never_as_stalled() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;

    scene.source.be_unavailable("no driver");

    let reason = "no driver".to_owned();
    assert_eq!(scene.next_report().await, GpuReport::Unavailable { reason });
    scene.hears_nothing_for(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_looked_is_stalled_after_ten_seconds() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.stalls_after(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_stalled_after_three_missed_looks() {
    let mut scene = Scene::begin(Duration::from_secs(7)).await;
    scene.stalls_after(Duration::from_secs(21)).await;
}

#[tokio::test(start_paused = true)]
async fn every_look_begins_the_silence_anew() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.hears_nothing_for(Duration::from_secs(9)).await;

    scene.source.see(snapshot(1));
    assert_eq!(scene.next_report().await, GpuReport::Sampled(snapshot(1)));

    scene.stalls_after(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lasting_silence_is_reported_again_with_its_whole_length() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.stalls_after(Duration::from_secs(10)).await;

    let GpuReport::Stalled { silent_for } = scene.next_report().await else {
        panic!("expected to hear of the silence again");
    };
    assert!(silent_for >= Duration::from_secs(20), "{silent_for:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_wakes_from_its_silence_is_heard_again() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.stalls_after(Duration::from_secs(10)).await;

    scene.source.see(snapshot(1));
    assert_eq!(scene.next_report().await, GpuReport::Sampled(snapshot(1)));

    scene.stalls_after(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_was_noticed_too_late_is_not_reported() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.source.see(snapshot(1));
    assert_eq!(scene.next_report().await, GpuReport::Sampled(snapshot(1)));

    tell(&scene.monitor, GpuMonitorMessage::SilenceDue);

    scene.stalls_after(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_noticed_after_the_source_gave_up_is_not_reported() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    scene.source.be_unavailable("no driver");
    let reason = "no driver".to_owned();
    assert_eq!(scene.next_report().await, GpuReport::Unavailable { reason });

    tell(&scene.monitor, GpuMonitorMessage::SilenceDue);

    scene.hears_nothing_for(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn the_monitor_ends_with_its_root_and_lets_go_of_the_source() {
    let scene = Scene::begin(Duration::from_secs(1)).await;

    scene.root.stop(None);

    in_time(scene.monitor_ended).await.unwrap();
    in_time(scene.source.deserted()).await;
    assert_eq!(scene.monitor.get_status(), ActorStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_told_and_kept_until_the_gpu_is_well() {
    let mut scene = Scene::begin(Duration::from_secs(1)).await;
    let saying = |action| {
        let mut gpu = gpu(0);
        gpu.condition.recovery_action = Some(action);
        GpuSnapshot { gpus: vec![gpu] }
    };
    scene.source.see(saying(0));
    assert_eq!(scene.next_report().await, GpuReport::Sampled(saying(0)));

    scene.source.fail(0, "GPU-0", 95);
    in_time(scene.source.was_asked_to_look()).await;
    scene.source.see(saying(1));

    assert_eq!(scene.next_report().await, GpuReport::Sampled(saying(1)));
    for kind in [FindingKind::RecoveryAction(1), FindingKind::Xid(95)] {
        let report = scene.next_report().await;
        let GpuReport::Found(FindingNews::Raised(finding)) = report else {
            panic!("expected a finding, heard {report:?}");
        };
        assert_eq!((finding.kind, finding.action), (kind, GpuAction::ResetGpu));
    }
    assert_eq!(scene.quarantine.kept().len(), 2);
    tokio::time::advance(Duration::from_secs(61)).await;
    scene.source.see(saying(0));
    in_time(scene.quarantine.is_empty()).await;
}

/// A monitor, its source, and all that its root hears.
struct Scene {
    source: Arc<ScriptedGpus>,
    quarantine: Arc<MemoryQuarantine>,
    root: ActorRef<GpuReport>,
    monitor: ActorRef<GpuMonitorMessage>,
    monitor_ended: JoinHandle<()>,
    heard: mpsc::UnboundedReceiver<GpuReport>,
}

impl Scene {
    async fn begin(interval: Duration) -> Self {
        Self::with(ScriptedGpus::every(interval)).await
    }

    async fn with(source: ScriptedGpus) -> Self {
        let source = Arc::new(source);
        let (hears, heard) = mpsc::unbounded_channel();
        let (root, _) = Actor::spawn(None, Listener, hears).await.unwrap();
        let quarantine = Arc::new(MemoryQuarantine::default());
        let args = GpuMonitorArgs {
            source: Arc::clone(&source) as _,
            quarantine: Arc::clone(&quarantine) as _,
            rules: GpuRules::new(XidPolicy::default(), Devices::First(1)),
            findings: Vec::new(),
            root: root.get_derived(),
        };
        let (monitor, monitor_ended) =
            Actor::spawn_linked(None, GpuMonitorActor, args, root.get_cell()).await.unwrap();
        Self { source, quarantine, root, monitor, monitor_ended, heard }
    }

    async fn next_report(&mut self) -> GpuReport {
        in_time(self.heard.recv()).await.expect("the root has ended")
    }

    async fn hears_nothing_for(&mut self, long: Duration) {
        let heard = timeout(long, self.heard.recv()).await;
        assert!(heard.is_err(), "heard {heard:?}");
    }

    /// The next report is of a silence, and comes after `limit` from now.
    async fn stalls_after(&mut self, limit: Duration) {
        let begun = Instant::now();
        let report = self.next_report().await;
        let GpuReport::Stalled { silent_for } = report else {
            panic!("expected to hear of a silence, heard {report:?}");
        };
        for age in [silent_for, begun.elapsed()] {
            assert!(age >= limit && age <= limit + TICK, "{age:?} instead of {limit:?}");
        }
    }
}

/// Writes down what it is told.
struct Listener;

impl Actor for Listener {
    type Msg = GpuReport;
    type State = mpsc::UnboundedSender<GpuReport>;
    type Arguments = mpsc::UnboundedSender<GpuReport>;

    async fn pre_start(
        &self,
        _: ActorRef<GpuReport>,
        hears: mpsc::UnboundedSender<GpuReport>,
    ) -> Result<mpsc::UnboundedSender<GpuReport>, ActorProcessingErr> {
        Ok(hears)
    }

    async fn handle(
        &self,
        _: ActorRef<GpuReport>,
        report: GpuReport,
        hears: &mut mpsc::UnboundedSender<GpuReport>,
    ) -> Result<(), ActorProcessingErr> {
        Ok(hears.send(report)?)
    }
}

/// Paused time runs as fast as everybody waits, so this is no wait but a verdict.
async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(3600), wait).await.expect("nothing came in an hour")
}

fn snapshot(gpus: u32) -> GpuSnapshot {
    GpuSnapshot { gpus: (0..gpus).map(gpu).collect() }
}

fn gpu(index: u32) -> Gpu {
    Gpu {
        memory_used_bytes: Some(1 << 30),
        memory_total_bytes: Some(80 << 30),
        utilization_percent: Some(50),
        temperature_celsius: Some(40),
        ..Gpu::new(index, format!("GPU-{index}"), "NVIDIA H100")
    }
}
