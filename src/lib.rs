//! Owns the life of a vLLM server: starts it, sees it become healthy, tells of every change, brings
//! it back when it dies, switches its model, and stops it without leaving anything behind.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use vllm_supervisor::Supervisor;
//!
//! let supervisor = Supervisor::builder().model("Qwen/Qwen3-0.6B").spawn().await?;
//! let mut events = supervisor.subscribe();
//! supervisor.ensure_healthy(None).await?;
//! println!("vLLM serves at {}", supervisor.base_url());
//! while let Some(notice) = events.next().await {
//!     println!("{notice:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Supervisor::builder`] makes a supervisor, from code or from a [`config::Config`].
//! - [`SupervisorHandle`] has the verbs. Each may be repeated; two callers who want the same share
//!   one action; each returns when it is so, or with a [`CommandError`] that says why it will not be.
//! - [`SupervisorHandle::watch`] is the present, a [`Snapshot`] that is never stale;
//!   [`SupervisorHandle::subscribe`] is the history from now on, numbered [`Event`]s with explicit
//!   gaps, and [`SupervisorHandle::subscribe_from`] that from any number on.
//! - A failure is a [`Cause`]: a [`Code`] to look up, what happened this time, a remedy, and
//!   whether trying again can help.
//!
//! # States
//!
//! [`ServiceState`] has seven: `Stopped`, `Starting`, `Running`, `Stopping`, `Crashed` (a restart is
//! pending), `Failed` (given up, until somebody calls [`SupervisorHandle::start`]) and `Unknown`.
//! `Running` means that the process lives, `/health` answers 200 and `/v1/models` lists the model.
//!
//! # Runtime
//!
//! It wants a tokio runtime with IO and time enabled, of either kind, and Linux. It emits `tracing`
//! records and installs no subscriber. It does not touch signal handlers, standard streams, or the
//! process's environment.
//!
//! # The end
//!
//! Call [`SupervisorHandle::shutdown`] before your program ends. If it ends otherwise, by dropping
//! the last handle, the runtime, or by a panic, vLLM is killed or left running as
//! [`config::Lifecycle::stop_on_exit`] says; after SIGKILL of your program too, by a guardian: a small
//! process of each launch, forked from yours. What is left running is adopted by the next supervisor
//! with the same state directory. Linked under an actor of yours ([`SupervisorBuilder::spawn_linked`]),
//! a supervisor ends in order when that does, for as long as the runtime lives.

pub mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod error;
pub mod handle;
pub mod subscription;
pub mod wire;

mod launch_recipe;
mod model_request;

/// What is looked at before a launch: [`Supervisor::check`].
pub mod preflight {
    pub use vllm_supervisor_actors::domain::preflight::{Assessment, Finding, Subject};
}

/// The version of ractor that [`SupervisorHandle::actor_ref`] belongs to: 0.16, from 0.16.5. With
/// 0.15 or 0.17 of its own, a program has other types of the same names. Its features are free.
pub use ractor;

pub use builder::{Supervisor, SupervisorBuilder};
pub use error::{CommandError, JournalError, StartError, StateDirectoryError};
pub use handle::SupervisorHandle;
pub use model_request::ModelRequest;
pub use subscription::{EventStream, LoadStream, Notice};
pub use vllm_supervisor_actors::domain::cause::{
    Cause, Code, Particulars, RetryClass, TellingLine,
};
pub use vllm_supervisor_actors::domain::diagnosis::{
    Diagnosis, Exit, RuleError, Rulebook, Scanner,
};
pub use vllm_supervisor_actors::domain::event::{EndReason, Event, EventKind, OrphanOutcome};
pub use vllm_supervisor_actors::domain::gpu::{
    FindingKind, Gpu, GpuAction, GpuCondition, GpuFinding, GpuProcess, Reachability, Slowdown,
};
pub use vllm_supervisor_actors::domain::id::{Incarnation, Sequence};
pub use vllm_supervisor_actors::domain::incident::{Incident, ProcessExit, Recovery};
pub use vllm_supervisor_actors::domain::input::StopMode;
pub use vllm_supervisor_actors::domain::loading::{LoadStatus, ModelLoadProgress};
pub use vllm_supervisor_actors::domain::phases::{LaunchPhase, Phases};
pub use vllm_supervisor_actors::domain::report::Role;
pub use vllm_supervisor_actors::domain::spec::{LifecycleMode, ModelId};
pub use vllm_supervisor_actors::domain::state::ServiceState;
pub use vllm_supervisor_actors::domain::trust::LaunchMethod;
pub use vllm_supervisor_actors::domain::unit::{Activity, UnitStatus};
pub use vllm_supervisor_actors::root::{
    Answer, Command, GpuView, HealthNote, LaunchKind, RestartCount, Snapshot, SupervisorKilled,
};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
