//! The rules and the actors of vllm-supervisor.
//!
//! Programs embed the supervisor through the package `vllm-supervisor`, which puts these parts
//! together; this crate is for those who want to read or extend them.
//!
//! ```text
//!              commands          ┌──────────────────┐  events, snapshot, journal
//!     ───────────────────────►   │  RootSupervisor  │  ─────────────────────────►
//!                                │     Machine      │
//!                                └──────────────────┘
//!            messages │ ▲ reports   (imperative down, past tense up)
//!         ┌───────────┴─┼──────────────┬───────────────────┐
//!         ▼             │              ▼                   ▼
//!   ProcessActor   ModelLoaderActor   HealthActor   GpuMonitorActor
//!         │             │              │                   │
//!      Launcher       Output         Probe             GpuSource      (ports)
//!         │             │              │                   │
//!    ProcessLauncher    LogFiles       HttpProbe          NvmlSource     (adapters)
//! ```
//!
//! [`domain`] holds every rule, and is pure. The actors feed it and do what it asks for. Children
//! know neither the root nor each other: they get a narrow reference for their reports, and all
//! news crosses the root, so that the order the machine sees is *the* order.

pub mod adapters;
pub mod domain;
pub mod gpu_monitor;
pub mod health;
pub mod model_loader;
pub mod ports;
pub mod process;
pub mod root;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod unit;

mod message;
mod tell;
