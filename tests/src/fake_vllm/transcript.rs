//! What vLLM 0.32.0 says at each step, taken from its logs (CPU, torch.compile, one worker).
//!
//! `{name}` stands for a value that [`Log`](super::log::Log) puts in, a closing `\r` for the
//! carriage return that vLLM writes inside a record of several lines.

/// The flags cannot be read; argparse, exit code 2.
pub(super) const UNKNOWN_FLAG: &str = include_str!("transcript/unknown_flag.log");
/// vLLM is imported and its flags are read.
pub(super) const API_IMPORTED: &str = include_str!("transcript/api_imported.log");
/// The address is taken; exit code 1.
pub(super) const PORT_IN_USE: &str = include_str!("transcript/port_in_use.log");
/// The configuration is made; the engine comes next.
pub(super) const API_CONFIGURED: &str = include_str!("transcript/api_configured.log");
/// The engine is up and starts its workers.
pub(super) const ENGINE_STARTS: &str = include_str!("transcript/engine_starts.log");
/// A worker is up and starts to load.
pub(super) const WORKER_STARTS: &str = include_str!("transcript/worker_starts.log");
/// A worker has its weights.
pub(super) const WORKER_LOADED: &str = include_str!("transcript/worker_loaded.log");
/// All workers have their weights.
pub(super) const ENGINE_CACHES: &str = include_str!("transcript/engine_caches.log");
/// A worker compiles, profiles and warms up.
pub(super) const WORKER_WARMS_UP: &str = include_str!("transcript/worker_warms_up.log");
/// All workers are warm.
pub(super) const ENGINE_READY: &str = include_str!("transcript/engine_ready.log");
/// The HTTP server starts; it listens right after.
pub(super) const API_SERVING: &str = include_str!("transcript/api_serving.log");
/// SIGTERM or SIGINT arrived while serving.
pub(super) const SHUTDOWN_BEGINS: &str = include_str!("transcript/shutdown_begins.log");
/// The engine got its SIGTERM.
pub(super) const ENGINE_TERMINATED: &str = include_str!("transcript/engine_terminated.log");
/// The engine gets no time with the default `--shutdown-timeout` of 0.
pub(super) const ENGINE_FORCE_KILLED: &str = include_str!("transcript/engine_force_killed.log");
/// And its workers neither.
pub(super) const WORKER_FORCE_KILLED: &str = include_str!("transcript/worker_force_killed.log");
/// A worker saw its death pipe close.
pub(super) const WORKER_ORPHANED: &str = include_str!("transcript/worker_orphaned.log");
/// The HTTP server goes; exit code 0.
pub(super) const SHUTDOWN_ENDS: &str = include_str!("transcript/shutdown_ends.log");
/// The resource tracker cleans up after everybody.
pub(super) const TRACKER_LEAKS: &str = include_str!("transcript/tracker_leaks.log");
/// A worker died while serving: the engine's view.
pub(super) const WORKER_DIED: &str = include_str!("transcript/worker_died.log");
/// A worker raised an exception at the first request (head size 16 on a CPU).
pub(super) const WORKER_RAISED: &str = include_str!("transcript/worker_raised.log");
/// The engine is gone without a word: the API server's view, before [`ENGINE_DEAD`].
pub(super) const ENGINE_LOST: &str = include_str!("transcript/engine_lost.log");
/// The engine is dead: the API server's view.
pub(super) const ENGINE_DEAD: &str = include_str!("transcript/engine_dead.log");
/// The API server follows its engine; exit code 0.
pub(super) const UVICORN_EXIT: &str = include_str!("transcript/uvicorn_exit.log");
/// What it cleans up when it has not done so before, as in [`ENGINE_LOST`].
pub(super) const CLIENT_CLEANUP: &str = include_str!("transcript/client_cleanup.log");
/// A worker died while loading: the engine's view.
pub(super) const ENGINE_FAILED_TO_START: &str =
    include_str!("transcript/engine_failed_to_start.log");
/// The engine did not come up: the API server's view; exit code 1.
pub(super) const API_FAILED_TO_START: &str = include_str!("transcript/api_failed_to_start.log");
