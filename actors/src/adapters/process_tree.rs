//! Everything that one launch of vLLM started, and its end.
//!
//! A launch is a session of its own, and carries a marker in its environment. A process belongs to
//! it if it is in the session or carries the marker: the first finds those that changed their
//! title (and with it, without `SPT_NOENV`, their readable environment), the second those that
//! went into a session of their own. The session's number counts only as long as the kernel cannot
//! have given it to somebody else, that is while the main process lives or waits to be reaped.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::proc_fs::{self, Stat};
use crate::domain::diagnosis::Exit;
use crate::domain::report::Work;

/// The variable that marks a launch.
pub(super) const MARKER: &str = "VLLMD_INSTANCE";

/// How long the resource tracker of Python's `multiprocessing` may take to remove the shared memory
/// of those it outlived. It ends by itself; killed, it would leave the segments behind.
const TRACKER_GRACE: Duration = Duration::from_millis(1500);

/// The least time that one sweep waits for what it killed.
const SWEEP_BUDGET: Duration = Duration::from_secs(3);

/// How long to wait before nobody seen is believed: longer than an `exec` commonly hides an environment.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// Whether a process carries a marker that begins with `prefix`, as all launches of one supervisor
/// do.
pub fn carries_marker(pid: u32, prefix: &str) -> bool {
    proc_fs::has_variable_with_prefix(pid, &format!("{MARKER}={prefix}"))
}

/// One launch of vLLM.
#[derive(Debug)]
pub(super) struct ProcessTree {
    /// The main process, which is also the session's number.
    main: u32,
    /// Refers to the main process; `None` for a launch whose main process is long gone.
    pidfd: Option<Arc<OwnedFd>>,
    /// `VLLMD_INSTANCE=<value>`.
    marker: String,
}

impl ProcessTree {
    /// The tree of a child just started.
    pub(super) fn of_child(main: u32, marker: &str) -> Result<Self, Errno> {
        let pidfd = Some(Arc::new(open(main)?));
        Ok(Self { main, pidfd, marker: format!("{MARKER}={marker}") })
    }

    /// The tree of a launch of another supervisor. The main process is recognised by pid and start
    /// time, of this boot; if it is gone, the tree is whatever carries the marker.
    pub(super) fn of_other(main: u32, start_time: u64, marker: &str) -> Self {
        // Open first, compare then: what the descriptor refers to cannot change any more.
        let pidfd = open(main).ok().filter(|_| {
            Stat::of(main).is_some_and(|stat| stat.start_time == start_time && !stat.is_zombie())
        });
        Self { main, pidfd: pidfd.map(Arc::new), marker: format!("{MARKER}={marker}") }
    }

    pub(super) fn main(&self) -> u32 {
        self.main
    }

    /// Whether the main process runs.
    pub(super) fn main_is_alive(&self) -> bool {
        self.pidfd.as_ref().is_some_and(|pidfd| !has_ended(pidfd))
    }

    /// Whether anything of it runs.
    pub(super) fn is_alive(&self) -> bool {
        !self.members().is_empty()
    }

    /// Resolves when the main process has ended. It is not reaped: that would free its number.
    pub(super) fn ended(&self) -> impl Future<Output = Exit> + Send + 'static {
        let pidfd = self.pidfd.clone();
        async move {
            let Some(pidfd) = pidfd else { return Exit::Unknown };
            match watched(&pidfd) {
                // Only an error of the event queue ends the wait early.
                Ok(ready) => drop(ready.readable().await),
                Err(error) => tracing::error!(%error, "cannot wait for vLLM's end"),
            }
            exit_of(&pidfd)
        }
    }

    pub(super) fn signal_main(&self, signal: Signal) {
        let Some(pidfd) = &self.pidfd else { return };
        // A stopped process never handles a signal other than SIGKILL.
        send(pidfd, signal);
        send(pidfd, Signal::CONT);
    }

    /// Kills everything, and waits a little. Returns the pids that live all the same; none means
    /// proven gone, and then the main process is reaped.
    pub(super) fn sweep(&self) -> Vec<u32> {
        let began = Instant::now();
        loop {
            let members = self.members();
            if members.is_empty() {
                self.reap();
                return Vec::new();
            }
            if began.elapsed() >= SWEEP_BUDGET {
                return members.iter().map(|member| member.stat.pid).collect();
            }
            let all_trackers = members.iter().all(Member::is_resource_tracker);
            let spare_trackers = !all_trackers || began.elapsed() < TRACKER_GRACE;
            for member in &members {
                if !(spare_trackers && member.is_resource_tracker()) {
                    send(&member.pidfd, Signal::KILL);
                }
            }
            wait_for_one(&members);
        }
    }

    /// The numbers of the members that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.look().iter().map(|member| member.stat.pid).collect()
    }

    /// What the members alive have done so far.
    pub(super) fn work(&self) -> Work {
        let mut work = Work::default();
        for member in self.look() {
            work.cpu += member.stat.cpu;
            work.io_bytes += proc_fs::io_bytes(member.stat.pid);
        }
        work
    }

    /// The members that run, none only if a second look finds none either: amid an `exec` a process
    /// shows no environment (Linux, `fs/exec.c`, `begin_new_exec`), and one that is forked behind
    /// the back of whoever reads `/proc` is not listed.
    fn members(&self) -> Vec<Member> {
        let members = self.look();
        if !members.is_empty() {
            return members;
        }
        pause(SECOND_LOOK);
        self.look()
    }

    /// The members seen at one look. Those that have ended are reaped if they have become our
    /// children, as happens where the supervisor is process 1 of a container.
    fn look(&self) -> Vec<Member> {
        let session = self.pins_session().then_some(self.main);
        let mut members = Vec::new();
        for stat in proc_fs::processes() {
            let in_session = session == Some(stat.session);
            if stat.is_zombie() {
                if in_session
                    && stat.pid != self.main
                    && stat.parent == std::process::id()
                    && let Some(pid) = pid(stat.pid)
                {
                    reap(WaitId::Pid(pid));
                }
                continue;
            }
            if in_session || proc_fs::has_variable(stat.pid, &self.marker) {
                members.extend(Member::hold(stat));
            }
        }
        members
    }

    /// Whether the session's number can still only mean our session.
    fn pins_session(&self) -> bool {
        let is_our_child = || Stat::of(self.main).is_some_and(|s| s.parent == std::process::id());
        self.pidfd.as_ref().is_some_and(|pidfd| !has_ended(pidfd) || is_our_child())
    }

    fn reap(&self) {
        if let Some(pidfd) = &self.pidfd {
            reap(WaitId::PidFd(pidfd.as_fd()));
        }
    }
}

/// A process of the tree, held so that no other can be meant.
#[derive(Debug)]
struct Member {
    stat: Stat,
    pidfd: OwnedFd,
}

impl Member {
    /// `None` if it has ended meanwhile.
    fn hold(stat: Stat) -> Option<Self> {
        let pidfd = open(stat.pid).ok()?;
        let again = Stat::of(stat.pid)?;
        (again.start_time == stat.start_time).then_some(Self { stat, pidfd })
    }

    fn is_resource_tracker(&self) -> bool {
        proc_fs::command_line(self.stat.pid).contains("multiprocessing.resource_tracker")
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn open(number: u32) -> Result<OwnedFd, Errno> {
    match pid(number) {
        Some(pid) => pidfd_open(pid, PidfdFlags::empty()),
        None => Err(Errno::SRCH),
    }
}

/// A process that is gone needs no signal; one that we may not signal is reported as a survivor.
fn send(pidfd: &OwnedFd, signal: Signal) {
    if let Err(error) = pidfd_send_signal(pidfd, signal)
        && error != Errno::SRCH
    {
        tracing::warn!(%error, ?signal, "a signal could not be sent");
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// A duplicate that can be waited for: one descriptor cannot be waited for twice.
#[expect(unsafe_code, reason = "tokio cannot know what becomes of a descriptor")]
fn watched(pidfd: &OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    let duplicate = pidfd.try_clone()?;
    // SAFETY: the descriptor is owned, so it stays open and the same until it is deregistered.
    Ok(unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) }?)
}

/// Waits until one of them has ended, a tenth of a second at most: others may have come meanwhile.
fn wait_for_one(members: &[Member]) {
    let mut fds: Vec<_> =
        members.iter().map(|member| PollFd::new(&member.pidfd, PollFlags::IN)).collect();
    wait(&mut fds, Duration::from_millis(100));
}

fn pause(time: Duration) {
    wait(&mut [], time);
}

fn wait(fds: &mut [PollFd<'_>], limit: Duration) {
    // One too long to be told would be for ever.
    let limit = Timespec::try_from(limit).ok();
    if let Err(error) = poll(fds, limit.as_ref()) {
        tracing::debug!(%error, "a wait was cut short");
    }
}

fn exit_of(pidfd: &OwnedFd) -> Exit {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // Only a parent may ask; the exit of a process that we adopted stays unknown.
    match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

fn reap(which: WaitId<'_>) {
    // Not our child, or reaped already: nothing to do.
    waitid(which, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
}

#[cfg(test)]
mod tests;
