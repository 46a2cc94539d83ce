//! The actor that watches the GPUs.
//!
//! The source reads on a thread of its own; this actor passes on what it sees, and says so when
//! nothing comes any more: an NVML call can block for ever in a driver that hangs. It never judges
//! vLLM by it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::time::Instant;

use crate::domain::report::GpuReport;
use crate::ports::{GpuReading, GpuSource};
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
    /// Where reports go.
    pub root: DerivedActorRef<GpuReport>,
}

/// The state of a [`GpuMonitorActor`].
#[derive(Debug)]
pub struct GpuMonitorState {
    /// What it was given.
    args: GpuMonitorArgs,
    /// When the source last looked.
    last: Instant,
    /// Waits for the source.
    _listener: OwnedTask,
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
        let (mut readings, actor) = (args.source.readings(), myself.clone());
        let listener = OwnedTask::begin(myself.get_cell(), async move {
            loop {
                let look = readings.borrow_and_update().clone();
                tell(&actor, GpuMonitorMessage::Looked { look });
                if readings.changed().await.is_err() {
                    break;
                }
            }
        });
        let silence = Some(tell_after(&myself, limit(&args), GpuMonitorMessage::SilenceDue));
        Ok(GpuMonitorState { args, last, _listener: listener, silence })
    }

    async fn handle(
        &self,
        myself: ActorRef<GpuMonitorMessage>,
        message: GpuMonitorMessage,
        state: &mut GpuMonitorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GpuMonitorMessage::Looked { look } => state.looked(&myself, look),
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
                report(&self.args.root, GpuReport::Sampled(snapshot));
            }
            GpuReading::Unavailable(reason) => {
                self.silence = None;
                report(&self.args.root, GpuReport::Unavailable { reason });
            }
        }
    }

    /// The message may have waited behind a look, which made it untrue.
    fn silent(&mut self, myself: &ActorRef<GpuMonitorMessage>) {
        if self.silence.is_none() {
            return;
        }
        self.await_silence(myself);
        let silent_for = self.last.elapsed();
        if silent_for >= limit(&self.args) {
            report(&self.args.root, GpuReport::Stalled { silent_for });
        }
    }

    fn await_silence(&mut self, myself: &ActorRef<GpuMonitorMessage>) {
        let due = tell_after(myself, limit(&self.args), GpuMonitorMessage::SilenceDue);
        self.silence = Some(due);
    }
}

fn limit(args: &GpuMonitorArgs) -> Duration {
    args.source.interval().saturating_mul(3).max(MIN_SILENCE)
}

#[cfg(test)]
mod tests;
