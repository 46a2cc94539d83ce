//! Finds whatever a test started, however far it has wandered, and sees to it that nothing is left.
//!
//! A test gives what it launches an environment variable of its own. A process belongs to the
//! census when it shows that variable, when it descends from one that does, or when it lives in a
//! session that one of these was seen in: vLLM's engine and workers lose sight of their environment
//! when they set their titles, unless `SPT_NOENV` is set.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::process_table::{Process, descendants_among, processes};

/// How long [`Census::kill_all`] waits for one killed process to be gone.
const DEATH_TIME: Duration = Duration::from_secs(5);

/// The processes of one test, known by an environment variable that only this test set.
#[derive(Debug)]
pub struct Census {
    marker: String,
    sessions: Mutex<BTreeSet<i32>>,
}

impl Census {
    /// The census of everything launched with `marker` (`NAME=value`) in its environment. The
    /// marker must not be in the environment of the test itself.
    pub fn of(marker: impl Into<String>) -> Self {
        Self { marker: marker.into(), sessions: Mutex::default() }
    }

    /// The variable to set on a command: its name and its value.
    pub fn variable(&self) -> (&str, &str) {
        self.marker.split_once('=').unwrap_or((&self.marker, ""))
    }

    /// Everything that belongs to the test and runs now; zombies do not run.
    pub fn processes(&self) -> Vec<Process> {
        let table = processes();
        let marked: Vec<&Process> = table
            .iter()
            .filter(|it| it.state != 'Z' && it.has_in_environment(&self.marker))
            .collect();
        let family: Vec<Process> = marked
            .iter()
            .flat_map(|process| descendants_among(&table, process.pid))
            .chain(marked.iter().copied().cloned())
            .collect();
        let born: BTreeSet<i32> = family.iter().map(|it| it.pid.as_raw_pid()).collect();
        let own_session = Process::this().and_then(|it| it.session);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let seen_in = family.iter().filter_map(|process| process.session);
        sessions.extend(seen_in.filter(|it| Some(*it) != own_session).map(Pid::as_raw_pid));
        let belongs = |process: &Process| {
            born.contains(&process.pid.as_raw_pid())
                || process.session.is_some_and(|it| sessions.contains(&it.as_raw_pid()))
        };
        table.iter().filter(|it| it.state != 'Z' && belongs(it)).cloned().collect()
    }

    /// The segments under `/dev/shm` that the test's processes have mapped now.
    pub fn shared_memory(&self) -> BTreeSet<PathBuf> {
        self.processes().iter().flat_map(Process::shared_memory).collect()
    }

    /// Waits until nothing of the test runs any more.
    ///
    /// # Errors
    ///
    /// What still runs when `deadline` has passed.
    pub async fn wait_until_empty(&self, deadline: Duration) -> Result<(), Vec<Process>> {
        let end = Instant::now() + deadline;
        loop {
            let found = self.processes();
            let Some(first) = found.first() else { return Ok(()) };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(found);
            }
            if let Ok(pidfd) = pidfd_open(first.pid, PidfdFlags::empty()) {
                // Polled on a thread of its own: a test's event loop has other things to do.
                tokio::task::spawn_blocking(move || ends_within(&pidfd, left)).await.ok();
            }
        }
    }

    /// Ends everything of the test with SIGKILL, waits for it to be gone, and removes the shared
    /// memory that it had mapped, which nobody is left to remove. For use in a `Drop`: it blocks,
    /// for five seconds at most with each process.
    pub fn kill_all(&self) {
        let mut segments = BTreeSet::new();
        // Whoever is killed may have started another since: until a look finds nothing.
        loop {
            let found = self.processes();
            if found.is_empty() {
                break;
            }
            segments.extend(found.iter().flat_map(Process::shared_memory));
            let dying: Vec<OwnedFd> = found.iter().filter_map(kill).collect();
            if !dying.iter().all(|pidfd| ends_within(pidfd, DEATH_TIME)) {
                break;
            }
        }
        for segment in segments {
            // The resource tracker may have been faster; either way it is gone.
            std::fs::remove_file(segment).ok();
        }
    }
}

/// Sends SIGKILL through a pidfd, so that a number taken over by a stranger is never hit: the row
/// is compared once the descriptor pins it.
fn kill(process: &Process) -> Option<OwnedFd> {
    let pidfd = pidfd_open(process.pid, PidfdFlags::empty()).ok()?;
    let still_there = Process::of(process.pid)?;
    if still_there.session == process.session {
        pidfd_send_signal(&pidfd, Signal::KILL).ok()?;
    }
    Some(pidfd)
}

fn ends_within(pidfd: &OwnedFd, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).ok();
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], patience.as_ref()) == Ok(1)
}
