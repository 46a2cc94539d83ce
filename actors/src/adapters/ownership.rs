//! What belongs to a launch, and how it is brought to an end as a whole.
//!
//! A launch has a session of its own and carries a marker in its environment; where the system has
//! a cgroup to give, it has one of its own as well. The cgroup holds whatever is started, however it
//! detaches itself; without it, a process that loses session and marker is found by its parents, if
//! it was seen while they lived.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Duration, Instant};

use super::pause::pause;
use super::proc_fs::Stat;
use crate::domain::absence::{Leftover, ScanError};

mod births;
mod cgroup;
mod hidden;
mod older;
mod pidfd;
mod roster;
mod segments;
mod session;
mod thread;
mod undecided;
mod watch;

pub(super) use cgroup::Cgroup;
pub(super) use older::{FileId, Older, SharedFile};
pub(super) use pidfd::{Held, Parent, probe};
pub(super) use roster::{Member, Roster};
pub(super) use segments::Segments;
pub(super) use session::{Depth, Marked, Session};
pub(super) use thread::on_own_thread;
pub(super) use watch::{Watched, watch};

/// How long to look for whoever appears while all are being stopped.
const STOP_BUDGET: Duration = Duration::from_millis(500);

/// How long to wait for those who were stopped to stand still.
const STANDSTILL_BUDGET: Duration = Duration::from_millis(20);

/// How a launch is owned.
#[derive(Debug)]
pub(super) enum Ownership {
    /// By a cgroup of its own, and by session and marker: a process may move itself out of a group.
    Cgroup(Cgroup, Marked),
    /// By session, marker and descent.
    SessionAndMarker(Marked),
}

/// Whom a kill leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// Python's resource trackers.
    Trackers,
    /// Nobody.
    Nobody,
}

impl Ownership {
    /// By this cgroup as well, if there is one.
    pub(super) fn by(cgroup: Option<Cgroup>, marked: Marked) -> Self {
        match cgroup {
            Some(cgroup) => Self::Cgroup(cgroup, marked),
            None => Self::SessionAndMarker(marked),
        }
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Self::Cgroup(cgroup, _) if !cgroup.is_forsaken() => Some(cgroup),
            Self::Cgroup(..) | Self::SessionAndMarker(_) => None,
        }
    }

    fn marked(&self) -> &Marked {
        match self {
            Self::Cgroup(_, marked) | Self::SessionAndMarker(marked) => marked,
        }
    }

    /// Makes sure of a process that is held: it may have ended before, and its number be another's.
    ///
    /// # Errors
    ///
    /// It does not carry the marker, or shows nobody what it carries.
    pub(super) fn check_mark(&self, pid: u32) -> Result<(), ScanError> {
        if self.marked().has_marked(pid)? {
            return Ok(());
        }
        let said = "it does not carry the marker of the launch that it was forked for";
        Err(ScanError::new(format!("process {pid}"), &said))
    }

    /// Brings the roster up to date. What could be seen is entered even if not all could.
    ///
    /// # Errors
    ///
    /// What could not be looked at: there may be members that are not in the roster.
    pub(super) fn members(&self, roster: &mut Roster, depth: Depth) -> Result<(), ScanError> {
        let grouped = self.cgroup().map_or_else(|| Ok(Vec::new()), Cgroup::pids);
        let entered = match grouped {
            Ok(pids) => roster.enter_all(&pids),
            Err(error) => Err(error),
        };
        let marked = match (self.cgroup(), depth) {
            // A cgroup says who is there: no need to look at everybody every second.
            (Some(_), Depth::Glance) => Ok(()),
            (Some(_) | None, _) => self.marked().look(roster, depth),
        };
        roster.refresh();
        entered.and(marked)
    }

    /// Stops everybody first, so that nobody can start another meanwhile, or make anything, and then
    /// kills. Between the two they can be looked at for the last time.
    ///
    /// # Errors
    ///
    /// What could not be looked at. Those that were seen are killed all the same.
    pub(super) fn kill(
        &self,
        roster: &mut Roster,
        spare: Spare,
        last_look: impl FnOnce(&Roster),
    ) -> Result<(), ScanError> {
        if let Some(cgroup) = self.cgroup() {
            cgroup.freeze();
        }
        let seen = self.stop_all(roster);
        await_standstill(roster);
        last_look(roster);
        for member in roster.members() {
            if spare == Spare::Trackers && member.is_tracker {
                member.held.send(Signal::CONT);
            } else {
                member.held.send(Signal::KILL);
            }
        }
        if roster.members().next().is_none() {
            kill_unseen(roster);
        }
        if let Some(cgroup) = self.cgroup() {
            if spare == Spare::Nobody {
                cgroup.kill();
            }
            cgroup.thaw();
        }
        seen
    }

    fn stop_all(&self, roster: &mut Roster) -> Result<(), ScanError> {
        let began = Instant::now();
        let mut depth = Depth::Everyone;
        loop {
            let before = roster.entered();
            let seen = self.members(roster, depth);
            for member in roster.members().filter(|member| !member.is_tracker) {
                member.held.send(Signal::STOP);
            }
            let nobody_new = roster.entered() == before && seen.is_ok();
            if nobody_new || began.elapsed() >= STOP_BUDGET {
                return seen;
            }
            depth = Depth::Newcomers;
        }
    }

    /// Who is left, by a look at everybody.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn emptied(&self, roster: &mut Roster) -> Result<Vec<Leftover>, ScanError> {
        self.members(roster, Depth::Everyone)?;
        let left: Vec<_> = roster.members().map(Member::leftover).collect();
        match self.cgroup() {
            // Somebody is in it who came since it was read.
            Some(cgroup) if left.is_empty() && cgroup.is_populated()? => {
                Err(ScanError::new(cgroup.path(), &"it has members that have not been seen"))
            }
            Some(_) | None => Ok(left),
        }
    }
}

/// A signal to stop is heeded when the process runs next. One that waits for a device heeds none, and
/// is not waited for.
fn await_standstill(roster: &Roster) {
    let began = Instant::now();
    let moves = |member: &Member| {
        let stat = Stat::of(member.held.pid).ok().flatten();
        let same = stat.filter(|stat| stat.start_time == member.held.start_time);
        same.is_some_and(|stat| !stat.stands_still())
    };
    while began.elapsed() < STANDSTILL_BUDGET
        && roster.members().any(|member| !member.is_tracker && moves(member))
    {
        pause(Duration::from_millis(1));
    }
}

/// Kills whoever forks and ends too fast to be stopped, for whom a signal to the whole group comes
/// never too late. The group has the number of the main process, which nobody else can have before we
/// reap it.
fn kill_unseen(roster: &Roster) {
    let Some(head) = roster.head().filter(|head| head.awaits_us()) else { return };
    if let Some(group) = i32::try_from(head.pid).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process_group(group, Signal::KILL)
        && error != Errno::SRCH
    {
        tracing::warn!(pid = head.pid, %error, "a process group could not be killed");
    }
}
