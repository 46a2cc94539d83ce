//! Everything that one launch of vLLM started, and its end.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};

use super::guardian::Guardian;
use super::marks::MARKER;
use super::ownership::{
    Cgroup, Depth, Held, Marked, Older, Ownership, Parent, Roster, Segments, Spare, Watched, watch,
};
use super::pause::pause;
use super::proc_fs;
use crate::domain::absence::{Doubt, Leftover, Proof, ScanError};
use crate::domain::diagnosis::Exit;
use crate::domain::report::Sample;
use crate::ports::{Death, DeathSource};

mod deaths;
mod reserve;
mod starting;
mod waiting;

use deaths::Deaths;
use reserve::Reserve;
pub(super) use starting::StartError;
use starting::end;
use waiting::wait_for_one;

/// How long the resource tracker of Python's `multiprocessing` may take to remove the shared memory
/// of those it outlived. It ends by itself; killed, it would leave to us what nobody has mapped.
const TRACKER_GRACE: Duration = Duration::from_millis(1500);

/// The time that one sweep takes at most.
const SWEEP_BUDGET: Duration = Duration::from_secs(3);

/// The time that one question takes at most.
const LOOK_BUDGET: Duration = Duration::from_secs(3);

/// How long to wait before nobody seen is believed: longer than an `exec` commonly hides an
/// environment.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// The pause after a look that failed, in which others come to the roster and to the processor.
const LOOK_PAUSE: Duration = Duration::from_millis(15);

/// Whether a process carries a marker that begins with `prefix`, as all launches of one supervisor
/// do. One that cannot be looked at is not known to.
#[cfg(test)]
pub(crate) fn carries_marker(pid: u32, prefix: &str) -> bool {
    let wanted = format!("{MARKER}={prefix}");
    let is_wanted = |variable: &[u8]| variable.starts_with(wanted.as_bytes());
    let environment = proc_fs::environment(pid).ok().flatten();
    environment.is_some_and(|environment| proc_fs::has_variable(&environment, is_wanted))
}

/// One launch of vLLM, and all that it started.
#[derive(Debug)]
pub(super) struct ProcessTree {
    watched: Arc<Watched>,
    end: watch::Receiver<Option<Exit>>,
    /// Taken by whoever listens first.
    deaths: Mutex<Option<mpsc::UnboundedReceiver<Death>>>,
    reserve: Reserve,
    is_swept: AtomicBool,
}

impl ProcessTree {
    /// Owns a launch that is yet to be started.
    ///
    /// # Errors
    ///
    /// What could not be looked at or held, so that the launch could not be owned.
    pub(super) fn claim(marker: &str) -> Result<Self, ScanError> {
        let segments = Segments::before_launch()?;
        let marked = Marked::by(format!("{MARKER}={marker}"));
        let tree = Self::new(Ownership::by(Cgroup::create(marker), marked), segments)?;
        tree.watched.roster().begin(proc_fs::start_time_now());
        Ok(tree)
    }

    /// All launches that are marked so, one of which may be known to have this marker, for whoever
    /// cannot know how many there are.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn of_all(marked: Marked, marker: Option<&str>) -> Result<Self, ScanError> {
        let cgroup = marker.map_or(Ok(None), Cgroup::find)?;
        Self::new(Ownership::by(cgroup, marked), Segments::default())
    }

    /// The launch of another supervisor. Its main process is recognised by pid and start time, of
    /// this boot; if it is gone, the launch is whatever is in its session or carries the marker.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn of_other(main: Option<(u32, u64)>, marker: &str) -> Result<Self, ScanError> {
        let head = main.map_or(Ok(None), |(pid, start_time)| Held::open(pid, start_time))?;
        let head = head.filter(|head| !head.has_ended());
        let of_head = head.as_ref().map_or(Ok(None), |head| Cgroup::of_member(head.pid, marker))?;
        // The head may have been moved elsewhere since, and others not.
        let cgroup = of_head.map_or_else(|| Cgroup::find(marker), |it| Ok(Some(it)))?;
        let marked = Marked::by(format!("{MARKER}={marker}"));
        let tree = Self::new(Ownership::by(cgroup, marked), Segments::of_another(main))?;
        let mut roster = tree.watched.roster();
        match (head, main) {
            (Some(head), _) => tree.watched.lead(&mut roster, head),
            (None, Some(main)) => roster.originate(main),
            (None, None) => {}
        }
        drop(roster);
        Ok(tree)
    }

    fn new(ownership: Ownership, segments: Segments) -> Result<Self, ScanError> {
        let ((died, deaths), (ended, end)) = (mpsc::unbounded_channel(), watch::channel(None));
        let roster = Roster::new(died, ended);
        let watched = Arc::new(Watched::new(ownership, roster, segments));
        let (deaths, reserve) = (Mutex::new(Some(deaths)), Reserve::taken()?);
        Ok(Self { watched, end, deaths, reserve, is_swept: AtomicBool::new(false) })
    }

    /// Where the main process joins, between fork and exec.
    pub(super) fn entrance(&self) -> Option<File> {
        // Without it the launch is owned by session and marker.
        self.watched.ownership.cgroup().and_then(|cgroup| cgroup.entrance().ok())
    }

    /// Starts the main process and holds it. Nobody looks meanwhile, who would take it for another
    /// member, and reap it if it ends at once.
    ///
    /// # Errors
    ///
    /// What kept it from being started, or from being held: then it was ended again.
    pub(super) fn start(&self, command: &mut Command) -> Result<u32, StartError> {
        let mut roster = self.watched.roster();
        let child = command.spawn().map_err(StartError::NotStarted)?;
        let pid = child.id();
        let held = Held::child(pid).or_else(|_| {
            self.reserve.give();
            Held::child(pid)
        });
        match held {
            Ok(held) => self.watched.lead(&mut roster, held),
            Err(error) => {
                end(child);
                return Err(StartError::NotHeld(error));
            }
        }
        self.watched.tell_guardian(&roster);
        drop(roster);
        self.check_entry(pid);
        Ok(pid)
    }

    /// Takes a process that was made for this launch by another, and has done nothing yet, for its
    /// main process.
    ///
    /// # Errors
    ///
    /// What kept it from being held.
    pub(super) fn take(&self, parent: Arc<dyn Parent>, pid: u32) -> Result<(), ScanError> {
        let held = Held::child_of(parent, pid)?;
        self.watched.ownership.check_mark(pid)?;
        let mut roster = self.watched.roster();
        self.watched.lead(&mut roster, held);
        self.watched.tell_guardian(&roster);
        drop(roster);
        self.check_entry(pid);
        Ok(())
    }

    /// Does without the cgroup if the main process was refused there. What cannot be looked at does
    /// not own it either: session and marker do in any case.
    fn check_entry(&self, pid: u32) {
        let Some(cgroup) = self.watched.ownership.cgroup() else { return };
        match cgroup.has(pid) {
            Ok(true) => return,
            Ok(false) => tracing::debug!(pid, "vLLM could not enter its cgroup"),
            Err(error) => tracing::debug!(pid, %error, "vLLM's cgroup cannot be told"),
        }
        cgroup.forsake();
    }

    /// Listens for deaths, and looks for births, from now on.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread to give.
    pub(super) fn watch(&self) -> Result<(), ScanError> {
        watch(&self.watched)
    }

    /// Has this guardian told of the members as they appear.
    pub(super) fn guard(&self, guardian: Guardian) {
        self.watched.guard(guardian);
    }

    /// Nothing is left to be guarded, or it is not ours any more.
    pub(super) fn dismiss_guardian(&self) {
        self.watched.dismiss_guardian();
    }

    /// The directory of its cgroup, if it has one of its own.
    pub(super) fn cgroup_path(&self) -> Option<PathBuf> {
        self.watched.ownership.cgroup().map(|cgroup| cgroup.directory().to_owned())
    }

    /// What was among shared memory before the launch.
    pub(super) fn older(&self) -> Older {
        self.watched.segments().older().clone()
    }

    /// When the launch was claimed, as a start time.
    pub(super) fn claimed_at(&self, start_time: u64) {
        self.watched.claimed_at(start_time);
    }

    /// The pid and the start time of the main process, if one was seen.
    pub(super) fn main(&self) -> Option<(u32, u64)> {
        self.watched.head().map(|head| (head.pid, head.start_time))
    }

    /// Whether the main process runs.
    pub(super) fn main_is_alive(&self) -> bool {
        self.watched.head().is_some_and(|head| !head.has_ended())
    }

    /// Resolves when the main process has ended. It is not reaped: that would free its number.
    pub(super) fn ended(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut end = self.end.clone();
        let has_main = self.main().is_some();
        async move {
            if !has_main {
                return Exit::Unknown;
            }
            match end.wait_for(Option::is_some).await.map(|end| *end) {
                Ok(exit) => exit.unwrap_or(Exit::Unknown),
                // The tree was dropped, and this is about nothing any more.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// The deaths from now on.
    pub(super) fn deaths(&self) -> Box<dyn DeathSource> {
        let taken = self.deaths.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::new(Deaths(taken))
    }

    pub(super) fn signal_main(&self, signal: Signal) {
        let Some(head) = self.watched.head() else { return };
        // A stopped process never handles a signal other than SIGKILL.
        head.send(signal);
        head.send(Signal::CONT);
    }

    /// What is left of the processes. Nothing only if a second look finds nothing either.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn remaining(&self) -> Result<Vec<Leftover>, ScanError> {
        let look = || self.watched.ownership.emptied(&mut self.watched.roster());
        let first = look()?;
        if !first.is_empty() {
            return Ok(first);
        }
        pause(SECOND_LOOK);
        look()
    }

    /// The same, asked again for a while if it cannot be answered: on a busy machine somebody always
    /// comes and goes.
    ///
    /// # Errors
    ///
    /// What could not be looked at.
    pub(super) fn remaining_in_the_end(&self) -> Result<Vec<Leftover>, ScanError> {
        let began = Instant::now();
        loop {
            let remaining = self.remaining();
            if remaining.is_ok() || began.elapsed() >= LOOK_BUDGET {
                return remaining;
            }
            pause(LOOK_PAUSE);
        }
    }

    /// Remembers what the living have mapped.
    pub(super) fn take_stock(&self) -> Result<(), ScanError> {
        self.watched.remember_segments(&self.watched.roster())
    }

    /// Kills everything, removes its shared memory, and waits a little. With the proof the main
    /// process is reaped.
    pub(super) fn sweep(&self) -> Result<Proof, Doubt> {
        self.reserve.give();
        let swept = self.kill_all().and_then(|proof| {
            Proof::of(self.watched.segments().remove())?;
            Ok(proof)
        });
        self.is_swept.store(swept.is_ok(), Ordering::Relaxed);
        if swept.is_ok() {
            // Whoever looks meanwhile would take the number for that of a session that lives.
            self.watched.roster().dissolve();
            if let Some(cgroup) = self.watched.ownership.cgroup() {
                cgroup.remove();
            }
        }
        self.reserve.take();
        swept
    }

    /// Whether the last sweep has left nothing.
    pub(super) fn is_swept(&self) -> bool {
        self.is_swept.load(Ordering::Relaxed)
    }

    fn kill_all(&self) -> Result<Proof, Doubt> {
        let began = Instant::now();
        loop {
            let proof = Proof::of(self.remaining());
            if proof.is_ok() || began.elapsed() >= SWEEP_BUDGET {
                return proof;
            }
            let mut roster = self.watched.roster();
            let all_trackers = roster.members().all(|member| member.is_tracker);
            let spare = if !all_trackers || began.elapsed() < TRACKER_GRACE {
                Spare::Trackers
            } else {
                Spare::Nobody
            };
            let last_look = |roster: &Roster| {
                // What cannot be read now may be read at the next turn, or is lost with its process.
                if let Err(error) = self.watched.remember_segments(roster) {
                    tracing::warn!(%error, "vLLM's shared memory could not be looked at");
                }
            };
            if let Err(error) = self.watched.ownership.kill(&mut roster, spare, last_look) {
                tracing::debug!(%error, "not all of vLLM's processes could be looked at");
            }
            let living: Vec<_> = roster.members().map(|member| Arc::clone(&member.held)).collect();
            drop(roster);
            if living.is_empty() {
                pause(LOOK_PAUSE);
            } else {
                wait_for_one(&living);
            }
        }
    }

    /// The numbers of those who live.
    ///
    /// # Errors
    ///
    /// What could not be looked at: there may be others.
    pub(super) fn members(&self) -> Result<Vec<u32>, ScanError> {
        let began = Instant::now();
        loop {
            let mut roster = self.watched.roster();
            let seen = self.watched.ownership.members(&mut roster, Depth::Everyone);
            if seen.is_ok() || began.elapsed() >= LOOK_BUDGET {
                return seen.map(|()| roster.members().map(|member| member.held.pid).collect());
            }
            drop(roster);
            pause(LOOK_PAUSE);
        }
    }

    /// What the launch has done so far.
    ///
    /// # Errors
    ///
    /// What could not be measured.
    pub(super) fn sample(&self) -> Result<Sample, ScanError> {
        self.watched.sample()
    }
}

#[cfg(test)]
mod tests;
