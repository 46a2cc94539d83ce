//! Which processes of a launch have ended, for the record of an end that nobody asked for.

use std::time::Duration;

use super::{State, Turn};
use crate::domain::diagnosis::{Evidence, Exit, KernelMessage, KernelMessageKind};
use crate::domain::id::Incarnation;
use crate::domain::incident::ProcessExit;
use crate::domain::report::{ProcessReport, Role};

/// The most ends of processes that are kept of a launch, the latest: eight GPUs make some twelve
/// processes.
const MOST_EXITS: usize = 32;

/// Who has ended longer before the end of what served has nothing to do with it: as long as the kernel's
/// words of want of memory count.
const ENDED_WITH: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// The processes of the last launch that have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Exits {
    incarnation: Incarnation,
    /// Its main process.
    main: u32,
    seen: Vec<Seen>,
    /// What the kernel says of them; `None` if nobody can say.
    kernel: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When it was, on the monotonic clock.
    at: Duration,
    ended: ProcessExit,
    by: By,
}

/// Who may have ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Not we.
    Others,
    /// We, as likely as not: once a crash is noticed, what is left of the launch is killed.
    Anybody,
}

impl Exits {
    /// A launch has this main process.
    fn begin(&mut self, incarnation: Incarnation, main: u32) {
        // One that is adopted while a crash of it is judged is the same.
        if self.incarnation != incarnation {
            *self = Self { incarnation, ..Self::default() };
        }
        self.main = main;
    }

    /// The launch turns out to have another number.
    pub(super) fn rename(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    /// What has served ends now: who has ended long before has no part in that.
    pub(super) fn end_of_service(&mut self, now: Duration) {
        self.seen.retain(|it| now.saturating_sub(it.at) <= ENDED_WITH);
    }

    /// Keeps what the kernel says of those of this launch; of nobody else is it evidence. Of whom we may
    /// have killed only a word that it was not we counts: who is killed amid its work leaves an Xid.
    pub(super) fn heard(&mut self, incarnation: Incarnation, evidence: Evidence) -> Evidence {
        let is_present = self.incarnation == incarnation;
        let seen = &mut self.seen;
        let evidence = evidence.heeding(|message| {
            let mut named = seen.iter_mut().filter(|it| it.ended.pid == message.pid);
            let Some(ended) = named.next_back().filter(|_| is_present) else { return false };
            if message.kind == KernelMessageKind::KilledForMemory {
                ended.by = By::Others;
            }
            ended.by == By::Others
        });
        let texts = |said: &Vec<KernelMessage>| said.iter().map(|it| it.text.clone()).collect();
        self.kernel = evidence.kernel.as_ref().map(texts);
        evidence
    }

    /// Those of this launch that others have ended, with what the kernel says of them; they are not asked
    /// for again.
    pub(super) fn take(
        &mut self,
        incarnation: Incarnation,
    ) -> (Vec<ProcessExit>, Option<Vec<String>>) {
        let (seen, kernel) = (std::mem::take(&mut self.seen), self.kernel.take());
        if self.incarnation != incarnation {
            return <_>::default();
        }
        let by_others = seen.iter().filter(|it| it.by == By::Others);
        (by_others.map(|it| it.ended).collect(), kernel)
    }

    fn add(&mut self, seen: Seen) {
        if self.seen.len() == MOST_EXITS {
            self.seen.remove(0);
        }
        self.seen.push(seen);
    }
}

impl Turn<'_> {
    /// Notes who of a launch has ended.
    pub(super) fn note_exit(&mut self, report: &ProcessReport) {
        let exits = &mut self.machine.exits;
        let (incarnation, ended) = match *report {
            ProcessReport::Launched { incarnation, pid, .. }
            | ProcessReport::Adopted { incarnation, pid, .. } => {
                return exits.begin(incarnation, pid);
            }
            ProcessReport::MemberDied { incarnation, pid, role, exit } => {
                (incarnation, ProcessExit::new(pid, role, exit))
            }
            ProcessReport::Exited { incarnation, exit } => {
                (incarnation, ProcessExit::new(exits.main, Role::ApiServer, exit))
            }
            _ => return,
        };
        let by = match &self.machine.state {
            State::Crashed(_) if matches!(ended.exit, Exit::Signal(SIGKILL) | Exit::Unknown) => {
                By::Anybody
            }
            State::Starting(_) | State::Running(_) | State::Crashed(_) => By::Others,
            State::Unknown(_) | State::Stopped | State::Stopping(_) | State::Failed { .. } => {
                return;
            }
        };
        let is_telling = ended.role.is_fatal(ended.exit) || matches!(ended.exit, Exit::Signal(_));
        if is_telling && incarnation == exits.incarnation {
            exits.add(Seen { at: self.now.monotonic, ended, by });
        }
    }
}
