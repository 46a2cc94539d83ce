//! Starts vLLM from nothing: `vllm serve` as a process of its own session.
//!
//! What it makes of a launch (log, scratch directory, record) it also removes, once nothing of the
//! launch is alive. The log stays, for the last ten launches.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::guardian::{Guarded, Guardian, GuardianError};
use super::log_tail;
use super::proc_fs::{self, Stat};
use super::process_record::{ProcessRecord, RecordFile};
use super::process_tree::{MARKER, ProcessTree};
use super::state_directory::StateDirectory;
use super::system_error::{self, cannot_write};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::id::Incarnation;
use crate::domain::report::Work;
use crate::domain::spec::{ModelId, OnExit};
use crate::ports::{Found, Launcher, Pending, RunningProcess, Signal};

mod child_command;

/// Logs kept, the present one included.
const LOGS_KEPT: u64 = 10;

/// Lines of output that a crash is explained by.
const LAST_LINES: usize = 20;

/// How vLLM is to be started.
#[derive(Clone)]
pub struct LaunchRecipe {
    /// The words before the model, program first.
    pub before_model: Vec<String>,
    /// The words after it.
    pub after_model: Vec<String>,
    /// Where it is to listen.
    pub address: SocketAddr,
    /// Variables set on top of our environment. They win over what this launcher sets itself.
    pub environment: Vec<(String, String)>,
    /// Variables that it gets as well, but that are not to be compared or written anywhere.
    pub secrets: Vec<(String, String)>,
    /// A directory for short-lived files; its path is short, since sockets go there.
    pub scratch: PathBuf,
    /// What all launches of this supervisor have in common in their marker.
    pub marker_prefix: String,
    /// Whether vLLM is to be ended with us, however we end.
    pub on_exit: OnExit,
}

// The environment may hold what should not be seen.
impl fmt::Debug for LaunchRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchRecipe")
            .field("before_model", &self.before_model)
            .field("after_model", &self.after_model)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

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
    let record = RecordFile::in_directory(state_directory).read()?;
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
}

impl ColdLauncher {
    /// A launcher by this recipe, which keeps its records in this directory.
    pub fn new(recipe: LaunchRecipe, state: Arc<StateDirectory>) -> Self {
        let record = RecordFile::in_directory(state.path());
        Self { recipe, state, record }
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

    fn command(&self, model: &ModelId, marker: &str, log: &File) -> io::Result<Command> {
        let recipe = &self.recipe;
        let mut words = recipe.before_model.iter();
        let mut command = child_command::clean(words.next().map_or("vllm", String::as_str));
        command
            .args(words)
            .arg(model.as_str())
            .args(&recipe.after_model)
            // Custom model code asks on stdin whether it may be run, and waits.
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            // For vLLM this is the base of its internal ports, not the HTTP port (envs.py, 0.32).
            .env_remove("VLLM_PORT")
            .env("NO_COLOR", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("VLLM_DISABLE_LOG_LOGO", "1")
            .env("VLLM_NO_USAGE_STATS", "1")
            .env("VLLM_RPC_BASE_PATH", self.scratch_of(marker))
            // Without it setproctitle overwrites the environment that the marker is read from.
            .env("SPT_NOENV", "1")
            .envs(recipe.environment.iter().map(|(name, value)| (name, value)))
            .envs(recipe.secrets.iter().map(|(name, value)| (name, value)))
            .env(MARKER, marker);
        Ok(command)
    }

    fn scratch_of(&self, marker: &str) -> PathBuf {
        scratch(&self.recipe.scratch, marker)
    }

    /// Begun before vLLM is: from here on nothing of the launch outlives us against our orders.
    fn guard(&self, marker: &str) -> Result<Option<Guardian>, GuardianError> {
        let guarded = || Guarded {
            marker: marker.to_owned(),
            cgroup: None,
            directories: vec![self.scratch_of(marker)],
        };
        match self.recipe.on_exit {
            OnExit::Stop => Guardian::watch(&guarded()).map(Some),
            OnExit::Detach => Ok(None),
        }
    }

    fn process(
        &self,
        incarnation: Incarnation,
        marker: &str,
        tree: ProcessTree,
        guardian: Option<Guardian>,
    ) -> ColdProcess {
        if let (Some(guardian), Some(main)) = (&guardian, Stat::of(tree.main())) {
            guardian.note(&[(main.pid, main.start_time)]);
        }
        ColdProcess {
            tree: Arc::new(tree),
            _guardian: guardian,
            log: self.state.log_of(incarnation),
            secrets: self.recipe.secrets.iter().map(|(_, value)| value.clone()).collect(),
            traces: Arc::new(Traces {
                marker: marker.to_owned(),
                record: self.record.clone(),
                scratch: self.scratch_of(marker),
            }),
        }
    }

    fn start(&self, incarnation: Incarnation, model: &ModelId) -> Result<ColdProcess, Cause> {
        let marker = format!("{}-{incarnation}", self.recipe.marker_prefix);
        let mut record = ProcessRecord {
            boot_id: proc_fs::boot_id(),
            incarnation,
            marker: marker.clone(),
            main: None,
            settings: self.settings(model),
        };
        // Written before the launch as well: whoever finds it can look for the marker.
        self.record.write(&record).map_err(|error| cannot_write(self.state.path(), &error))?;
        let log_path = self.state.log_of(incarnation);
        let log = open_log(&log_path).map_err(|error| cannot_write(&log_path, &error))?;
        self.prune_logs(incarnation);
        let scratch = self.scratch_of(&marker);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&scratch)
            .map_err(|error| cannot_write(&scratch, &error))?;
        let mut command =
            self.command(model, &marker, &log).map_err(|error| cannot_write(&log_path, &error))?;
        let guardian = self.guard(&marker).map_err(|error| cannot_guard(&error))?;
        let child = command.spawn().map_err(|error| {
            system_error::cannot_run(&command.get_program().to_string_lossy(), &error)
        })?;
        let tree = ProcessTree::of_child(child.id(), &marker).map_err(|error| {
            Cause::new(Code::Unrecognised, format!("cannot watch vLLM: {error}"))
        })?;
        record.main = Stat::of(child.id()).map(|stat| (child.id(), stat.start_time));
        if let Err(error) = self.record.write(&record) {
            tracing::error!(%error, "the running vLLM cannot be recorded: no other supervisor will find it");
        }
        Ok(self.process(incarnation, &marker, tree, guardian))
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
        match self.start(incarnation, model) {
            Ok(process) => Ok(Arc::new(process)),
            Err(cause) => {
                let marker = format!("{}-{incarnation}", self.recipe.marker_prefix);
                let scratch = self.scratch_of(&marker);
                Traces { marker, record: self.record.clone(), scratch }.remove();
                Err(cause)
            }
        }
    }

    fn find(&self, model: &ModelId) -> Pending<'static, Found> {
        let Some(record) = self.record.read() else { return Box::pin(async { Found::Nothing }) };
        let incarnation = record.incarnation;
        let guardian = self.guard(&record.marker).unwrap_or_else(|error| {
            tracing::error!(%error, "vLLM will outlive this supervisor if it is killed");
            None
        });
        let process = self.process(incarnation, &record.marker, record.tree(), guardian);
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
    secrets: Vec<String>,
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
            lines.into_iter().map(|line| mask(line, &secrets)).collect()
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
    scratch: PathBuf,
}

impl Traces {
    fn remove(&self) {
        self.record.remove(&self.marker);
        match fs::remove_dir_all(&self.scratch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, path = %self.scratch.display(), "leftovers stay behind");
            }
        }
    }
}

/// A socket's path holds 108 bytes, and vLLM appends a UUID: eight digits of the marker and its
/// number are enough.
fn scratch(directory: &Path, marker: &str) -> PathBuf {
    let (head, tail) = (marker.get(..8).unwrap_or(marker), marker.rsplit('-').next());
    directory.join(format!("vllmd-{head}-{}", tail.unwrap_or_default()))
}

fn mask(line: String, secrets: &[String]) -> String {
    secrets.iter().filter(|secret| !secret.is_empty()).fold(line, |line, secret| {
        if line.contains(secret.as_str()) {
            line.replace(secret.as_str(), "********")
        } else {
            line
        }
    })
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
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    // Appending, so that whoever shortens the file makes room at once.
    OpenOptions::new().append(true).open(path)
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
        Err(error) => Err(system_error::cause(&format!("cannot listen on {address}"), &error)),
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
