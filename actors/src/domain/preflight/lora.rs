//! The LoRA adapters that are loaded with a model. vLLM loads them last, once it has the model and has warmed
//! up, and ends if one of them cannot be loaded (0.8 to 0.32, `entrypoints/openai/models/serving.py`,
//! `init_static_loras`). Of 0.32 it was seen, on the CPU with a tiny model: 41 to 48 s after its launch it exits
//! with 1 of a path that does not exist, of an adapter without weights, of a rank above the most, and of
//! adapters without `--enable-lora`.

use crate::domain::cause::{Cause, Code};
use crate::domain::preflight::{Assessment, Finding, Subject, WeightFault, WeightFile};

/// What is asked of vLLM about LoRA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoraPlan {
    /// `--enable-lora`.
    pub is_enabled: bool,
    /// `--max-lora-rank`; `None` where it is not given as a number.
    pub largest_rank: Option<u64>,
    /// `--lora-modules`.
    pub modules: Vec<LoraModule>,
}

/// One adapter that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraModule {
    /// The name that requests have.
    pub name: String,
    /// The directory, or the id at the Hub.
    pub path: String,
}

/// What is in an adapter's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Which it is.
    pub module: LoraModule,
    /// Its `adapter_config.json`.
    pub config: AdapterConfig,
    /// Its weights; `None` where there are none.
    pub weights: Result<Option<WeightFile>, String>,
}

/// An `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterConfig {
    /// There is none, and perhaps no such directory.
    Missing,
    /// It cannot be read; why, in words.
    Unread(String),
    /// It is not what it should be; how, in words.
    Broken(String),
    /// What it says.
    Read {
        /// `r`.
        rank: Option<u64>,
        /// The largest of `rank_pattern`, which gives some modules a rank of their own.
        largest_of_pattern: Option<u64>,
    },
}

/// Judges the adapters, of which these were looked at.
pub fn judge_adapters(plan: &LoraPlan, adapters: &[Adapter]) -> Vec<Finding> {
    if !plan.modules.is_empty() && !plan.is_enabled {
        // vLLM 0.32, `v1/worker/lora_model_runner_mixin.py`.
        let cause =
            Cause::new(Code::ArgumentsRejected, "--lora-modules is given, and LoRA is not enabled");
        let cause = cause.with_remedy("add --enable-lora to extra_args");
        return vec![Finding::new(Subject::Lora, Assessment::Fatal(cause))];
    }
    let judged = adapters.iter().map(|adapter| of_adapter(plan, adapter));
    judged.map(|assessment| Finding::new(Subject::Lora, assessment)).collect()
}

/// vLLM 0.32, `lora/worker_manager.py`, `_load_adapter`, and `lora/peft_helper.py`.
fn of_adapter(plan: &LoraPlan, adapter: &Adapter) -> Assessment {
    let LoraModule { name, path } = &adapter.module;
    let broken = |said: String| Assessment::Fatal(Cause::new(Code::ModelFilesBroken, said));
    let (rank, largest) = match &adapter.config {
        AdapterConfig::Missing => {
            let said = format!("there is no LoRA adapter at {path}: it has no adapter_config.json");
            let cause = Cause::new(Code::InvalidModelId, said);
            return Assessment::Fatal(
                cause.with_remedy(format!("correct the path of {name} in --lora-modules")),
            );
        }
        AdapterConfig::Unread(why) => {
            return Assessment::Unknown(format!("adapter_config.json of {path}: {why}"));
        }
        AdapterConfig::Broken(how) => {
            return broken(format!("adapter_config.json of {path} is broken: {how}"));
        }
        AdapterConfig::Read { rank, largest_of_pattern } => (*rank, *largest_of_pattern),
    };
    if let (Some(rank), Some(most)) = (rank, plan.largest_rank)
        && rank > most
    {
        let said = format!(
            "the LoRA adapter {name} has rank {rank}, and {most} is the most that is allowed"
        );
        let cause = Cause::new(Code::ArgumentsRejected, said);
        return Assessment::Fatal(cause.with_remedy(raise_to(rank)));
    }
    if let Some(fatal) = of_weights(adapter) {
        return fatal;
    }
    match (rank, largest, plan.largest_rank) {
        // Which of its modules have it, earlier versions do not ask.
        (_, Some(largest), Some(most)) if largest > most => Assessment::Warning(format!(
            "parts of the LoRA adapter {name} have rank {largest}, and {most} is the most that is allowed; {}",
            raise_to(largest)
        )),
        (Some(rank), _, Some(most)) => {
            Assessment::Fine(format!("{name}: rank {rank} of {most} at most"))
        }
        (Some(rank), _, None) => Assessment::Fine(format!("{name}: rank {rank}")),
        (None, _, _) => Assessment::Unknown(format!("adapter_config.json of {path} names no rank")),
    }
}

/// The ranks that may be the most (vLLM 0.32, `config/lora.py`, `MaxLoRARanks`; 1 is not for everybody).
const RANKS: [u64; 8] = [8, 16, 32, 64, 128, 256, 320, 512];

fn raise_to(rank: u64) -> String {
    match RANKS.into_iter().find(|most| *most >= rank) {
        Some(most) => format!("add --max-lora-rank {most} to extra_args"),
        None => "use an adapter of a smaller rank: vLLM takes none above 512".to_owned(),
    }
}

/// What of its weights ends vLLM (0.32, `lora/lora_model.py`, `from_local_checkpoint`).
fn of_weights(adapter: &Adapter) -> Option<Assessment> {
    let path = &adapter.module.path;
    let file = match &adapter.weights {
        Err(why) => return Some(Assessment::Unknown(format!("{path}: {why}"))),
        Ok(None) => {
            let said = format!(
                "the LoRA adapter at {path} has no weights (adapter_model.safetensors, .bin, .pt)"
            );
            return Some(Assessment::Fatal(Cause::new(Code::ModelFilesBroken, said)));
        }
        Ok(Some(file)) => file,
    };
    let said = match file.fault.as_ref()? {
        WeightFault::LfsPointer => "is a pointer that Git LFS has not fetched",
        WeightFault::Truncated { .. } => "is cut off",
        WeightFault::NotSafetensors => "is no file of safetensors",
        WeightFault::Unread(why) => {
            return Some(Assessment::Unknown(format!("{} of {path}: {why}", file.name)));
        }
    };
    let said = format!("{} of the LoRA adapter at {path} {said}", file.name);
    Some(Assessment::Fatal(Cause::new(Code::ModelFilesBroken, said)))
}

#[cfg(test)]
mod tests;
