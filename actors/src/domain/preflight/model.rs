//! A model's files against what vLLM, and what is asked of it, need.

use crate::domain::cause::{Cause, Code};
use crate::domain::preflight::{Assessment, CacheShape, Finding, Subject};

/// What is in a model's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFacts {
    /// Where it is, for those who read of it.
    pub place: String,
    /// Its `config.json`.
    pub config: ConfigFile,
    /// Its weights.
    pub weights: Weights,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl ModelFacts {
    /// What is in this directory.
    pub fn new(place: String, config: ConfigFile, weights: Weights, tokenizer: Tokenizer) -> Self {
        Self { place, config, weights, tokenizer }
    }
}

/// A model's `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigFile {
    /// There is none.
    Missing,
    /// It cannot be read; why, in words.
    Unread(String),
    /// It is not what it should be; how, in words.
    Broken(String),
    /// What it says, as far as it matters here.
    Read(ModelConfig),
}

/// What a `config.json` says, where it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// `architectures`.
    pub architectures: Vec<String>,
    /// `model_type`.
    pub model_type: Option<String>,
    /// Whether it brings code of its own (`auto_map`).
    pub has_code: bool,
    /// Attention heads of the part that makes the text; `None` also where its parts say different numbers.
    pub heads: Option<u64>,
    /// The longest context, in tokens, whichever key says the most, and after scaling.
    pub context: Option<u64>,
    /// The method of its quantisation (`quantization_config`).
    pub quantisation: Option<String>,
    /// The type of its numbers (`dtype`, earlier `torch_dtype`).
    pub dtype: Option<String>,
    /// What the cache of a request is made of, where that is plain.
    pub cache: Option<CacheShape>,
}

/// The files that hold a model's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weights {
    /// They could not be looked at; why, in words.
    Unread(String),
    /// These, and these more that an index names and that are not there.
    Files {
        /// Those that are there.
        present: Vec<WeightFile>,
        /// Those that are not.
        missing: Vec<String>,
    },
}

/// One file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// What is wrong with it.
    pub fault: Option<WeightFault>,
}

/// What is wrong with a file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFault {
    /// It stands for a file that Git LFS has not fetched.
    LfsPointer,
    /// It ends before what its header promises, or inside the header.
    Truncated {
        /// How long it should be, in bytes, where that is known.
        expected: Option<u64>,
    },
    /// It does not begin as a file of safetensors does.
    NotSafetensors,
    /// It could not be looked at; why, in words.
    Unread(String),
}

/// The files that hold a model's tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tokenizer {
    /// They could not be looked at; why, in words.
    Unread(String),
    /// There is at least one.
    Present,
    /// There is none of any kind.
    Missing,
}

/// What is asked of vLLM, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `--tensor-parallel-size`.
    pub tensor_parallel: u64,
    /// `--max-model-len`, in tokens.
    pub context: Option<u64>,
    /// Whether a longer context than the model's is allowed (`VLLM_ALLOW_LONG_MAX_MODEL_LEN`).
    pub may_exceed: bool,
    /// `--quantization`.
    pub quantisation: Option<String>,
    /// What does not come from the model's own files as they are, or is not needed.
    pub elsewhere: Vec<Part>,
    /// `--trust-remote-code`.
    pub trusts_code: bool,
    /// How many workers there are: the product of the parallel sizes.
    pub workers: u64,
    /// `--enforce-eager`.
    pub eager: bool,
}

/// A part of a model that another may stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// `--load-format`.
    Weights,
    /// `--tokenizer`, `--tokenizer-mode`, `--skip-tokenizer-init`.
    Tokenizer,
    /// `--hf-config-path`, `--hf-overrides`, `--config-format`, `--model-impl`, and what makes another kind
    /// of model of it (`--runner`, `--convert`, `--task`).
    Config,
}

/// What the installed vLLM, and transformers beside it, know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Of these architectures, which; `None` where it could not be looked up.
    pub architectures: Option<Vec<String>>,
    /// Whether it knows the model's type; `None` where it could not be looked up.
    pub knows_type: Option<bool>,
}

/// Everything that can be said of a model before it is loaded.
pub fn judge(facts: &ModelFacts, plan: &Plan, installed: &Installed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |subject, assessment| findings.push(Finding::new(subject, assessment));
    find(Subject::Config, of_config(facts, plan, installed));
    // Whose configuration is not known may need no files of its own.
    if matches!(facts.config, ConfigFile::Unread(_)) {
        return findings;
    }
    if !plan.elsewhere.contains(&Part::Weights) {
        find(Subject::Weights, of_weights(facts));
    }
    if !plan.elsewhere.contains(&Part::Tokenizer) {
        find(Subject::Tokenizer, of_tokenizer(facts));
    }
    if let (ConfigFile::Read(names), false) =
        (&facts.config, plan.elsewhere.contains(&Part::Config))
    {
        find(Subject::Parallelism, of_parallelism(names, plan));
        if let Some(asked) = plan.context {
            find(Subject::Context, of_context(names, asked, plan));
        }
        if let Some(asked) = &plan.quantisation {
            find(Subject::Quantisation, of_quantisation(names, asked));
        }
    }
    findings
}

/// vLLM 0.32, `transformers_utils/config.py` and `model_executor/models/registry.py`.
fn of_config(facts: &ModelFacts, plan: &Plan, installed: &Installed) -> Assessment {
    let place = &facts.place;
    let broken = |said: String| Assessment::Fatal(Cause::new(Code::ModelFilesBroken, said));
    let names = match &facts.config {
        _ if plan.elsewhere.contains(&Part::Config) => {
            return Assessment::Fine("its configuration comes from elsewhere".to_owned());
        }
        ConfigFile::Missing => return broken(format!("{place} has no config.json")),
        ConfigFile::Broken(how) => {
            return broken(format!("config.json of {place} is broken: {how}"));
        }
        ConfigFile::Unread(why) => return Assessment::Unknown(format!("config.json: {why}")),
        ConfigFile::Read(names) => names,
    };
    if names.has_code {
        return if plan.trusts_code {
            Assessment::Fine("it brings code of its own".to_owned())
        } else {
            // vLLM may know the architecture itself, and not need the code.
            Assessment::Warning(
                "it brings code of its own, which is run only with --trust-remote-code in extra_args"
                    .to_owned(),
            )
        };
    }
    let unsupported = |said: String| {
        let cause = Cause::new(Code::ModelUnsupported, said);
        Assessment::Fatal(cause.with_remedy("use a vLLM that knows it, or another model"))
    };
    if let (Some(model_type), Some(false)) = (&names.model_type, installed.knows_type) {
        return unsupported(format!("the installed vLLM knows no model of type `{model_type}`"));
    }
    match &installed.architectures {
        Some(known) if known.is_empty() && !names.architectures.is_empty() => unsupported(format!(
            "the installed vLLM knows no architecture {}",
            names.architectures.join(", ")
        )),
        Some(known) => Assessment::Fine(known.join(", ")),
        None => {
            Assessment::Unknown("which architectures vLLM knows could not be looked up".to_owned())
        }
    }
}

/// vLLM 0.32, `model_executor/model_loader/default_loader.py`, and safetensors' format.
fn of_weights(facts: &ModelFacts) -> Assessment {
    let broken = |said: String| Assessment::Fatal(Cause::new(Code::ModelFilesBroken, said));
    let (present, missing) = match &facts.weights {
        Weights::Unread(why) => return Assessment::Unknown(why.clone()),
        Weights::Files { present, missing } => (present, missing),
    };
    if let Some(first) = missing.first() {
        let others = match missing.len() {
            1 => String::new(),
            2 => " and another".to_owned(),
            several => format!(" and {} others", several - 1),
        };
        return broken(format!("{} lacks {first}{others}", facts.place));
    }
    if present.is_empty() {
        return broken(format!("{} has no weights (*.safetensors, *.bin, *.pt)", facts.place));
    }
    for WeightFile { name, bytes, fault } in present {
        let said = match fault {
            None | Some(WeightFault::Unread(_)) => continue,
            Some(WeightFault::LfsPointer) => {
                let cause = Cause::new(
                    Code::ModelFilesBroken,
                    format!("{name} of {} is a pointer that Git LFS has not fetched", facts.place),
                );
                return Assessment::Fatal(cause.with_remedy("run `git lfs pull` in the directory"));
            }
            Some(WeightFault::Truncated { expected: Some(expected) }) => {
                format!("{name} of {} has {bytes} of {expected} bytes", facts.place)
            }
            Some(WeightFault::Truncated { expected: None }) => {
                format!("{name} of {} ends within its header, after {bytes} bytes", facts.place)
            }
            Some(WeightFault::NotSafetensors) => {
                format!("{name} of {} is no file of safetensors", facts.place)
            }
        };
        return broken(said);
    }
    let unread = present.iter().find_map(|file| match &file.fault {
        Some(WeightFault::Unread(why)) => Some(format!("{}: {why}", file.name)),
        _ => None,
    });
    let bytes: u64 = present.iter().map(|file| file.bytes).sum();
    unread.map_or_else(
        || Assessment::Fine(format!("{bytes} bytes in {}", counted(present.len()))),
        Assessment::Unknown,
    )
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn of_tokenizer(facts: &ModelFacts) -> Assessment {
    match &facts.tokenizer {
        Tokenizer::Unread(why) => Assessment::Unknown(why.clone()),
        Tokenizer::Present => Assessment::Fine("it is there".to_owned()),
        Tokenizer::Missing => {
            let said = format!("{} has no tokenizer", facts.place);
            let cause = Cause::new(Code::ModelFilesBroken, said);
            Assessment::Fatal(cause.with_remedy(
                "download the model anew, or name another tokenizer (--tokenizer in extra_args)",
            ))
        }
    }
}

/// vLLM 0.32, `config/model.py`, `verify_with_parallel_config`.
fn of_parallelism(names: &ModelConfig, plan: &Plan) -> Assessment {
    let (Some(heads), parts) = (names.heads, plan.tensor_parallel) else {
        return Assessment::Unknown("config.json does not say how many heads it has".to_owned());
    };
    if parts <= 1 || heads.is_multiple_of(parts) {
        return Assessment::Fine(format!("{heads} heads over {parts}"));
    }
    let said = format!("{heads} attention heads cannot be split over {parts} GPUs");
    let sizes = (1..=heads.min(64)).filter(|size| heads.is_multiple_of(*size));
    let sizes: Vec<String> = sizes.map(|size| size.to_string()).collect();
    let remedy = format!("set gpu.tensor_parallel_size to one of {}", sizes.join(", "));
    Assessment::Fatal(Cause::new(Code::ParallelSizeUnfit, said).with_remedy(remedy))
}

/// vLLM 0.32, `config/model.py`, `_get_and_verify_max_len`.
fn of_context(names: &ModelConfig, asked: u64, plan: &Plan) -> Assessment {
    let Some(longest) = names.context else {
        return Assessment::Unknown(
            "config.json does not say how long a context may be".to_owned(),
        );
    };
    if asked <= longest || plan.may_exceed {
        return Assessment::Fine(format!("{asked} of {longest} tokens"));
    }
    let said = format!("--max-model-len {asked} is longer than the {longest} tokens of the model");
    let remedy = format!("set --max-model-len in extra_args to {longest} at most");
    Assessment::Fatal(Cause::new(Code::ArgumentsRejected, said).with_remedy(remedy))
}

/// Methods that work with nothing but weights that were quantised so (vLLM 0.32,
/// `model_executor/layers/quantization`).
const OF_CHECKPOINTS: [&str; 6] =
    ["awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "modelopt"];

/// vLLM 0.32, `config/model.py`, `_verify_quantization`.
fn of_quantisation(names: &ModelConfig, asked: &str) -> Assessment {
    match &names.quantisation {
        Some(own) if own.contains(asked.trim_end_matches("_marlin")) => {
            Assessment::Fine(format!("its weights are {own}"))
        }
        Some(own) => {
            Assessment::Warning(format!("{asked} is asked for, and its weights are {own}"))
        }
        None if OF_CHECKPOINTS.contains(&asked) => {
            let said =
                format!("--quantization {asked} is asked for, and the model's weights are not");
            let cause = Cause::new(Code::ModelUnsupported, said);
            Assessment::Fatal(cause.with_remedy(
                "remove --quantization from extra_args, or use a model that was quantised so",
            ))
        }
        None => Assessment::Unknown(format!("whether vLLM can do {asked} while it loads")),
    }
}

#[cfg(test)]
mod tests;
