//! The command `vllmd`, as an operator meets it: words, signals, streams and exit codes.

mod checking;
mod diagnosing;
mod ending;
mod fitting;
mod hub;
mod killed;
mod listening;
mod mistakes;
mod running;
mod secrets;
mod signals;
mod soak;
pub(crate) mod workplace;
