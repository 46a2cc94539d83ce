//! Starts vLLM from nothing: `vllm serve` as a process of its own session.
//!
//! What it makes of a launch (log, scratch directory, record) it also removes, once nothing of the
//! launch is alive. The log stays; `log_tail` keeps the logs within bounds.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::io::Errno;

use super::directory::Directory;
use super::gpu::GpuRoom;
use super::guardian::{Guarded, Guardian, GuardianError};
use super::kernel_log::KernelLog;
use super::listener::Members;
use super::log_tail::LaunchLog;
use super::memory_kills::MemoryKills;
use super::ownership::{on_own_thread, probe};
use super::proc_fs;
use super::process_record::{ProcessRecord, RecordFile, Switched};
use super::process_tree::ProcessTree;
use super::scratch::{self, Owner, Scratch};
use super::state_directory::{StateDirectory, StateDirectoryError};
use super::system_error::{self, cannot_write};
use super::warm::{Ahead, Warm};
use crate::domain::absence::ScanError;
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::spec::ExitPolicy;
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memory, Recall};
use crate::ports::{Claim, Found, Launcher, Pending};

mod address;
mod before;
mod child_command;
mod claim;
mod finding;
mod keeping;
mod memory;
mod python;
mod read_ahead;
mod recipe;
mod search;
mod starting;

pub use address::{AddressFault, can_be_listened_at};
use before::Before;
use claim::{Launch, LaunchClaim, Traces};
use memory::LaunchMemory;
use read_ahead::ReadAhead;
pub use recipe::{Foresee, Foreseen, LaunchRecipe, foresee};
use starting::{Start, Way};

/// A marker prefix that no other supervisor has.
///
/// # Errors
///
/// The system's, when it has no randomness to give.
pub fn fresh_marker_prefix() -> io::Result<String> {
    proc_fs::random_uuid()
}

/// The main process of a vLLM that an earlier supervisor left running at this address, by what it
/// has written in its state directory.
pub fn left_running(state_directory: &Path, address: SocketAddr) -> Option<u32> {
    let record = match RecordFile::in_directory(state_directory).read() {
        Ok(record) => record?,
        Err(error) => {
            tracing::warn!(%error, "it cannot be read what an earlier supervisor left running");
            return None;
        }
    };
    let has = |flag: &str, value: String| {
        record.settings.windows(2).any(|pair| pair == [flag.to_owned(), value.clone()])
    };
    if !has("--host", address.ip().to_string()) || !has("--port", address.port().to_string()) {
        return None;
    }
    record.living_main().ok()?
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ProcessLauncher {
    recipe: LaunchRecipe,
    state: Arc<StateDirectory>,
    record: RecordFile,
    /// The directory where nothing is on record that lives, and that we have not launched.
    searched: Arc<Mutex<Arc<Directory>>>,
    /// The launch that was claimed or found last.
    present: Arc<Mutex<Weak<Launch>>>,
    /// What launches are forked from, from the first launch on, if it is to be.
    warm: Arc<Mutex<Option<Arc<Warm>>>>,
    /// What launches have come to.
    memory: LaunchMemory,
    read_ahead: ReadAhead,
    /// Waits for room on the GPUs.
    room: Option<GpuRoom>,
}

impl ProcessLauncher {
    /// A launcher by this recipe, which keeps its records in this directory.
    pub fn new(recipe: LaunchRecipe, state: Arc<StateDirectory>) -> Self {
        let record = RecordFile::in_directory(state.path());
        let searched = Arc::new(Mutex::new(state.present().now()));
        let memory = LaunchMemory::in_directory(Arc::clone(&state));
        let (present, warm, read_ahead) = (Arc::default(), Arc::default(), ReadAhead::default());
        let room = None;
        Self { recipe, state, record, searched, present, warm, memory, read_ahead, room }
    }

    /// The same, which starts nothing before its GPUs have room for it.
    #[must_use]
    pub fn waiting_for(self, room: GpuRoom) -> Self {
        Self { room: Some(room), ..self }
    }

    /// Tells the processes of the launch that was claimed or found last.
    pub fn members(&self) -> Members {
        let present = Arc::clone(&self.present);
        Arc::new(move || {
            let present = present.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            present.map_or_else(|| Ok(Vec::new()), |launch| launch.tree.members())
        })
    }

    fn settings(&self, target: &Target) -> Vec<String> {
        let variables = self.recipe.environment.iter().map(|(name, it)| format!("{name}={it}"));
        self.words(target).into_iter().chain(variables).collect()
    }

    /// The words of vLLM's command, program first.
    fn words(&self, target: &Target) -> Vec<String> {
        let (before, after) = (self.recipe.before_model.iter(), self.recipe.after_model.iter());
        let after = after.chain(target.arguments.words());
        before.cloned().chain([target.model.to_string()]).chain(after.cloned()).collect()
    }

    /// What it is that nobody has configured, if so.
    fn switched(&self, target: &Target) -> Option<Switched> {
        let configured = &self.recipe.configured;
        (target != configured).then(|| Switched {
            configured: self.settings(configured),
            target: target.clone(),
            phase: Phase::Loading,
        })
    }

    fn traces(&self, record: &ProcessRecord, scratch: Vec<PathBuf>) -> Traces {
        let (marker, state) = (record.marker.clone(), Arc::clone(&self.state));
        Traces { marker, record: self.record.clone(), scratch, state }
    }

    fn launch(
        &self,
        record: &ProcessRecord,
        tree: ProcessTree,
        traces: Traces,
        way: Way,
    ) -> Arc<Launch> {
        let Way { method, made, known } = way;
        let is_warm = made.get().is_none() && method > LaunchMethod::Cold;
        let launch = Arc::new(Launch {
            tree,
            start: Mutex::default(),
            made,
            known,
            warm: if is_warm { self.warm() } else { Weak::new() },
            called_off: AtomicBool::new(false),
            news: Mutex::default(),
            written: Mutex::new(Some(record.clone())),
            directory: self.state.present().now(),
            log: LaunchLog::of(&self.state, record.incarnation),
            memory_kills: MemoryKills::from_now(),
            kernel_log: KernelLog::from_now(),
            secrets: self.recipe.hidden(),
            traces,
        });
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&launch);
        launch
    }

    /// From here on nothing of the launch outlives us against our orders.
    fn guard(&self, traces: &Traces, tree: &ProcessTree) -> Result<(), GuardianError> {
        match self.recipe.on_exit {
            ExitPolicy::Stop => {
                tree.guard(Guardian::watch(&Guarded {
                    marker: traces.marker.clone(),
                    cgroup: tree.cgroup_path(),
                    directories: traces.scratch.clone(),
                    older: tree.older(),
                })?);
                Ok(())
            }
            ExitPolicy::Detach => Ok(()),
        }
    }

    /// Makes everything that a launch needs, except its process and its guardian, who was told of
    /// it before.
    fn furnish(
        &self,
        launch: &Launch,
        record: ProcessRecord,
        scratch: &Scratch,
        target: &Target,
        method: LaunchMethod,
    ) -> Result<(), Cause> {
        // Written before the launch as well: whoever finds it can look for the marker.
        self.record.write(&record).map_err(|error| cannot_write(self.state.path(), &error))?;
        let made = scratch.make().and_then(|()| self.own(&scratch.path));
        made.map_err(|error| cannot_write(&scratch.path, &error))?;
        let path = launch.log.path();
        let unwritable = |error| cannot_write(&path, &error);
        let log = launch.log.begin().map_err(unwritable)?;
        let marks = search::marks(&record.marker, &self.state, &scratch.path);
        let variables = child_command::of_launch(&self.recipe, scratch);
        let mut command = child_command::vllm(&self.recipe, target, scratch);
        command
            .stdout(log.try_clone().map_err(unwritable)?)
            .stderr(log.try_clone().map_err(unwritable)?)
            .envs(&marks);
        if let Some(entrance) = launch.tree.entrance() {
            join(&mut command, entrance);
        }
        let mut start = launch.start.lock().unwrap_or_else(PoisonError::into_inner);
        let warm = launch.warm.upgrade().filter(|warm| warm.is_to_learn(target.model.as_str()));
        let lesson = warm.map(|_| target.model.to_string());
        start.replace(Start { command, record, log, marks, variables, lesson, method });
        Ok(())
    }

    /// How such a launch is made, as far as is known beforehand.
    fn way(&self, target: &Target, method: LaunchMethod) -> Way {
        let mut known = self.memory.recall(&self.likes(target));
        if !self.is_auto() {
            (known.at_most, known.recall) = (LaunchMethod::Ahead, Recall::NotCompared);
        }
        Way { method: method.min(known.at_most), made: OnceLock::new(), known }
    }

    fn own(&self, scratch: &Path) -> io::Result<()> {
        match self.state.launches().take(scratch, None)? {
            Owner::Us => Ok(()),
            Owner::Another => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Launcher for ProcessLauncher {
    fn claim(
        &self,
        incarnation: Incarnation,
        target: &Target,
        method: LaunchMethod,
    ) -> Result<Arc<dyn Claim>, Cause> {
        processes_can_be_held()?;
        address::can_be_listened_at(self.recipe.address).map_err(|fault| fault.cause())?;
        self.state.restore().map_err(|error| unusable(&error))?;
        self.spare_another()?;
        let scratch = scratch::choose(&self.recipe.scratch)
            .map_err(|error| system_error::cause(&error.to_string(), &error.source))?;
        let record = ProcessRecord {
            boot_id: proc_fs::boot_id().map_err(|error| cannot_own(&error))?,
            incarnation,
            marker: format!("{}-{incarnation}", self.recipe.marker_prefix),
            claimed: Some(proc_fs::start_time_now()),
            main: None,
            settings: self.settings(target),
            switched: self.switched(target),
            scratch: Some(scratch.path.clone()),
        };
        let tree = ProcessTree::claim(&record.marker).map_err(|error| cannot_own(&error))?;
        let traces = self.traces(&record, vec![scratch.path.clone()]);
        self.guard(&traces, &tree).map_err(|error| cannot_guard(&error))?;
        let way = self.way(target, method);
        let method = way.method;
        let launch = self.launch(&record, tree, traces, way);
        self.read_ahead.begin(target.model.as_str());
        match self.furnish(&launch, record, &scratch, target, method) {
            Ok(()) => {
                let (foresee, room) = (Arc::clone(&self.recipe.foresee), self.room.clone());
                let before = Before { target: target.clone(), foresee, room };
                Ok(Arc::new(LaunchClaim::armed(launch, before)))
            }
            Err(cause) => {
                launch.traces.remove();
                Err(cause)
            }
        }
    }

    fn find(&self, target: &Target) -> Pending<'static, Result<Found, ScanError>> {
        let (launcher, target) = (self.clone(), target.clone());
        let look = move || launcher.look(&target);
        Box::pin(async move { on_own_thread("vllm-look", look).await? })
    }

    fn prepare(&self, target: &Target, method: LaunchMethod) {
        self.read_ahead.begin(target.model.as_str());
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let method = self.way(target, method).method;
        if let Some(warm) = warm.filter(|_| method == LaunchMethod::Ahead) {
            warm.go_ahead(&Ahead { words: self.words(target), engines: true });
        }
    }

    fn remember(&self, target: &Target, memory: &Memory) {
        if self.is_auto() || matches!(memory, Memory::Course(..)) {
            self.memory.keep(self.likes(target), memory);
        }
        if *memory == Memory::AtMost(LaunchMethod::Cold) {
            self.rest();
        }
    }

    fn rest(&self) {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(warm);
    }
}

/// Held by a number alone, a process could be another one by the time it is signalled.
fn processes_can_be_held() -> Result<(), Cause> {
    probe().map_err(|(call, error)| {
        let said = format!("{call} fails, without which no process can be owned: {error}");
        let cause = Cause::new(Code::Unrecognised, said);
        match error {
            // A sandbox, or a kernel before Linux 5.4: it will say the same the next time.
            Errno::PERM | Errno::NOSYS | Errno::ACCESS | Errno::INVAL => {
                Cause { retry: RetryClass::Permanent, ..cause }
            }
            _ => cause,
        }
    })
}

fn cannot_own(error: &ScanError) -> Cause {
    Cause::new(Code::Unrecognised, format!("a launch could not be owned: {error}"))
}

fn unusable(error: &StateDirectoryError) -> Cause {
    match error {
        StateDirectoryError::Unusable { source, .. } => {
            system_error::cause(&error.to_string(), source)
        }
        // Somebody has put another one in the place of ours; its supervisor may end.
        StateDirectoryError::InUse { .. } => Cause {
            retry: RetryClass::AfterCleanup,
            ..Cause::new(Code::InvalidConfiguration, error.to_string())
        },
        StateDirectoryError::Unsafe { .. } => {
            Cause::new(Code::InvalidConfiguration, error.to_string())
        }
    }
}

fn cannot_guard(error: &GuardianError) -> Cause {
    match error {
        GuardianError::Path(_) => Cause::new(Code::InvalidConfiguration, error.to_string()),
        GuardianError::System { source, .. } => {
            system_error::cause(&format!("vLLM would outlive us: {error}"), source)
        }
    }
}

/// Makes the process a member of a cgroup before it runs.
#[expect(unsafe_code, reason = "a process can only move itself between fork and exec")]
pub(super) fn join(command: &mut Command, entrance: File) {
    // SAFETY: write(2) is async-signal-safe, and the closure does nothing else.
    unsafe {
        command.pre_exec(move || {
            // Refused, it is owned by session and marker.
            rustix::io::write(&entrance, b"0").ok();
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests;
