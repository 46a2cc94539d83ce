//! Whether a load moves: what its log says, and what its processes do.

use std::time::Duration;

use super::{Announcement, FirstOutput, Turn};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::input::Effect;
use crate::domain::liveness::IDLE_SHARE;
use crate::domain::loading::{LoadNews, LoadStatus};
use crate::domain::phases::LaunchPhase;
use crate::domain::report::{LoaderReport, Sample, Work};

/// Bytes read or written that count as work.
const BUSY_BYTES: u64 = 1 << 20;

impl Turn<'_> {
    pub(super) fn sampled(&mut self, incarnation: Incarnation, sample: &Sample) {
        let (now, work) = (self.now, sample.work);
        let Some(starting) = self.current_starting(incarnation) else {
            return self.judge_life(incarnation, |liveness, now| liveness.sampled(sample, now));
        };
        let (then, before) = starting.work;
        match effort(before, work, now.since(then)) {
            Effort::Bytes => starting.last_sign = now,
            Effort::Processor => starting.last_busy = now,
            Effort::None => {}
        }
        starting.work = (now, work);
    }

    pub(super) fn loader(&mut self, report: LoaderReport) {
        let now = self.now;
        let incarnation = report.incarnation;
        let Some(starting) = self.current_starting(incarnation) else { return };
        let (mark, shown) =
            (starting.pace.mark(), starting.progress.as_ref().map_or(0, |it| it.percent));
        match report.news {
            LoadNews::Began => {
                starting.first_output = FirstOutput::Seen;
                starting.last_sign = now;
                let phase = LaunchPhase::Load(LoadStatus::Loading);
                starting.stopwatch.enter(phase, now.monotonic);
            }
            // A loader that takes the place of a dead one reads the log again from its start.
            LoadNews::Progressed(progress) | LoadNews::Stands(progress)
                if progress.percent < mark => {}
            LoadNews::Progressed(progress) => {
                starting.first_output = FirstOutput::Seen;
                starting.last_sign = now;
                starting.stopwatch.enter(LaunchPhase::Load(progress.status), now.monotonic);
                let progress = starting.pace.judge(progress, shown, now.monotonic);
                starting.progress = Some(progress.clone());
                self.emit(EventKind::LoadProgressed { progress });
            }
            LoadNews::Stands(progress) => {
                let progress = starting.pace.judge(progress, shown, now.monotonic);
                starting.progress = Some(progress.clone());
                self.emit(EventKind::LoadProgressed { progress });
            }
            LoadNews::Listens => {
                starting.announcement = Announcement::Made;
                starting.stopwatch.enter(LaunchPhase::Answering, now.monotonic);
                self.effect(Effect::Probe { incarnation });
            }
        }
    }
}

/// What a tree has done between two looks.
enum Effort {
    None,
    /// Processors worked, which a process that spins does as well.
    Processor,
    /// Bytes were moved.
    Bytes,
}

fn effort(before: Work, after: Work, elapsed: Duration) -> Effort {
    let cpu = after.cpu.saturating_sub(before.cpu);
    let io = after.io_bytes.saturating_sub(before.io_bytes);
    if io >= BUSY_BYTES {
        Effort::Bytes
    } else if cpu >= elapsed / IDLE_SHARE && !cpu.is_zero() {
        Effort::Processor
    } else {
        Effort::None
    }
}
