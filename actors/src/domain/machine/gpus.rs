//! What is wrong with the GPUs, and what that means for vLLM.

use std::time::Duration;

use super::{Cause, State, Turn};
use crate::domain::cause::{Code, RetryClass};
use crate::domain::event::EventKind;
use crate::domain::gpu::{FindingNews, GpuAction, GpuFinding};
use crate::domain::liveness::Liveness;

/// So many ends of vLLM by faults of GPUs, within [`FAULTS_WITHIN`], are one too many.
const MOST_FAULTS: usize = 3;
const FAULTS_WITHIN: Duration = Duration::from_secs(30 * 60);

impl Turn<'_> {
    pub(super) fn found(&mut self, news: FindingNews) {
        let known = &mut self.machine.gpu_findings;
        let is_same = |one: &GpuFinding, other: &GpuFinding| {
            (one.index, &one.uuid, one.kind) == (other.index, &other.uuid, other.kind)
        };
        match news {
            FindingNews::Raised(finding) => {
                known.retain(|it| !is_same(it, &finding));
                known.push(finding.clone());
                self.emit(EventKind::GpuFindingRaised { finding: Box::new(finding.clone()) });
                self.suffer(&finding);
            }
            FindingNews::Cleared(finding) => {
                known.retain(|it| !is_same(it, &finding));
                self.emit(EventKind::GpuFindingCleared { finding: Box::new(finding) });
            }
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

    /// A GPU whose faults end vLLM again and again is not cured by restarts.
    pub(super) fn count_gpu_faults(&mut self, cause: Cause) -> Cause {
        if cause.code != Code::GpuFault || cause.retry == RetryClass::Permanent {
            return cause;
        }
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

    /// What a GPU that vLLM uses has to do with its end, where nothing else explains it.
    pub(super) fn blamed(&self, cause: Cause) -> Cause {
        let faults = self.machine.gpu_findings.iter().filter(|finding| finding.is_ours);
        let worst = faults.max_by_key(|finding| finding.action);
        let Some(fault) = worst.filter(|it| it.action != GpuAction::None) else { return cause };
        let is_unexplained = matches!(
            cause.code,
            Code::EngineDied
                | Code::EngineHung
                | Code::InterconnectFailed
                | Code::LoadTimedOut
                | Code::Unrecognised
        );
        if cause.code == Code::GpuFault {
            // The driver knows more of it than vLLM does.
            let retry = if fault.action.blocks() { RetryClass::Permanent } else { cause.retry };
            return Cause { retry, ..cause }.with_remedy(fault.remedy());
        }
        if !is_unexplained {
            return cause;
        }
        let Cause { code, summary, retry, .. } = fault.cause();
        let summary = format!("{summary}; {}", cause.summary);
        Cause { code, summary, retry, ..cause }.with_remedy(fault.remedy())
    }
}
