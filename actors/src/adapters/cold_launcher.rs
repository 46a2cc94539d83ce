//! Starts vLLM from nothing: `vllm serve` as a process of its own session.
//!
//! What it makes of a launch (log, scratch directory, record) it also removes, once nothing of the
//! launch is alive. The log stays; `log_tail` keeps the logs within bounds.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::ownership::{Held, on_own_thread, probe};
use super::proc_fs;
use super::process_record::{ProcessRecord, RecordFile};
use super::process_tree::{MARKER, ProcessTree};
use super::state_directory::StateDirectory;
use crate::domain::absence::{Proof, ScanError};
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::id::Incarnation;
use crate::domain::spec::ModelId;
use crate::ports::{Claim, Found, Head, Launcher, Pending};

mod claim;

use claim::{ColdClaim, Launch, Start, Traces};

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
    let boot_id = proc_fs::boot_id().ok()?;
    let port = ["--port".to_owned(), port.to_string()];
    if !record.settings.windows(2).any(|pair| pair == port) {
        return None;
    }
    let (pid, start_time) = record.main.filter(|_| record.boot_id == boot_id)?;
    let main = Held::open(pid, start_time).ok()??;
    (!main.has_ended()).then_some(pid)
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
        let mut command = new_session(words.next().map_or("vllm", String::as_str));
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

    fn launch(&self, incarnation: Incarnation, marker: &str, tree: ProcessTree) -> Launch {
        Launch {
            tree,
            start: Mutex::default(),
            log: self.state.log_of(incarnation),
            secrets: self.recipe.secrets.iter().map(|(_, value)| value.clone()).collect(),
            traces: Traces {
                marker: marker.to_owned(),
                record: self.record.clone(),
                scratch: self.scratch_of(marker),
            },
        }
    }

    /// Makes everything that a launch needs, except its process.
    fn prepare(
        &self,
        incarnation: Incarnation,
        model: &ModelId,
        marker: &str,
    ) -> Result<Launch, Cause> {
        let tree = ProcessTree::claim(marker).map_err(|error| cannot_own(&error))?;
        let record = ProcessRecord {
            boot_id: proc_fs::boot_id().map_err(|error| cannot_own(&error))?,
            incarnation,
            marker: marker.to_owned(),
            main: None,
            settings: self.settings(model),
        };
        // Written before the launch as well: whoever finds it can look for the marker.
        self.record.write(&record).map_err(|error| cannot_write(self.state.path(), &error))?;
        let log_path = self.state.log_of(incarnation);
        let log = open_log(&log_path).map_err(|error| cannot_write(&log_path, &error))?;
        let scratch = self.scratch_of(marker);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&scratch)
            .map_err(|error| cannot_write(&scratch, &error))?;
        let mut command =
            self.command(model, marker, &log).map_err(|error| cannot_write(&log_path, &error))?;
        if let Some(entrance) = tree.entrance() {
            join(&mut command, entrance);
        }
        let launch = self.launch(incarnation, marker, tree);
        launch
            .start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(Start { command, record });
        Ok(launch)
    }
}

impl Launcher for ColdLauncher {
    fn claim(&self, incarnation: Incarnation, model: &ModelId) -> Result<Arc<dyn Claim>, Cause> {
        processes_can_be_held()?;
        port_is_free(self.recipe.address)?;
        let marker = format!("{}-{incarnation}", self.recipe.marker_prefix);
        match self.prepare(incarnation, model, &marker) {
            Ok(launch) => Ok(Arc::new(ColdClaim::armed(launch))),
            Err(cause) => {
                let scratch = self.scratch_of(&marker);
                Traces { marker, record: self.record.clone(), scratch }.remove();
                Err(cause)
            }
        }
    }

    fn find(&self, model: &ModelId) -> Pending<'static, Result<Found, ScanError>> {
        let (recipe, state, settings) =
            (self.recipe.clone(), Arc::clone(&self.state), self.settings(model));
        let look = move || Self::new(recipe, state).look(&settings);
        Box::pin(async move { on_own_thread("vllm-look", look).await? })
    }
}

impl ColdLauncher {
    fn look(&self, settings: &[String]) -> Result<Found, ScanError> {
        let Some(record) = self.record.read() else { return Ok(nothing()) };
        let incarnation = record.incarnation;
        // Pids of another boot mean nothing; the marker is unique all the same.
        let boot_id = proc_fs::boot_id()?;
        let main = record.main.filter(|_| record.boot_id == boot_id);
        let launch =
            self.launch(incarnation, &record.marker, ProcessTree::of_other(main, &record.marker)?);
        let main_is_alive = launch.tree.main_is_alive();
        if !main_is_alive
            && launch.tree.remaining_in_the_end()?.is_empty()
            && launch.traces.remove().is_empty()
        {
            return Ok(nothing());
        }
        if main_is_alive {
            launch.tree.watch()?;
        }
        let claim = Arc::new(ColdClaim::found(launch));
        let head: Option<Arc<dyn Head>> = main_is_alive.then(|| claim.head()).flatten();
        Ok(match head {
            Some(head) if record.settings == settings => Found::Ready { incarnation, claim, head },
            head => Found::Remnant { incarnation, claim, head },
        })
    }
}

fn nothing() -> Found {
    Proof::of(Ok(Vec::new())).map(Found::Nothing).expect("nothing is left where nothing is")
}

/// A socket's path holds 108 bytes, and vLLM appends a UUID: eight digits of the marker and its
/// number are enough.
fn scratch(directory: &Path, marker: &str) -> PathBuf {
    let (head, tail) = (marker.get(..8).unwrap_or(marker), marker.rsplit('-').next());
    directory.join(format!("vllmd-{head}-{}", tail.unwrap_or_default()))
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
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(Cause::new(Code::PortInUse, format!("{address} is in use by another process")))
        }
        Err(error) => Err(Cause::new(
            Code::InvalidConfiguration,
            format!("cannot listen on {address}: {error}"),
        )),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Cause {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::InvalidConfiguration,
    };
    Cause::new(code, format!("cannot write {}: {error}", path.display()))
}

/// Held by a number alone, a process could be another one by the time it is signalled.
fn processes_can_be_held() -> Result<(), Cause> {
    probe().map_err(|error| {
        let said = format!("pidfd_open(2) fails, without which no process can be owned: {error}");
        let cause = Cause::new(Code::Unrecognised, said);
        match error {
            // A sandbox, or a kernel before Linux 5.3: it will say the same the next time.
            Errno::PERM | Errno::NOSYS | Errno::ACCESS => {
                Cause { retry: RetryClass::Permanent, ..cause }
            }
            _ => cause,
        }
    })
}

fn cannot_own(error: &ScanError) -> Cause {
    Cause::new(Code::Unrecognised, format!("a launch could not be owned: {error}"))
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

/// A command that will be the head of a session: no terminal's signals reach it, and everything
/// that it starts can be found.
#[expect(unsafe_code, reason = "a session can only be made between fork and exec")]
#[expect(clippy::disallowed_methods, reason = "this is a launcher")]
fn new_session(program: &str) -> Command {
    let mut command = Command::new(program);
    // SAFETY: setsid(2) is async-signal-safe, and the closure does nothing else.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
    command
}

#[cfg(test)]
mod tests;
