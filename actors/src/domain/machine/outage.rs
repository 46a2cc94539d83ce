//! What is noted of a launch that ends without being asked: who of it has ended, and since when the
//! service is gone.

use std::time::Duration;

use super::{State, Turn};
use crate::domain::diagnosis::{Evidence, Exit, KernelMessage};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::incident::{ProcessExit, Recovery};
use crate::domain::report::{ProcessReport, Role};

/// The most ends of processes that are kept of a launch, the latest: eight GPUs make some twelve
/// processes.
const MOST_EXITS: usize = 32;

const SIGKILL: i32 = 9;

/// That the service is gone, by ends that nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// When the first of them was, on the monotonic clock.
    since: Duration,
    incidents: u32,
}

/// The processes of the last launch that have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Exits {
    incarnation: Incarnation,
    /// Its main process.
    main: u32,
    seen: Vec<ProcessExit>,
    /// What the kernel says of them; `None` if nobody can say.
    kernel: Option<Vec<String>>,
}

impl Exits {
    fn of(incarnation: Incarnation, main: u32) -> Self {
        Self { incarnation, main, ..Self::default() }
    }

    /// Keeps what the kernel says of those of this launch; of nobody else is it evidence.
    pub(super) fn heard(&mut self, incarnation: Incarnation, evidence: Evidence) -> Evidence {
        let is_ours =
            |pid| self.incarnation == incarnation && self.seen.iter().any(|it| it.pid == pid);
        let evidence = evidence.about(is_ours);
        let texts = |said: &Vec<KernelMessage>| said.iter().map(|it| it.text.clone()).collect();
        self.kernel = evidence.kernel.as_ref().map(texts);
        evidence
    }

    /// Those of this launch, with what the kernel says of them; they are not asked for again.
    pub(super) fn take(
        &mut self,
        incarnation: Incarnation,
    ) -> (Vec<ProcessExit>, Option<Vec<String>>) {
        let Self { seen, kernel, .. } = self;
        let taken = (std::mem::take(seen), kernel.take());
        if self.incarnation == incarnation { taken } else { <_>::default() }
    }

    fn add(&mut self, exit: ProcessExit) {
        if self.seen.len() == MOST_EXITS {
            self.seen.remove(0);
        }
        self.seen.push(exit);
    }
}

impl Turn<'_> {
    /// Notes who of a launch has ended.
    pub(super) fn note_exit(&mut self, report: &ProcessReport) {
        let exits = &mut self.machine.exits;
        let (incarnation, ended) = match *report {
            ProcessReport::Launched { incarnation, pid, .. }
            | ProcessReport::Adopted { incarnation, pid, .. } => {
                return *exits = Exits::of(incarnation, pid);
            }
            ProcessReport::MemberDied { incarnation, pid, role, exit } => {
                (incarnation, ProcessExit::new(pid, role, exit))
            }
            ProcessReport::Exited { incarnation, exit } => {
                (incarnation, ProcessExit::new(exits.main, Role::ApiServer, exit))
            }
            _ => return,
        };
        let is_noted = match &self.machine.state {
            State::Starting(_) | State::Running(_) => true,
            // The others are being killed.
            State::Crashed(_) => ended.exit != Exit::Signal(SIGKILL),
            State::Unknown(_) | State::Stopped | State::Stopping(_) | State::Failed { .. } => false,
        };
        let is_telling = ended.role.is_fatal(ended.exit) || matches!(ended.exit, Exit::Signal(_));
        if is_noted && is_telling && incarnation == exits.incarnation {
            exits.add(ended);
        }
    }

    /// The service is gone, if it was not before.
    pub(super) fn suffer_outage(&mut self) {
        let since = self.now.monotonic;
        let outage = self.machine.outage.get_or_insert(Outage { since, incidents: 0 });
        outage.incidents = outage.incidents.saturating_add(1);
    }

    /// The service runs.
    pub(super) fn recover(&mut self, incarnation: Incarnation) {
        if let Some(Outage { since, incidents }) = self.machine.outage.take() {
            let downtime = self.now.monotonic.saturating_sub(since);
            let recovery = Recovery::new(self.now.wall, incarnation, downtime, incidents);
            self.emit(EventKind::ServiceRecovered { recovery });
        }
    }
}
