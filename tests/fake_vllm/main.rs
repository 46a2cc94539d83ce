//! The contract of `fake_vllm`: it does what the real vLLM 0.32.0 was seen to do.

mod dying;
mod launched;
mod planned;
mod serving;
mod starting;
mod stopping;
