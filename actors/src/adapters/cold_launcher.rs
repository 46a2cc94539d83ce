//! Starts vLLM from nothing: `vllm serve` as a process of its own session.
//!
//! What it makes of a launch (log, scratch directory, record) it also removes, once nothing of the
//! launch is alive. The log stays, for the last ten launches.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::guardian::{Guarded, Guardian, GuardianError};
use super::listener::{self, Members};
use super::log_tail;
use super::proc_fs::{self, Stat};
use super::process_record::{ProcessRecord, RecordError, RecordFile};
use super::process_tree::{MARKER, ProcessTree};
use super::scratch;
use super::state_directory::{StateDirectory, StateDirectoryError};
use super::system_error::{self, cannot_write};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::id::Incarnation;
use crate::domain::report::Work;
use crate::domain::secret::{Secret, redact};
use crate::domain::spec::{ModelId, OnExit};
use crate::ports::{Found, Launcher, Pending, RunningProcess, Signal};

mod child_command;
mod recipe;
mod search;

pub use recipe::LaunchRecipe;

/// Logs kept, the present one included.
const LOGS_KEPT: u64 = 10;

/// Lines of output that a crash is explained by.
const LAST_LINES: usize = 20;

/// A marker prefix that no other supervisor has.
///
/// # Errors
///
/// The system's, when it has no randomness to give.
pub fn fresh_marker_prefix() -> io::Result<String> {
    proc_fs::random_uuid()
}

/// The main process of a vLLM that an earlier supervisor left running with this port, by what it
/// has written in its state directory.
pub fn left_running(state_directory: &Path, port: u16) -> Option<u32> {
    let record = match RecordFile::in_directory(state_directory).read() {
        Ok(record) => record?,
        Err(error) => {
            tracing::warn!(%error, "it cannot be read what an earlier supervisor left running");
            return None;
        }
    };
    let port = ["--port".to_owned(), port.to_string()];
    if !record.settings.windows(2).any(|pair| pair == port) {
        return None;
    }
    let tree = record.tree();
    tree.main_is_alive().then(|| tree.main())
}

/// See the module.
#[derive(Debug)]
pub struct ColdLauncher {
    recipe: LaunchRecipe,
    state: Arc<StateDirectory>,
    record: RecordFile,
    /// The launch that was made or found last.
    present: Arc<Mutex<Weak<ProcessTree>>>,
}

impl ColdLauncher {
    /// A launcher by this recipe, which keeps its records in this directory.
    pub fn new(recipe: LaunchRecipe, state: Arc<StateDirectory>) -> Self {
        let record = RecordFile::in_directory(state.path());
        Self { recipe, state, record, present: Arc::default() }
    }

    /// Tells the processes of the launch that was made or found last.
    pub fn members(&self) -> Members {
        let present = Arc::clone(&self.present);
        Arc::new(move || {
            let present = present.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            Ok(present.map(|tree| tree.pids()).unwrap_or_default())
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

    /// Begun before vLLM is: from here on nothing of the launch outlives us against our orders.
    fn guard(&self, record: &ProcessRecord) -> Result<Option<Guardian>, GuardianError> {
        let guarded = || Guarded {
            marker: record.marker.clone(),
            cgroup: None,
            directories: record.scratch.iter().cloned().collect(),
        };
        match self.recipe.on_exit {
            OnExit::Stop => Guardian::watch(&guarded()).map(Some),
            OnExit::Detach => Ok(None),
        }
    }

    fn process(
        &self,
        record: &ProcessRecord,
        tree: ProcessTree,
        guardian: Option<Guardian>,
    ) -> ColdProcess {
        if let (Some(guardian), Some(main)) = (&guardian, Stat::of(tree.main())) {
            guardian.note(&[(main.pid, main.start_time)]);
        }
        let tree = Arc::new(tree);
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&tree);
        ColdProcess {
            tree,
            _guardian: guardian,
            log: self.state.log_of(record.incarnation),
            secrets: self.recipe.secrets.iter().map(|(_, secret)| secret.clone()).collect(),
            traces: Arc::new(Traces {
                marker: record.marker.clone(),
                record: self.record.clone(),
                scratch: record.scratch.clone(),
            }),
        }
    }

    fn start(&self, record: &mut ProcessRecord, model: &ModelId) -> Result<ColdProcess, Cause> {
        let scratch = scratch::choose(&self.recipe.scratch)
            .map_err(|error| system_error::cause(&error.to_string(), &error.source))?;
        record.scratch = Some(scratch.path.clone());
        let guardian = self.guard(record).map_err(|error| cannot_guard(&error))?;
        // Written before the launch as well: whoever finds it can look for the marker.
        self.record.write(record).map_err(|error| cannot_write(self.state.path(), &error))?;
        scratch.make().map_err(|error| cannot_write(&scratch.path, &error))?;
        let log_path = self.state.log_of(record.incarnation);
        let unwritable = |error| cannot_write(&log_path, &error);
        let log = open_log(&log_path).map_err(unwritable)?;
        self.prune_logs(record.incarnation);
        let mut command = child_command::vllm(&self.recipe, model, &scratch);
        command
            .stdout(log.try_clone().map_err(unwritable)?)
            .stderr(log)
            .env(search::STATE, self.state.path())
            .env(MARKER, &record.marker);
        let child = command.spawn().map_err(|error| {
            system_error::cannot_run(&command.get_program().to_string_lossy(), &error)
        })?;
        let tree = ProcessTree::of_child(child.id(), &record.marker).map_err(|error| {
            Cause::new(Code::Unrecognised, format!("cannot watch vLLM: {error}"))
        })?;
        record.main = Stat::of(child.id()).map(|stat| (child.id(), stat.start_time));
        if let Err(error) = self.record.write(record) {
            tracing::error!(%error, "the running vLLM cannot be recorded: no other supervisor will find it");
        }
        Ok(self.process(record, tree, guardian))
    }

    /// What an earlier supervisor left, where its record cannot be read: that is not nothing.
    fn search(&self, error: &RecordError) -> Option<ProcessRecord> {
        let path = self.record.path();
        tracing::error!(%error, path = %path.display(), "the record of an earlier launch cannot be read");
        let (marker, incarnation) = search::launches_of(self.state.path()).into_iter().next()?;
        Some(ProcessRecord { incarnation, marker, ..self.fresh_record(incarnation, Vec::new()) })
    }

    fn fresh_record(&self, incarnation: Incarnation, settings: Vec<String>) -> ProcessRecord {
        ProcessRecord {
            boot_id: proc_fs::boot_id(),
            incarnation,
            marker: format!("{}-{incarnation}", self.recipe.marker_prefix),
            main: None,
            settings,
            scratch: None,
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

    fn prune_logs(&self, incarnation: Incarnation) {
        let Some(stale) = incarnation.get().checked_sub(LOGS_KEPT) else { return };
        // Most often there is none.
        drop(fs::remove_file(self.state.log_of(Incarnation::new(stale))));
    }
}

impl Launcher for ColdLauncher {
    fn launch(
        &self,
        incarnation: Incarnation,
        model: &ModelId,
    ) -> Result<Arc<dyn RunningProcess>, Cause> {
        port_is_free(self.recipe.address)?;
        self.state.restore().map_err(|error| unusable(&error))?;
        let mut record = self.fresh_record(incarnation, self.settings(model));
        match self.start(&mut record, model) {
            Ok(process) => Ok(Arc::new(process)),
            Err(cause) => {
                let ProcessRecord { marker, scratch, .. } = record;
                Traces { marker, record: self.record.clone(), scratch }.remove();
                Err(cause)
            }
        }
    }

    fn find(&self, model: &ModelId) -> Pending<'static, Found> {
        let record = match self.record.read() {
            Ok(Some(record)) => record,
            Ok(None) => return Box::pin(async { Found::Nothing }),
            Err(error) => {
                let Some(record) = self.search(&error) else {
                    self.set_record_aside();
                    return Box::pin(async { Found::Nothing });
                };
                record
            }
        };
        let incarnation = record.incarnation;
        let guardian = self.guard(&record).unwrap_or_else(|error| {
            tracing::error!(%error, "vLLM will outlive this supervisor if it is killed");
            None
        });
        let process = self.process(&record, record.tree(), guardian);
        let same_settings = record.settings == self.settings(model);
        Box::pin(async move {
            if process.tree.main_is_alive() && same_settings {
                return Found::Ready { incarnation, process: Arc::new(process) };
            }
            let tree = Arc::clone(&process.tree);
            if blocking(move || tree.is_alive()).await {
                return Found::Remnant { incarnation, process: Arc::new(process) };
            }
            process.traces.remove();
            Found::Nothing
        })
    }
}

/// A launch, running or not yet proven gone.
#[derive(Debug)]
struct ColdProcess {
    tree: Arc<ProcessTree>,
    /// On duty until the launch is proven gone, or is somebody else's.
    _guardian: Option<Guardian>,
    log: PathBuf,
    secrets: Vec<Secret>,
    traces: Arc<Traces>,
}

impl RunningProcess for ColdProcess {
    fn pid(&self) -> u32 {
        self.tree.main()
    }

    fn ended(&self) -> Pending<'static, Exit> {
        Box::pin(self.tree.ended())
    }

    fn signal_main(&self, signal: Signal) {
        self.tree.signal_main(match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        });
    }

    fn sweep(&self) -> Pending<'static, Vec<u32>> {
        let (tree, traces) = (Arc::clone(&self.tree), Arc::clone(&self.traces));
        Box::pin(blocking(move || sweep(&tree, &traces)))
    }

    fn sweep_blocking(&self) -> Vec<u32> {
        sweep(&self.tree, &self.traces)
    }

    fn work(&self) -> Pending<'static, Work> {
        let tree = Arc::clone(&self.tree);
        Box::pin(blocking(move || tree.work()))
    }

    fn last_lines(&self) -> Pending<'static, Vec<String>> {
        let (log, secrets) = (self.log.clone(), self.secrets.clone());
        Box::pin(blocking(move || {
            let lines = log_tail::last_lines(&log, LAST_LINES).unwrap_or_default();
            lines.into_iter().map(|line| redact(&line, &secrets)).collect()
        }))
    }
}

fn sweep(tree: &ProcessTree, traces: &Traces) -> Vec<u32> {
    let survivors = tree.sweep();
    if survivors.is_empty() {
        traces.remove();
    }
    survivors
}

/// What a launch leaves in the file system, its log apart.
#[derive(Debug)]
struct Traces {
    marker: String,
    record: RecordFile,
    scratch: Option<PathBuf>,
}

impl Traces {
    fn remove(&self) {
        self.record.remove(&self.marker);
        if let Some(path) = &self.scratch {
            scratch::remove(path);
        }
    }
}

async fn blocking<T: Send + Default + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is ending, and this future with it.
        Err(_) => std::future::pending().await,
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    // Neither through a link nor into a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600).custom_flags(flags).open(path)?;
    // Appending, so that whoever shortens the file makes room at once.
    OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Whether vLLM could listen there now.
///
/// # Errors
///
/// The cause of the failure to start that would follow.
pub fn port_is_free(address: SocketAddr) -> Result<(), Cause> {
    // vLLM sets SO_REUSEADDR as well (launcher.py, 0.32), so this fails exactly when it would.
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = listener::holder_of(address);
            let holder = holder.map_or_else(|| "another process".to_owned(), |it| it.to_string());
            Err(Cause::new(Code::PortInUse, format!("{address} is in use by {holder}")))
        }
        Err(error) => Err(system_error::cause(&format!("cannot listen on {address}"), &error)),
    }
}

fn unusable(error: &StateDirectoryError) -> Cause {
    match error {
        StateDirectoryError::Unusable { source, .. } => {
            system_error::cause(&error.to_string(), source)
        }
        StateDirectoryError::InUse { .. } | StateDirectoryError::Unsafe { .. } => {
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

#[cfg(test)]
mod tests;
