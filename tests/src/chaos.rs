//! Faults at random, by a seed, against a supervisor of `fake_vllm`: after each step an observer
//! from outside checks what must always hold.
//!
//! - at most one launch of vLLM is alive;
//! - what is stopped has left nothing: no process, segment, socket or scratch file;
//! - in any minute there are no more restarts than allowed;
//! - every caller of an embedded supervisor is answered once;
//! - events are numbered without a gap that is not told;
//! - the published state is true within a second;
//! - it ends when it is told to, and for no other reason but the restart limit; when a fault has
//!   passed, it serves again;
//! - nobody else's process, segment or socket is touched.
//!
//! Not injected: a jump of the wall clock. It would be the whole machine's, and a time namespace
//! (`time_namespaces(7)`) shifts only the monotonic clock and that of the boot.

pub mod embedder;

mod acts;
mod campaign;
mod fault;
mod held;
mod invariants;
mod observer;
mod place;
mod random;
mod run;
mod schedule;
mod strangers;
mod supervisor;

pub use campaign::run_seeds;
pub use place::Programs;
pub use run::{Broken, Report, run};
pub use schedule::Schedule;
