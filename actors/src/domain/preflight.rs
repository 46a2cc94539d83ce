//! What can be known of a launch before it: judged in milliseconds, where vLLM takes a quarter of a
//! minute or more to say the same.
//!
//! What is *fatal* is refused before anything starts, or before the model that is served is touched.
//! It is called so only where vLLM itself would end of it, by the source named at each rule; what may
//! turn out well after all is a warning, and what could not be looked at is neither.

use std::fmt;

use crate::domain::cause::Cause;

mod host;
mod hub;
mod hub_answer;
mod lora;
mod memory;
mod model;

pub use host::{Disk, HostFacts, judge_disk, judge_host};
pub use hub::{Cached, Network, judge_cached};
pub use hub_answer::{Asker, HubAnswer, HubQuestion, HubReply, depends_on_hub, judge_answer};
pub use lora::{Adapter, AdapterConfig, LoraModule, LoraPlan, judge_adapters};
pub use memory::{CacheShape, ContextPlan, MemoryPlan, judge_memory};
pub use model::{
    ConfigFile, Installed, ModelConfig, ModelFacts, Part, Plan, Tokenizer, WeightFault, WeightFile,
    Weights, judge,
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub subject: Subject,
    /// What was found.
    pub assessment: Assessment,
}

impl Finding {
    /// What was found of something.
    pub fn new(subject: Subject, assessment: Assessment) -> Self {
        Self { subject, assessment }
    }

    /// Why nothing can be started, if so.
    pub fn fatal(&self) -> Option<&Cause> {
        match &self.assessment {
            Assessment::Fatal(cause) => Some(cause),
            Assessment::Fine(_) | Assessment::Warning(_) | Assessment::Unknown(_) => None,
        }
    }
}

/// What is looked at before a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// The program that starts vLLM.
    Vllm,
    /// Whether the model can be had.
    Model,
    /// Whether the Hugging Face Hub gives it.
    Hub,
    /// The model's `config.json`, and whether vLLM knows such a model.
    Config,
    /// The files that its weights are in.
    Weights,
    /// The files that its tokenizer is in.
    Tokenizer,
    /// The parallel sizes against its heads.
    Parallelism,
    /// The context length that is asked for against its own.
    Context,
    /// The quantisation that is asked for against its own.
    Quantisation,
    /// The LoRA adapters that are asked for.
    Lora,
    /// The weights, and the cache of a request, against the GPUs' memory.
    Memory,
    /// The shared memory (`/dev/shm`).
    SharedMemory,
    /// How many files vLLM may have open.
    OpenFiles,
    /// The room where vLLM and we write.
    Disk,
    /// The C compiler.
    Compiler,
}

impl Subject {
    /// The subject in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Model => "model",
            Self::Hub => "hub",
            Self::Config => "config",
            Self::Weights => "weights",
            Self::Tokenizer => "tokenizer",
            Self::Parallelism => "parallelism",
            Self::Context => "context",
            Self::Quantisation => "quantisation",
            Self::Lora => "lora",
            Self::Memory => "memory",
            Self::SharedMemory => "shared_memory",
            Self::OpenFiles => "open_files",
            Self::Disk => "disk",
            Self::Compiler => "compiler",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assessment {
    /// Nothing speaks against a launch; what was seen, in words.
    Fine(String),
    /// It may fail, or not; what was seen, in words.
    Warning(String),
    /// It would fail for this cause.
    Fatal(Cause),
    /// It could not be looked at; why, in words.
    Unknown(String),
}
