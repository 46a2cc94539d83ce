//! How the ports meet the world: Linux processes, HTTP, files, NVML.
//!
//! Each adapter is named in one place outside its own file: where the embedder's builder puts the
//! supervisor together.

mod directory;
pub mod downloads;
pub mod gpu;
mod guardian;
pub mod http_probe;
pub mod journal;
mod kernel_log;
pub mod launcher;
pub mod listener;
pub mod log_tail;
mod marks;
mod memory_kills;
pub mod model_files;
pub mod orphans;
mod ownership;
mod pause;
pub mod preflight;
mod proc_fs;
mod process_record;
mod process_tree;
mod scratch;
pub mod state_directory;
mod system_error;
#[cfg(feature = "systemd")]
pub mod systemd;
mod vllm_packages;
mod warm;

#[cfg(test)]
pub(crate) use process_tree::carries_marker;
