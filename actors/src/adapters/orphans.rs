//! Children that this process did not start: what loses its parent is given to the nearest ancestor
//! that takes orphans, such as process 1 of a container. Unless that reaps them, each keeps its
//! number for good once it has ended.
//!
//! For a program that is nothing but the supervisor. Elsewhere, whose children they are is not ours
//! to say.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::proc_fs::{self, Stat};
use super::process_record::RecordFile;
use crate::domain::absence::ScanError;

/// Reaps orphans that have ended.
///
/// It spares what this process started itself, and waits for: what is in this process's own
/// session, and the main process of a launch, which leads a session and is on record from its start
/// until it is proven gone. A launch is recorded right after its start, so nothing is reaped that
/// was not seen by two looks.
#[derive(Debug)]
pub struct OrphanReaper {
    record: RecordFile,
    /// Pid and start time of what the last look saw.
    seen: BTreeSet<(u32, u64)>,
}

impl OrphanReaper {
    /// One beside a supervisor with this state directory.
    pub fn new(state_directory: &Path) -> Self {
        Self { record: RecordFile::in_directory(state_directory), seen: BTreeSet::new() }
    }

    /// Takes orphans from now on, as process 1 does.
    ///
    /// # Errors
    ///
    /// That the system refuses; then they go elsewhere, and are reaped there.
    pub fn take_orphans() -> std::io::Result<()> {
        // Which process is given does not matter, only that one is (prctl(2)).
        Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
    }

    /// Reaps what had ended at the last look already; returns whether another look is due.
    pub fn look(&mut self) -> Look {
        let ended = match self.ended_orphans() {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(%error, "orphans cannot be looked for");
                return Look::Again;
            }
        };
        let (old, new): (Vec<&Stat>, Vec<&Stat>) =
            ended.iter().partition(|stat| self.seen.contains(&(stat.pid, stat.start_time)));
        for stat in old {
            tracing::debug!(pid = stat.pid, "an orphan has ended and is reaped");
            reap(stat.pid);
        }
        self.seen = new.into_iter().map(|stat| (stat.pid, stat.start_time)).collect();
        if self.seen.is_empty() { Look::Done } else { Look::Again }
    }

    fn ended_orphans(&self) -> Result<Vec<Stat>, ScanError> {
        let me = std::process::id();
        let own_session = Stat::of(me)?.map(|stat| stat.session);
        let mut orphans = Vec::new();
        for pid in proc_fs::pids()? {
            // What has gone meanwhile has been reaped.
            orphans.extend(Stat::of(pid)?.filter(|stat| {
                stat.parent == me && stat.is_zombie() && Some(stat.session) != own_session
            }));
        }
        // The record is asked for only where there is a head of a session, and after the look: one
        // that is not on record now has been proven gone, or was never ours.
        let has_head = orphans.iter().any(leads_session);
        let main = if has_head { self.main_on_record() } else { Main::None };
        let is_spared = |stat: &Stat| match main {
            Main::None => false,
            Main::Pid(pid) => stat.pid == pid,
            Main::Unreadable => leads_session(stat),
        };
        Ok(orphans.into_iter().filter(|stat| !is_spared(stat)).collect())
    }

    fn main_on_record(&self) -> Main {
        match self.record.read() {
            Ok(Some(record)) => record.main.map_or(Main::Unreadable, |(pid, _)| Main::Pid(pid)),
            Ok(None) => Main::None,
            Err(_) => Main::Unreadable,
        }
    }
}

/// Whether an [`OrphanReaper`] has seen everything through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing is left to be reaped.
    Done,
    /// Something has ended that was not seen before.
    Again,
}

/// The main process of the present launch.
#[derive(Clone, Copy, Debug)]
enum Main {
    None,
    Pid(u32),
    /// It may be anybody who leads a session.
    Unreadable,
}

fn leads_session(stat: &Stat) -> bool {
    stat.session == stat.pid
}

fn reap(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // Somebody else has reaped it meanwhile: nothing to do.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
}
