//! `fake_vllm`, an honest stand-in for `vllm serve`: the plan that a test writes for it, and the
//! program that follows the plan.
//!
//! The stand-in has the process tree, the titles, the log lines on their streams, the endpoints,
//! the shared memory, the answers to signals and the exit codes of vLLM 0.32.0 on a CPU, only
//! faster. A test says what shall go wrong, and hands the plan over in one environment variable:
//!
//! ```
//! # use std::time::Duration;
//! # use vllm_supervisor_tests::fake_vllm::fake_vllm;
//! let plan = fake_vllm()
//!     .loads_in(Duration::from_millis(50))
//!     .exits_with(1)
//!     .after(Duration::from_millis(20))
//!     .then(fake_vllm())
//!     .counts_launches_in("/a/directory/of/the/test/launches");
//! let (name, value) = plan.environment();
//! # assert_eq!(name, "FAKE_VLLM_PLAN");
//! # assert!(value.contains("launches"));
//! ```
//!
//! Where it is not the real thing: loading takes as long as the plan says; a segment of shared
//! memory is 64 KiB; answers are not streamed; without `--host` it listens on the loopback only;
//! without `SPT_NOENV` a worker's environment is out of sight from its birth, not only from when
//! it takes its title; nobody replaces a resource tracker that has died; SIGTERM between imports and engine start is swallowed, too.
//!
//! The real engine outlives a killed API server for ever, and so does this one. As a belt for
//! tests gone wrong every process ends itself ten minutes after its start or its taking a title,
//! except while stopped; the resource tracker ends with the last of them.

mod api_server;
mod arguments;
mod child;
mod crew;
mod engine_core;
mod http;
mod link;
mod log;
mod plan;
mod program;
mod resource_tracker;
mod segment;
mod signals;
mod transcript;
mod worker;

pub use plan::{FakeVllm, Step, fake_vllm};
pub use program::run;
