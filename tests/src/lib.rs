//! What the tests need: a stand-in for vLLM, a real one, scenarios that run against either, chaos,
//! and a census that proves that nothing is left.

pub mod census;
pub mod chaos;
pub mod deaths;
pub mod fake_systemd;
pub mod fake_venv;
pub mod fake_vllm;
pub mod hangup;
pub mod hub;
pub mod open_request;
pub mod process_table;
pub mod real_vllm;
pub mod sandbox;
pub mod scenario;
pub mod siblings;
pub mod trials;
