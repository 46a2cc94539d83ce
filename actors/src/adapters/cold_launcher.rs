//! Starts vLLM from nothing: `vllm serve` as a process of its own session.
//!
//! What it makes of a launch (log, scratch directory, record) it also removes, once nothing of the
//! launch is alive. The log stays; `log_tail` keeps the logs within bounds.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;

use super::guardian::{Guarded, Guardian, GuardianError};
use super::listener::Members;
use super::log_tail::LaunchLog;
use super::marks::MARKER;
use super::ownership::{Held, on_own_thread, probe};
use super::proc_fs;
use super::process_record::{ProcessRecord, RecordError, RecordFile};
use super::process_tree::ProcessTree;
use super::scratch::{self, Scratch};
use super::state_directory::{StateDirectory, StateDirectoryError};
use super::system_error::{self, cannot_write};
use crate::domain::absence::{Proof, ScanError, ScanErrorKind};
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::id::Incarnation;
use crate::domain::spec::{ExitPolicy, ModelId};
use crate::ports::{Claim, Found, Head, Launcher, Pending};

mod address;
mod child_command;
mod claim;
mod recipe;
mod search;

pub use address::{AddressFault, can_be_listened_at};
use claim::{ColdClaim, Launch, Start, Traces};
pub use recipe::LaunchRecipe;
use search::{Reason, Sought};

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
    let boot_id = proc_fs::boot_id().ok()?;
    let has = |flag: &str, value: String| {
        record.settings.windows(2).any(|pair| pair == [flag.to_owned(), value.clone()])
    };
    if !has("--host", address.ip().to_string()) || !has("--port", address.port().to_string()) {
        return None;
    }
    let (pid, start_time) = record.main.filter(|_| record.boot_id == boot_id)?;
    let main = Held::open(pid, start_time).ok()??;
    (!main.has_ended()).then_some(pid)
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ColdLauncher {
    recipe: LaunchRecipe,
    state: Arc<StateDirectory>,
    record: RecordFile,
    /// The launch that was claimed or found last.
    present: Arc<Mutex<Weak<Launch>>>,
}

impl ColdLauncher {
    /// A launcher by this recipe, which keeps its records in this directory.
    pub fn new(recipe: LaunchRecipe, state: Arc<StateDirectory>) -> Self {
        let record = RecordFile::in_directory(state.path());
        Self { recipe, state, record, present: Arc::default() }
    }

    /// Tells the processes of the launch that was claimed or found last.
    pub fn members(&self) -> Members {
        let present = Arc::clone(&self.present);
        Arc::new(move || {
            let present = present.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            present.map_or_else(|| Ok(Vec::new()), |launch| launch.tree.members())
        })
    }

    fn settings(&self, model: &ModelId) -> Vec<String> {
        let recipe = &self.recipe;
        let variables = recipe.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let words = recipe.before_model.iter().cloned();
        words
            .chain([model.to_string()])
            .chain(recipe.after_model.iter().cloned())
            .chain(variables)
            .collect()
    }

    fn launch(&self, record: &ProcessRecord, tree: ProcessTree) -> Arc<Launch> {
        let launch = Arc::new(Launch {
            tree,
            start: Mutex::default(),
            written: Mutex::new(Some(record.clone())),
            state: Arc::clone(&self.state),
            log: LaunchLog::of(&self.state, record.incarnation),
            secrets: self.recipe.secrets.iter().map(|(_, secret)| secret.clone()).collect(),
            traces: Traces {
                marker: record.marker.clone(),
                record: self.record.clone(),
                scratch: record.scratch.clone(),
            },
        });
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&launch);
        launch
    }

    /// From here on nothing of the launch outlives us against our orders.
    fn guard(&self, record: &ProcessRecord, tree: &ProcessTree) -> Result<(), GuardianError> {
        match self.recipe.on_exit {
            ExitPolicy::Stop => {
                tree.guard(Guardian::watch(&Guarded {
                    marker: record.marker.clone(),
                    cgroup: tree.cgroup_path(),
                    directories: record.scratch.iter().cloned().collect(),
                    older: tree.older(),
                })?);
                Ok(())
            }
            ExitPolicy::Detach => Ok(()),
        }
    }

    /// Makes everything that a launch needs, except its process and its guardian, who was told of
    /// it before.
    fn prepare(
        &self,
        launch: &Launch,
        record: ProcessRecord,
        scratch: &Scratch,
        model: &ModelId,
    ) -> Result<(), Cause> {
        // Written before the launch as well: whoever finds it can look for the marker.
        self.record.write(&record).map_err(|error| cannot_write(self.state.path(), &error))?;
        scratch.make().map_err(|error| cannot_write(&scratch.path, &error))?;
        let path = launch.log.path();
        let unwritable = |error| cannot_write(&path, &error);
        let log = launch.log.begin().map_err(unwritable)?;
        let mut command = child_command::vllm(&self.recipe, model, scratch);
        command
            .stdout(log.try_clone().map_err(unwritable)?)
            .stderr(log)
            .env(MARKER, &record.marker);
        search::mark(&mut command, &self.state);
        if let Some(entrance) = launch.tree.entrance() {
            join(&mut command, entrance);
        }
        let mut start = launch.start.lock().unwrap_or_else(PoisonError::into_inner);
        start.replace(Start { command, record });
        Ok(())
    }
}

impl Launcher for ColdLauncher {
    fn claim(&self, incarnation: Incarnation, model: &ModelId) -> Result<Arc<dyn Claim>, Cause> {
        processes_can_be_held()?;
        address::can_be_listened_at(self.recipe.address).map_err(|fault| fault.cause())?;
        self.state.restore().map_err(|error| unusable(&error))?;
        let scratch = scratch::choose(&self.recipe.scratch)
            .map_err(|error| system_error::cause(&error.to_string(), &error.source))?;
        let record = ProcessRecord {
            boot_id: proc_fs::boot_id().map_err(|error| cannot_own(&error))?,
            incarnation,
            marker: format!("{}-{incarnation}", self.recipe.marker_prefix),
            claimed: Some(proc_fs::start_time_now()),
            main: None,
            settings: self.settings(model),
            scratch: Some(scratch.path.clone()),
        };
        let tree = ProcessTree::claim(&record.marker).map_err(|error| cannot_own(&error))?;
        self.guard(&record, &tree).map_err(|error| cannot_guard(&error))?;
        let launch = self.launch(&record, tree);
        match self.prepare(&launch, record, &scratch, model) {
            Ok(()) => Ok(Arc::new(ColdClaim::armed(launch))),
            Err(cause) => {
                launch.traces.remove();
                Err(cause)
            }
        }
    }

    fn find(&self, model: &ModelId) -> Pending<'static, Result<Found, ScanError>> {
        let (launcher, settings) = (self.clone(), self.settings(model));
        let look = move || launcher.look(&settings);
        Box::pin(async move { on_own_thread("vllm-look", look).await? })
    }
}

impl ColdLauncher {
    fn look(&self, settings: &[String]) -> Result<Found, ScanError> {
        let record = match self.record.read() {
            Ok(Some(record)) => record,
            Ok(None) => return self.look_by_state(Reason::NoRecord),
            Err(error) => return self.look_without_record(&error),
        };
        if has_another_owner(&Sought::of_launch(&self.state, &record.marker)?)? {
            return self.look_by_state(Reason::NoRecord);
        }
        // Pids of another boot mean nothing; the marker is unique all the same.
        let boot_id = proc_fs::boot_id()?;
        let main = record.main.filter(|_| record.boot_id == boot_id);
        let launch = self.launch(&record, ProcessTree::of_other(main, &record.marker)?);
        if let Some(claimed) = record.claimed.filter(|_| record.boot_id == boot_id) {
            launch.tree.begun_at(claimed);
        }
        let main_is_alive = launch.tree.main_is_alive();
        if !main_is_alive {
            let remaining = launch.tree.remaining_in_the_end();
            if remaining.map_err(|error| self.with_a_way_out(error))?.is_empty() {
                launch.traces.remove();
                // An old record, restored from a backup, may stand for a launch after it.
                return self.look_by_state(Reason::NoRecord);
            }
        }
        self.guard_found(&record, &launch.tree);
        if main_is_alive {
            launch.tree.watch()?;
        }
        let incarnation = record.incarnation;
        let claim = Arc::new(ColdClaim::found(launch));
        let head: Option<Arc<dyn Head>> = main_is_alive.then(|| claim.head()).flatten();
        Ok(match head {
            Some(head) if record.settings == settings => Found::Ready { incarnation, claim, head },
            head => Found::Remnant { incarnation, claim, head },
        })
    }

    /// What an earlier supervisor left, where its record cannot be read: that is not nothing.
    fn look_without_record(&self, error: &RecordError) -> Result<Found, ScanError> {
        let path = self.record.path().display().to_string();
        if let RecordError::Unreadable(source) = error
            && system_error::class_of(source).1 == RetryClass::Transient
        {
            // It may be readable the next time.
            return Err(ScanError::new(path, source));
        }
        tracing::error!(%error, path, "the record of an earlier launch cannot be read");
        let found = self.look_by_state(Reason::UnreadableRecord)?;
        match found {
            Found::Nothing(_) => self.set_record_aside(),
            Found::Ready { .. } | Found::Remnant { .. } => {}
        }
        Ok(found)
    }

    /// Of a process that may be a stranger's nobody can say more than whoever operates the machine.
    fn with_a_way_out(&self, error: ScanError) -> ScanError {
        if error.kind != ScanErrorKind::Undecided {
            return error;
        }
        let path = self.record.path();
        let said = format!("{}, or remove {} if it is not", error.said, path.display());
        ScanError { said, ..error }
    }

    /// By what all launches of this directory carry: there may be more than one.
    fn look_by_state(&self, reason: Reason) -> Result<Found, ScanError> {
        let sought = Sought::of_state(&self.state, reason)?;
        has_another_owner(&sought)?;
        let all = ProcessTree::of_all(sought.marked(), None)?;
        if all.remaining_in_the_end()?.is_empty() {
            return Ok(nothing());
        }
        let (marker, incarnation) = sought.launch_of_any(&all.members()?)?;
        let record = ProcessRecord {
            boot_id: proc_fs::boot_id()?,
            incarnation,
            marker,
            claimed: None,
            main: None,
            settings: Vec::new(),
            scratch: None,
        };
        let launch =
            self.launch(&record, ProcessTree::of_all(sought.marked(), Some(&record.marker))?);
        launch.tree.members()?;
        self.guard_found(&record, &launch.tree);
        let claim = Arc::new(ColdClaim::found(launch));
        Ok(Found::Remnant { incarnation, claim, head: None })
    }

    fn guard_found(&self, record: &ProcessRecord, tree: &ProcessTree) {
        if let Err(error) = self.guard(record, tree) {
            tracing::error!(%error, "vLLM will outlive this supervisor if it is killed");
        }
    }

    /// Nothing of an earlier launch is alive: what stands in the way of a new record goes aside.
    fn set_record_aside(&self) {
        match self.record.set_aside() {
            Ok(path) => {
                tracing::warn!(path = %path.display(), "nothing runs of it; it is kept there");
            }
            Err(error) => tracing::error!(%error, "the unreadable record stays where it is"),
        }
    }
}

/// Whether another supervisor, who is alive, owns some of it, which is left alone.
fn has_another_owner(sought: &Sought) -> Result<bool, ScanError> {
    let pids = sought.owned_by_another()?;
    if !pids.is_empty() {
        tracing::warn!(
            ?pids,
            "a vLLM of another supervisor, who is alive, is left alone: our state directory is a copy \
             of that one's, or has taken its place"
        );
    }
    Ok(!pids.is_empty())
}

fn nothing() -> Found {
    Proof::of(Ok(Vec::new())).map(Found::Nothing).expect("nothing is left where nothing is")
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
