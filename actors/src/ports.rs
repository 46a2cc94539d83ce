//! What the actors need of the world, as traits. The technologies are in `adapters`, the scripted
//! stand-ins in `testing`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::domain::cause::Cause;
use crate::domain::diagnosis::Exit;
use crate::domain::event::Event;
use crate::domain::gpu::GpuSnapshot;
use crate::domain::health::Check;
use crate::domain::id::Incarnation;
use crate::domain::input::RestartRecord;
use crate::domain::listener::Listener;
use crate::domain::report::Work;
use crate::domain::spec::ModelId;

/// An answer that takes time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts vLLM, and finds one that an earlier supervisor started.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Starts vLLM for `model` and returns at once, long before it serves.
    ///
    /// # Errors
    ///
    /// The cause, when nothing was started: no executable, the port taken, no log file.
    fn launch(
        &self,
        incarnation: Incarnation,
        model: &ModelId,
    ) -> Result<Arc<dyn RunningProcess>, Cause>;

    /// Looks for what an earlier supervisor left. The answer is proven (pid, start time and boot),
    /// never guessed: an impostor is never taken for ours.
    fn find(&self, model: &ModelId) -> Pending<'static, Found>;
}

/// What an earlier supervisor left.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A vLLM that is what we would launch.
    Ready {
        /// The launch it was.
        incarnation: Incarnation,
        /// The process.
        process: Arc<dyn RunningProcess>,
    },
    /// Something to be cleared away first: other settings, or a tree without its head.
    Remnant {
        /// The launch it was.
        incarnation: Incarnation,
        /// What is left of it.
        process: Arc<dyn RunningProcess>,
    },
}

/// A signal for the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in order.
    Terminate,
    /// SIGKILL: end now.
    Kill,
}

/// A vLLM with everything it started: API server, engine, workers, helpers.
pub trait RunningProcess: fmt::Debug + Send + Sync + 'static {
    /// The pid of the main process.
    fn pid(&self) -> u32;

    /// Resolves when the main process has ended; at once if it already has.
    fn ended(&self) -> Pending<'static, Exit>;

    /// Signals the main process alone. A process that is gone is no error.
    fn signal_main(&self, signal: Signal);

    /// Kills everything of the tree, and tells who is still alive after a moment. Empty means
    /// proven gone.
    fn sweep(&self) -> Pending<'static, Vec<u32>>;

    /// Kills everything of the tree now, without a runtime: for a guard's `Drop`. Returns who is
    /// still alive after a short, bounded wait.
    fn sweep_blocking(&self) -> Vec<u32>;

    /// What the tree has done so far.
    fn work(&self) -> Pending<'static, Work>;

    /// The end of what it wrote, oldest line first, secrets masked.
    fn last_lines(&self) -> Pending<'static, Vec<String>>;
}

/// What vLLM writes, by launch.
pub trait Output: fmt::Debug + Send + Sync + 'static {
    /// The output of a launch from its start, line by line; it may not have begun yet.
    fn lines(&self, incarnation: Incarnation) -> Box<dyn LineSource>;
}

/// Output that grows.
pub trait LineSource: Send {
    /// The next lines, when there are any. Lines are cut at `\n` and `\r`, capped in length, and
    /// never block the writer. Dropping the future loses nothing.
    fn next_lines(&mut self) -> Pending<'_, Vec<String>>;
}

/// Finds out who listens where vLLM should, before it is spoken to.
pub trait Listeners: fmt::Debug + Send + Sync + 'static {
    /// Who it is now.
    fn look(&self) -> Pending<'static, Listener>;
}

/// Asks a vLLM how it is.
pub trait Probe: fmt::Debug + Send + Sync + 'static {
    /// `/health`, then whether `/v1/models` lists `model`.
    fn check(&self, model: &ModelId) -> Pending<'static, Check>;
}

/// Looks at the GPUs on a thread of its own, which may hang without hurting anyone.
pub trait GpuSource: fmt::Debug + Send + Sync + 'static {
    /// The latest look. The first value is [`GpuLook::Pending`]; the sender is dropped when the
    /// source has ended.
    fn looks(&self) -> watch::Receiver<GpuLook>;

    /// The pause between two looks.
    fn interval(&self) -> Duration;
}

/// What came of looking at the GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuLook {
    /// Nothing has come back yet.
    Pending,
    /// What was seen.
    Seen(GpuSnapshot),
    /// There is nothing to look at, and why.
    Unavailable(String),
}

/// Keeps what happened where it survives us.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Keeps an event. Returns before it is written; a failure to write is logged, and never
    /// stops the service.
    fn event(&self, event: &Event);

    /// Keeps an end that nobody asked for.
    fn restart(&self, record: &RestartRecord);

    /// Keeps what became of a process whose owner ended.
    fn custody_ended(&self, ended: &CustodyEnded);

    /// The restarts so far, oldest first, those of earlier supervisors included.
    fn history(&self) -> Pending<'_, Vec<RestartRecord>>;

    /// Resolves when everything given so far is written.
    fn flushed(&self) -> Pending<'static, ()>;
}

/// What became of a process whose owner ended without having stopped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustodyEnded {
    /// When.
    pub at: SystemTime,
    /// Which launch.
    pub incarnation: Incarnation,
    /// The pid of its main process.
    pub pid: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a process whose owner ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Killed, with everything it started.
    Killed,
    /// Left running, for the next supervisor to adopt.
    Kept,
}
