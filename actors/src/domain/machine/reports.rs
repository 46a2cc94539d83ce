//! What is the case: every report and every timer in every state.

use std::time::Duration;

use super::timers::EXPLAINED_WITHIN;
use super::{
    Cleanup, CommandError, Crashed, Goal, Loss, Next, Obstacle, Origin, Running, Stage, Starting,
    State, Stopping, Then, Turn, Unknown,
};
use crate::domain::absence::{Doubt, ScanError};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::{Exit, Phase, judge};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode, Timer};
use crate::domain::phases::LaunchPhase;
use crate::domain::report::{LaunchKind, ProcessReport, Role};
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memories};

impl Turn<'_> {
    pub(super) fn process(&mut self, report: ProcessReport) {
        match report {
            ProcessReport::Adopted { incarnation, pid, target, phase } => {
                self.adopted(incarnation, pid, target, phase);
            }
            ProcessReport::RemnantFound { incarnation, pid } => {
                self.remnant_found(incarnation, pid);
            }
            ProcessReport::NothingFound { proof: _ } => self.nothing_found(),
            ProcessReport::LookFailed { error } => self.look_failed(&error),
            ProcessReport::Launched { incarnation, pid, method, memories } => {
                self.launched(incarnation, pid, method, memories);
            }
            ProcessReport::LaunchFailed { incarnation, cause } => {
                self.launch_failed(incarnation, cause);
            }
            ProcessReport::Exited { incarnation, exit } => self.exited(incarnation, exit),
            ProcessReport::MemberDied { incarnation, pid, role, exit } => {
                let cause = Cause::new(Code::EngineDied, format!("{role} {pid} died: {exit}"));
                if role.is_fatal(exit) {
                    self.member_died(incarnation, role, exit, cause);
                }
            }
            ProcessReport::Diagnosed { incarnation, evidence } => {
                self.diagnosed(incarnation, evidence);
            }
            ProcessReport::Vacated { incarnation, proof: _ } => self.vacated(incarnation),
            ProcessReport::Lingered { incarnation, doubt } => {
                self.lingered(incarnation, &doubt);
            }
            ProcessReport::Sampled { incarnation, sample } => self.sampled(incarnation, &sample),
        }
    }

    /// Whether a report is about the present. The one place where stale ones are dropped.
    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.machine.state.incarnation() == Some(incarnation)
    }

    pub(super) fn current_starting(&mut self, incarnation: Incarnation) -> Option<&mut Starting> {
        match &mut self.machine.state {
            State::Starting(starting) if starting.incarnation == incarnation => Some(starting),
            State::Starting(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Running(_)
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => None,
        }
    }

    pub(super) fn current_running(&mut self, incarnation: Incarnation) -> Option<&mut Running> {
        match &mut self.machine.state {
            State::Running(running) if running.incarnation == incarnation => Some(running),
            State::Running(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Starting(_)
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => None,
        }
    }

    fn adopted(&mut self, incarnation: Incarnation, pid: u32, target: Target, phase: Phase) {
        let State::Unknown(Unknown { incarnation: known, then, .. }) = self.machine.state else {
            return self.clear_found(incarnation);
        };
        // Only at the first look it may be another supervisor's.
        self.models(|models| match known {
            None => models.inherit(&target, phase),
            Some(_) => models.found(&target),
        });
        match then {
            // It was looked for before somebody wanted another model.
            _ if target != *self.machine.models.wanted() => self.retire(incarnation, then),
            Then::AsFound | Then::Launch(_) => self.watch(incarnation, pid, target),
            Then::Rest | Then::Replace => self.retire(incarnation, then),
        }
    }

    fn remnant_found(&mut self, incarnation: Incarnation, pid: Option<u32>) {
        let State::Unknown(Unknown { then, .. }) = self.machine.state else {
            return self.clear_found(incarnation);
        };
        match pid {
            Some(_) => self.retire(incarnation, then),
            None => self.dismantle(incarnation, then),
        }
    }

    /// What was left of a crash when the process actor died has been found.
    fn clear_found(&mut self, incarnation: Incarnation) {
        let State::Crashed(crashed) = &mut self.machine.state else { return };
        if !crashed.cleanup.is_sought() {
            return;
        }
        crashed.cleanup = Cleanup::Underway;
        // Where the record is lost, a search may find it by another number.
        let known = std::mem::replace(&mut crashed.incarnation, incarnation);
        let next = crashed.next.clone();
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.effect(Effect::Clear { incarnation });
        if known == incarnation {
            return;
        }
        let (timer, after) = match next {
            Next::RestartAt(due) => (Timer::Restart, due.saturating_sub(self.now.monotonic)),
            // Who was reading it is gone.
            Next::Undecided(_) => {
                self.rename_crash(known, incarnation);
                (Timer::Diagnosis, Duration::ZERO)
            }
            Next::RestartNow(_) | Next::GiveUp(_) => return,
        };
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// Ends a vLLM that an earlier supervisor, or process actor, left: it may have requests in hand,
    /// and it may load.
    fn retire(&mut self, incarnation: Incarnation, then: Then) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.drain(incarnation, Phase::Loading, then);
    }

    /// Stops what an earlier supervisor left that is of use to nobody.
    fn dismantle(&mut self, incarnation: Incarnation, then: Then) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.enter(State::Stopping(Stopping { incarnation, stage: Stage::Ending, then }), None);
        let (mode, phase, grace) = (StopMode::Graceful, Phase::Loading, self.machine.spec.grace);
        self.effect(Effect::Stop { incarnation, mode, phase, grace });
    }

    fn nothing_found(&mut self) {
        match &mut self.machine.state {
            State::Unknown(Unknown { then, .. }) => {
                let then = *then;
                self.proceed(then);
            }
            State::Crashed(crashed) if crashed.cleanup.is_sought() => {
                crashed.cleanup = Cleanup::Done;
                self.follow_crash();
            }
            State::Crashed(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => {}
        }
    }

    /// It stays unknown what is there; the process actor goes on looking.
    fn look_failed(&mut self, error: &ScanError) {
        let said = format!("it cannot be known what an earlier launch left: {error}");
        let cause = Cause::new(Code::Unrecognised, said);
        match &mut self.machine.state {
            State::Unknown(unknown) => unknown.obstacle = Obstacle::Unseen(cause.clone()),
            State::Crashed(crashed) if crashed.cleanup.is_sought() => {
                crashed.cleanup = Cleanup::Unseen(cause.clone());
            }
            State::Crashed(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => return,
        }
        self.emit(EventKind::CleanupBlocked { cause });
        self.answer_blocked();
    }

    fn launched(
        &mut self,
        incarnation: Incarnation,
        pid: u32,
        method: LaunchMethod,
        memories: Memories,
    ) {
        let now = self.now.monotonic;
        if let Some(starting) = self.current_starting(incarnation) {
            starting.pid = Some(pid);
            starting.recall = memories.recall;
            starting.pace.begin(memories.course, now);
            starting.method = method;
            starting.stopwatch.enter(LaunchPhase::Importing, now);
            self.machine.launch = Some((incarnation, LaunchKind::from(method)));
        }
    }

    fn launch_failed(&mut self, incarnation: Incarnation, cause: Cause) {
        if !self.is_current(incarnation) {
            return;
        }
        match self.machine.state {
            State::Starting(_) => self.fail_to_launch(incarnation, cause),
            State::Stopping(Stopping { then, .. }) | State::Unknown(Unknown { then, .. }) => {
                self.proceed(then);
            }
            State::Stopped | State::Running(_) | State::Crashed(_) | State::Failed { .. } => {}
        }
    }

    fn exited(&mut self, incarnation: Incarnation, exit: Exit) {
        if !self.is_current(incarnation) {
            return;
        }
        let mut lost = None;
        let phase = match &mut self.machine.state {
            State::Starting(starting) => {
                lost = starting.loss.take().filter(|loss| loss.exit.is_from_outside());
                Phase::Loading
            }
            State::Running(_) => Phase::Serving,
            State::Stopping(_) => return self.ended_while_draining(incarnation),
            // It was asked to, or is being cleared already: `Vacated` will follow.
            State::Unknown(_) | State::Stopped | State::Crashed(_) | State::Failed { .. } => return,
        };
        self.suspect(Some(exit));
        // Whoever was ended by somebody took the others along.
        let (cause, exit) =
            lost.map_or_else(|| (judge(exit, phase), exit), |loss| (loss.cause, loss.exit));
        self.fail(incarnation, cause, Some(exit));
    }

    /// vLLM goes down with its engine or a worker, seconds later: this is the crash. Whoever was
    /// asked to end, and takes them along, does not crash.
    fn member_died(&mut self, incarnation: Incarnation, role: Role, exit: Exit, cause: Cause) {
        if !self.is_current(incarnation) {
            return;
        }
        match &mut self.machine.state {
            // One that fails to load ends by itself, or is ended by the front, which then says why.
            // On its way down it kills those that do not end by themselves.
            State::Starting(starting)
                if !is_killed(exit, starting.origin) || starting.loss.is_some() =>
            {
                // The first is the cause; the others follow from it.
                if ends_vllm(role) && starting.loss.is_none() {
                    starting.loss = Some(Box::new(Loss { cause, exit }));
                    self.suspect(Some(exit));
                    self.look_after(EXPLAINED_WITHIN, incarnation);
                }
            }
            State::Starting(_) | State::Running(_) => {
                self.suspect(Some(exit));
                self.fail(incarnation, cause, Some(exit));
            }
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => {}
        }
    }

    fn vacated(&mut self, incarnation: Incarnation) {
        if !self.is_current(incarnation) {
            return;
        }
        match &mut self.machine.state {
            State::Stopping(Stopping { then, .. }) | State::Unknown(Unknown { then, .. }) => {
                let then = *then;
                self.proceed(then);
            }
            State::Crashed(crashed) => {
                crashed.cleanup = Cleanup::Done;
                self.follow_crash();
            }
            State::Stopped | State::Starting(_) | State::Running(_) | State::Failed { .. } => {}
        }
    }

    fn lingered(&mut self, incarnation: Incarnation, doubt: &Doubt) {
        if !self.is_current(incarnation) {
            return;
        }
        let said = match doubt {
            Doubt::Left(_) => format!("{doubt} after SIGKILL; the kernel may wait for a device"),
            Doubt::Unseen(_) => format!("it cannot be known what is left: {doubt}"),
        };
        let cause = Cause::new(Code::Unrecognised, said);
        match &mut self.machine.state {
            State::Stopping(Stopping { then, .. }) => {
                let (incarnation, then) = (Some(incarnation), then.once_ended());
                self.machine.last_error = Some(cause.clone());
                let obstacle = Obstacle::Lingering(cause.clone());
                let doubt = Unknown { incarnation, then, obstacle };
                self.enter(State::Unknown(doubt), Some(cause.clone()));
            }
            State::Unknown(unknown) => unknown.obstacle = Obstacle::Lingering(cause.clone()),
            State::Crashed(crashed) => match crashed.cleanup {
                Cleanup::Underway | Cleanup::Blocked(_) => {
                    crashed.cleanup = Cleanup::Blocked(cause.clone());
                }
                // The last words of an actor that is gone.
                Cleanup::Searching | Cleanup::Unseen(_) | Cleanup::Done => return,
            },
            State::Stopped | State::Starting(_) | State::Running(_) | State::Failed { .. } => {
                return;
            }
        }
        self.emit(EventKind::CleanupBlocked { cause });
        self.answer_blocked();
    }

    /// Nobody can say how long what is left stands in the way: whoever waits is told so, and what
    /// they wish for stays wished for.
    pub(super) fn answer_blocked(&mut self) {
        let Some(cause) = self.machine.blocked().cloned() else { return };
        let missed = match &self.machine.state {
            State::Crashed(Crashed { next: Next::GiveUp(last), .. }) => {
                CommandError::Failed(last.clone())
            }
            State::Crashed(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => CommandError::StillAlive(cause.clone()),
        };
        self.disappoint(&missed);
        self.answer(|goal| {
            (*goal == Goal::Down).then(|| Err(CommandError::StillAlive(cause.clone())))
        });
    }

    /// A launch that was up should be up again; one that was being stopped should be down; what
    /// follows a crash still follows it.
    pub(super) fn process_actor_lost(&mut self) {
        let then = match &mut self.machine.state {
            State::Stopped
            | State::Failed { .. }
            | State::Crashed(Crashed { cleanup: Cleanup::Done, .. }) => return,
            State::Unknown(unknown) => {
                unknown.obstacle = Obstacle::None;
                return self.effect(Effect::Adopt);
            }
            State::Stopping(stopping) => stopping.then.once_ended(),
            State::Starting(Starting { origin: Origin::Asked, .. }) => Then::Launch(Origin::Asked),
            State::Starting(Starting { origin: Origin::Restart | Origin::Found, .. })
            | State::Running(_) => Then::Launch(Origin::Restart),
            State::Crashed(crashed) => {
                crashed.cleanup = Cleanup::Searching;
                return self.effect(Effect::Adopt);
            }
        };
        let incarnation = self.machine.state.incarnation();
        self.effect(Effect::Disregard);
        let doubt = Unknown { incarnation, then, obstacle: Obstacle::None };
        self.enter(State::Unknown(doubt), None);
        self.effect(Effect::Adopt);
    }
}

/// Whether this is no end that vLLM gives a process of its own while it loads: that is an exit, or
/// SIGTERM (vLLM 0.32, `v1/utils.py`, `shutdown`). Of what was found running the exit may be unknown,
/// since another is its parent; it is then taken for one from outside.
fn is_killed(exit: Exit, origin: Origin) -> bool {
    const SIGTERM: i32 = 15;
    match exit {
        Exit::Signal(signal) => signal != SIGTERM,
        Exit::Code(_) => false,
        Exit::Unknown => origin == Origin::Found,
    }
}

/// Whether vLLM never outlives the end of such a process. One without a title may only have been
/// there to find something out, and vLLM then helps itself otherwise.
fn ends_vllm(role: Role) -> bool {
    match role {
        Role::ApiServer | Role::EngineCore | Role::Worker | Role::Coordinator => true,
        Role::Untitled | Role::Helper => false,
    }
}
