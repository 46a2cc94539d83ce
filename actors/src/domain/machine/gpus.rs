//! What is wrong with the GPUs, and what that means for vLLM.

use std::time::Duration;

use super::{Cause, State, Turn};
use crate::domain::cause::{Code, RetryClass};
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::gpu::{FindingNews, GpuAction, GpuFinding};
use crate::domain::liveness::Liveness;

/// So many ends of vLLM by faults of GPUs, within [`FAULTS_WITHIN`], are one too many.
const MOST_FAULTS: usize = 3;
const FAULTS_WITHIN: Duration = Duration::from_secs(30 * 60);

impl Turn<'_> {
    pub(super) fn found(&mut self, news: FindingNews) {
        news.enter(&mut self.machine.gpu_findings);
        self.emit(EventKind::from(news.clone()));
        if let FindingNews::Raised(finding) = news {
            self.suffer(&finding);
        }
    }

    /// A GPU that must be reset or worse cannot be trusted with an answer: what runs on it is ended at
    /// once, and not drained. What a restart cures may have left vLLM whole: it is asked.
    fn suffer(&mut self, finding: &GpuFinding) {
        if !finding.is_ours {
            return;
        }
        let incarnation = match &self.machine.state {
            State::Starting(starting) => starting.incarnation,
            State::Running(running) => running.incarnation,
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => return,
        };
        match finding.action {
            GpuAction::None => {}
            GpuAction::RestartApplication => self.judge_life(incarnation, Liveness::suspected),
            GpuAction::ResetGpu | GpuAction::Reboot | GpuAction::ContactSupport => {
                self.fail(incarnation, finding.cause(), None);
            }
        }
    }

    /// Why nothing can be run on the GPUs that vLLM uses, if that is so.
    pub(super) fn forbidden_by_gpu(&self) -> Option<Cause> {
        let blocking = self.machine.gpu_findings.iter().find(|finding| finding.blocks_us());
        blocking.map(GpuFinding::cause)
    }

    /// What a GPU that vLLM uses has to do with its end, where nothing else explains it. `exit` is how a
    /// process ended; who was ended from outside did not die of what a restart cures.
    pub(super) fn blamed(&mut self, cause: Cause, exit: Option<Exit>) -> Cause {
        let faults = self.machine.gpu_findings.iter().filter(|finding| finding.is_ours);
        let worst = faults.max_by_key(|finding| finding.action).cloned();
        let Some(fault) = worst.filter(|it| it.action != GpuAction::None) else { return cause };
        if !fault.action.blocks() && exit.is_some_and(Exit::is_from_outside) {
            return cause;
        }
        let summary = match cause.code {
            // The driver knows more of it than vLLM does.
            Code::GpuFault => cause.summary.clone(),
            Code::EngineDied
            | Code::EngineHung
            | Code::InterconnectFailed
            | Code::LoadTimedOut
            | Code::Unrecognised => format!("{fault}; {}", cause.summary),
            _ => return cause,
        };
        let Cause { code, retry, .. } = fault.cause();
        let blamed = Cause { code, summary, retry, ..cause }.with_remedy(fault.remedy());
        if retry == RetryClass::Permanent || fault.kind.is_of_application() {
            return blamed;
        }
        self.count_gpu_fault(blamed)
    }

    /// A GPU whose own faults end vLLM again and again is not cured by restarts.
    fn count_gpu_fault(&mut self, cause: Cause) -> Cause {
        let now = self.now.monotonic;
        let faults = &mut self.machine.gpu_faults;
        faults.retain(|at| now.saturating_sub(*at) < FAULTS_WITHIN);
        faults.push(now);
        if faults.len() < MOST_FAULTS {
            return cause;
        }
        faults.clear();
        let minutes = FAULTS_WITHIN.as_secs() / 60;
        let summary =
            format!("{}; it is the third end of that kind in {minutes} minutes", cause.summary);
        let remedy = "have the GPU looked at, or run vLLM on others (`CUDA_VISIBLE_DEVICES`); a start \
                      begins to count anew";
        Cause { summary, retry: RetryClass::Permanent, ..cause }.with_remedy(remedy)
    }
}
