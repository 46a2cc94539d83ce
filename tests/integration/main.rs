//! The supervisor as a whole, with real processes and a stand-in for vLLM.

mod cli;
mod dying;
mod embedding;
mod gpus;
mod leaving;
mod linking;
mod probing;
mod restarting;
mod serving;
mod starting;
mod stopping;
mod warm;
mod watching;

/// The stand-in.
const FAKE: &str = env!("CARGO_BIN_EXE_fake_vllm");
