//! Scripted stand-ins for the ports: the world as a test wants it.
//!
//! They are made for paused time (`#[tokio::test(start_paused = true)]`): nothing here waits for
//! anything real, so an hour of backoff passes at once.

pub mod downloads;
pub mod gpu;
pub mod harness;
pub mod journal;
pub mod launcher;
pub mod listener;
pub mod models;
pub mod output;
pub mod probe;
pub mod process;
mod queue;
mod rounds;
pub mod unit;
pub mod world;

pub use rounds::rounds;
