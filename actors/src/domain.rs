//! The rules of supervision, and nothing else: what a vLLM server's life consists of, what may
//! follow what, when a restart is due and when to give up.
//!
//! Everything here is pure. It imports `std` (and `thiserror`) only; time comes in as a
//! [`Moment`](moment::Moment), the world comes in as an [`Input`](input::Input), and what should be
//! done about it goes out as an [`Effect`](input::Effect). Reading order: [`state`], [`machine`],
//! [`event`].

pub mod absence;
pub mod cause;
pub mod course;
pub mod diagnosis;
pub mod event;
pub mod gpu;
pub mod health;
pub mod id;
pub mod incident;
pub mod input;
pub mod listener;
pub mod liveness;
pub mod loading;
pub mod machine;
pub mod moment;
mod outage;
pub mod phases;
pub mod preflight;
pub mod report;
pub mod restart;
pub mod rules;
pub mod secret;
pub mod spec;
pub mod state;
pub mod switch;
pub mod target;
pub mod ticket;
pub mod trust;
pub mod unit;
pub mod watch;
