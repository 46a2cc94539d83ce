//! The actor that watches the GPUs.
//!
//! The source reads on threads of its own; this actor passes on what it sees, tells what is wrong with
//! them (`domain/gpu/watch.rs`) and keeps which of them cannot be used. It says so when nothing comes any
//! more: an NVML call can block for ever in a driver that hangs. vLLM is never judged by that.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::time::Instant;

use crate::domain::gpu::{DriverFaults, FindingNews, GpuFinding, GpuRules, GpuWatch};
use crate::domain::report::GpuReport;
use crate::ports::{GpuReading, GpuSource, Quarantine};
use crate::tell::{OwnedTask, report, tell, tell_after};

mod message;

pub use message::GpuMonitorMessage;

/// A source is silent when it has missed three readings, and at least this long.
const MIN_SILENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct GpuMonitorActor;

/// What a [`GpuMonitorActor`] is given.
#[derive(Debug)]
pub struct GpuMonitorArgs {
    /// Looks at the GPUs.
    pub source: Arc<dyn GpuSource>,
    /// Keeps which GPUs cannot be used.
    pub quarantine: Arc<dyn Quarantine>,
    /// How they are judged.
    pub rules: GpuRules,
    /// What is known to be wrong with them.
    pub findings: Vec<GpuFinding>,
    /// Where reports go.
    pub root: DerivedActorRef<GpuReport>,
}

/// The state of a [`GpuMonitorActor`].
#[derive(Debug)]
pub struct GpuMonitorState {
    source: Arc<dyn GpuSource>,
    quarantine: Arc<dyn Quarantine>,
    root: DerivedActorRef<GpuReport>,
    watch: GpuWatch,
    /// The origin of the clock that findings are timed by.
    origin: Instant,
    /// When the source last looked.
    last: Instant,
    /// Wait for the source.
    _listeners: [OwnedTask; 2],
    /// The timer of its silence; none once there is nothing to look at.
    silence: Option<OwnedTask>,
}

#[ractor::actor(message = GpuMonitorMessage, state = GpuMonitorState, arguments = GpuMonitorArgs)]
impl GpuMonitorActor {
    async fn pre_start(
        &self,
        myself: ActorRef<GpuMonitorMessage>,
        args: GpuMonitorArgs,
    ) -> Result<GpuMonitorState, ActorProcessingErr> {
        // Before the timer's start: a silence that is due is then never shorter than the limit.
        let last = Instant::now();
        let GpuMonitorArgs { source, quarantine, rules, findings, root } = args;
        let (mut faults, actor) = (source.faults(), myself.clone());
        // What was told before is told by what is known to be wrong.
        let heard = faults.borrow_and_update().told();
        let of_faults = OwnedTask::begin(myself.get_cell(), async move {
            while faults.changed().await.is_ok() {
                let faults = faults.borrow_and_update().clone();
                tell(&actor, GpuMonitorMessage::Told { faults });
            }
        });
        let (mut readings, actor) = (source.readings(), myself.clone());
        let of_looks = OwnedTask::begin(myself.get_cell(), async move {
            loop {
                let look = readings.borrow_and_update().clone();
                tell(&actor, GpuMonitorMessage::Looked { look });
                if readings.changed().await.is_err() {
                    break;
                }
            }
        });
        let silence = Some(tell_after(&myself, limit(&*source), GpuMonitorMessage::SilenceDue));
        let watch = GpuWatch::resume(rules, findings, heard);
        let (origin, listeners) = (last, [of_faults, of_looks]);
        Ok(GpuMonitorState {
            source,
            quarantine,
            root,
            watch,
            origin,
            last,
            _listeners: listeners,
            silence,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<GpuMonitorMessage>,
        message: GpuMonitorMessage,
        state: &mut GpuMonitorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GpuMonitorMessage::Looked { look } => state.looked(&myself, look),
            GpuMonitorMessage::Told { faults } => state.told(&faults),
            GpuMonitorMessage::SilenceDue => state.silent(&myself),
        }
        Ok(())
    }
}

impl GpuMonitorState {
    fn looked(&mut self, myself: &ActorRef<GpuMonitorMessage>, look: GpuReading) {
        match look {
            GpuReading::Pending => {}
            GpuReading::Seen(snapshot) => {
                self.last = Instant::now();
                self.await_silence(myself);
                let news = self.watch.looked(&snapshot, self.origin.elapsed());
                // Who asks what is wrong finds the look that says so.
                report(&self.root, GpuReport::Sampled(snapshot));
                self.tell(news);
            }
            GpuReading::Unavailable(reason) => {
                self.silence = None;
                report(&self.root, GpuReport::Unavailable { reason });
            }
        }
    }

    fn told(&mut self, faults: &DriverFaults) {
        let news = self.watch.told(faults, self.origin.elapsed());
        if self.watch.is_undecided() {
            self.source.look_now();
        }
        self.tell(news);
    }

    fn tell(&self, news: Vec<FindingNews>) {
        let changes_use = |news: &FindingNews| match news {
            FindingNews::Raised(finding) | FindingNews::Cleared(finding) => finding.action.blocks(),
        };
        if news.iter().any(changes_use) {
            let blocking: Vec<GpuFinding> =
                self.watch.findings().filter(|it| it.action.blocks()).cloned().collect();
            self.quarantine.keep(&blocking);
        }
        for one in news {
            report(&self.root, GpuReport::Found(one));
        }
    }

    /// The message may have waited behind a look, which made it untrue.
    fn silent(&mut self, myself: &ActorRef<GpuMonitorMessage>) {
        if self.silence.is_none() {
            return;
        }
        self.await_silence(myself);
        let silent_for = self.last.elapsed();
        if silent_for >= limit(&*self.source) {
            report(&self.root, GpuReport::Stalled { silent_for });
            let news = self.watch.silent(self.origin.elapsed());
            self.tell(news);
        }
    }

    fn await_silence(&mut self, myself: &ActorRef<GpuMonitorMessage>) {
        let due = tell_after(myself, limit(&*self.source), GpuMonitorMessage::SilenceDue);
        self.silence = Some(due);
    }
}

fn limit(source: &dyn GpuSource) -> Duration {
    source.interval().saturating_mul(3).max(MIN_SILENCE)
}

#[cfg(test)]
mod tests;
