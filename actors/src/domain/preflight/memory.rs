//! A model's weights, and the cache that one request needs, against the memory of the GPUs. It is an estimate,
//! and leaves out what vLLM needs besides: so it is never more than a warning, and seldom a wrong one.

use crate::domain::cause::Code;
use crate::domain::gpu::{Devices, Gpu, GpuSnapshot, gib};
use crate::domain::preflight::{
    Assessment, ConfigFile, Finding, ModelConfig, ModelFacts, Subject, Weights,
};

/// What is asked of vLLM, as far as it decides how much memory it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// The GPUs that it takes.
    pub devices: Devices,
    /// The share of their memory that it may take, 0 to 1.
    pub share: f64,
    /// `--tensor-parallel-size`.
    pub tensor_parallel: u64,
    /// `--pipeline-parallel-size`.
    pub pipeline_parallel: u64,
    /// How long a request may be.
    pub context: ContextPlan,
}

/// How long a request may be, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextPlan {
    /// As long as the model's.
    OfModel,
    /// This (`--max-model-len`).
    Asked(u64),
    /// It is fitted to the memory, or the cache is not as usual.
    Unknown,
}

/// What decides how large the cache of a request is, where all layers keep all of it alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers.
    pub layers: u64,
    /// Heads whose keys and values are kept.
    pub heads: u64,
    /// Numbers a head.
    pub head_size: u64,
}

/// What is kept of each number: two bytes, of keys and of values.
const BYTES_A_NUMBER: u64 = 4;

/// Judges a model that is there; `None` where nothing is known.
pub fn judge_memory(
    facts: &ModelFacts,
    plan: &MemoryPlan,
    snapshot: &GpuSnapshot,
) -> Option<Finding> {
    let ConfigFile::Read(config) = &facts.config else { return None };
    let gpus = plan.tensor_parallel.max(1) * plan.pipeline_parallel.max(1);
    let weights = loaded_bytes(&facts.weights, config)? / gpus;
    let whole = smallest(snapshot, &plan.devices)?;
    let had = shared(whole, plan.share);
    let assessment = if weights > had {
        Assessment::Warning(format!(
            "weights of about {} a GPU do not fit into {} of {}: vLLM will probably end with {}; use a \
             larger gpu.tensor_parallel_size, a quantised model, or --cpu-offload-gb in extra_args",
            gib(weights),
            plan.share,
            gib(whole),
            Code::InsufficientGpuMemory,
        ))
    } else {
        of_cache(config, plan, had - weights).unwrap_or_else(|| {
            let (weights, had) = (gib(weights), gib(had));
            Assessment::Fine(format!(
                "weights of about {weights} a GPU, of {had} that vLLM may have"
            ))
        })
    };
    Some(Finding::new(Subject::Memory, assessment))
}

/// What is wrong with the cache of one request in what is left.
fn of_cache(config: &ModelConfig, plan: &MemoryPlan, left: u64) -> Option<Assessment> {
    let shape = config.cache?;
    let context = match plan.context {
        ContextPlan::OfModel => config.context?,
        ContextPlan::Asked(tokens) => tokens,
        ContextPlan::Unknown => return None,
    };
    // With fewer heads than GPUs each has one (vLLM 0.32, `config/model.py`, `get_num_kv_heads`).
    let heads = (shape.heads / plan.tensor_parallel.max(1)).max(1);
    let layers = (shape.layers / plan.pipeline_parallel.max(1)).max(1);
    let of_token = layers * heads * shape.head_size * BYTES_A_NUMBER;
    let needed = of_token.checked_mul(context)?;
    (needed > left).then(|| {
        Assessment::Warning(format!(
            "a request of {context} tokens needs {} of KV cache a GPU, and at most {} are left beside the \
             weights: vLLM will probably end with {}; set --max-model-len in extra_args, to less than {}",
            gib(needed),
            gib(left),
            Code::KvCacheTooSmall,
            left / of_token.max(1),
        ))
    })
}

/// The weights as they are in memory: what is not quantised has two bytes a number there (vLLM 0.32,
/// `config/model.py`, `_get_and_verify_dtype`, of `auto`).
fn loaded_bytes(weights: &Weights, config: &ModelConfig) -> Option<u64> {
    let Weights::Files { present, missing } = weights else { return None };
    if !missing.is_empty() || present.iter().any(|file| file.fault.is_some()) {
        return None;
    }
    let bytes: u64 = present.iter().map(|file| file.bytes).sum();
    match (&config.quantisation, config.dtype.as_deref()) {
        (Some(_), _) | (None, Some("bfloat16" | "float16")) => Some(bytes),
        (None, Some("float32")) => Some(bytes / 2),
        (None, _) => None,
    }
}

/// All memory of the GPU that has least of it, among those that are taken.
fn smallest(snapshot: &GpuSnapshot, devices: &Devices) -> Option<u64> {
    let sizes: Option<Vec<u64>> = snapshot.among(devices).map(whole).collect();
    sizes?.into_iter().min()
}

fn whole(gpu: &Gpu) -> Option<u64> {
    if gpu.condition.is_partitioned == Some(true) {
        return None;
    }
    match (gpu.memory_free_bytes, gpu.memory_used_bytes) {
        (Some(free), Some(used)) => free.checked_add(used),
        _ => gpu.memory_total_bytes,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of what has far fewer than 2^52 bytes"
)]
fn shared(whole: u64, share: f64) -> u64 {
    (whole as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::preflight::{Tokenizer, WeightFile};

    const GIB: u64 = 1 << 30;

    fn facts(gib: u64, config: ModelConfig) -> ModelFacts {
        let file = WeightFile { name: "a.safetensors".into(), bytes: gib * GIB, fault: None };
        ModelFacts::new(
            "/model".to_owned(),
            ConfigFile::Read(config),
            Weights::Files { present: vec![file], missing: Vec::new() },
            Tokenizer::Present,
        )
    }

    /// As Llama 3 of 8 billion: 128 KiB a token.
    fn config(dtype: &str) -> ModelConfig {
        ModelConfig {
            dtype: Some(dtype.to_owned()),
            context: Some(131_072),
            cache: Some(CacheShape { layers: 32, heads: 8, head_size: 128 }),
            ..ModelConfig::default()
        }
    }

    fn plan(tensor_parallel: u64, context: ContextPlan) -> MemoryPlan {
        let devices = Devices::First(u32::try_from(tensor_parallel).unwrap());
        MemoryPlan { devices, share: 0.5, tensor_parallel, pipeline_parallel: 1, context }
    }

    fn gpus(sizes: &[u64]) -> GpuSnapshot {
        let gpu = |(index, size): (usize, &u64)| Gpu {
            memory_total_bytes: Some(size * GIB),
            ..Gpu::new(u32::try_from(index).unwrap(), format!("GPU-{index}"), "NVIDIA H100")
        };
        GpuSnapshot { gpus: sizes.iter().enumerate().map(gpu).collect() }
    }

    fn warned(facts: &ModelFacts, plan: &MemoryPlan, gpus: &GpuSnapshot) -> Option<String> {
        match judge_memory(facts, plan, gpus)?.assessment {
            Assessment::Warning(said) => Some(said),
            Assessment::Fine(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_told_with_what_helps() {
        let one = plan(1, ContextPlan::Unknown);
        let said = warned(&facts(15, config("bfloat16")), &one, &gpus(&[24])).unwrap();
        for part in ["15.0 GiB", "0.5 of 24.0 GiB", "VLM-006", "tensor_parallel_size"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(warned(&facts(12, config("bfloat16")), &one, &gpus(&[24])), None);
        // What is kept in four bytes is loaded in two.
        assert_eq!(warned(&facts(15, config("float32")), &one, &gpus(&[24])), None);
        let two = plan(2, ContextPlan::Unknown);
        assert_eq!(warned(&facts(15, config("bfloat16")), &two, &gpus(&[24, 24])), None);
        assert!(warned(&facts(15, config("bfloat16")), &two, &gpus(&[24, 12])).is_some());
    }

    #[test]
    fn a_context_that_the_rest_has_no_room_for_is_told_with_the_length_that_fits() {
        let of = |context, tensor_parallel| {
            let gpus = gpus(&vec![40; usize::try_from(tensor_parallel).unwrap()]);
            warned(&facts(16, config("float16")), &plan(tensor_parallel, context), &gpus)
        };
        // Four of twenty are left: 32768 tokens.
        let said = of(ContextPlan::OfModel, 1).unwrap();
        for part in ["131072 tokens", "16.0 GiB", "4.0 GiB", "VLM-021", "less than 32768"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(of(ContextPlan::Asked(32_768), 1), None);
        assert!(of(ContextPlan::Asked(32_769), 1).is_some());
        assert_eq!(of(ContextPlan::OfModel, 2), None);
        assert_eq!(of(ContextPlan::Unknown, 1), None);
    }

    #[test]
    fn what_is_not_known_is_not_judged() {
        let one = plan(1, ContextPlan::OfModel);
        let unknown = ModelConfig { dtype: None, ..config("float16") };
        assert_eq!(judge_memory(&facts(99, unknown), &one, &gpus(&[1])), None);
        assert_eq!(judge_memory(&facts(99, config("float16")), &one, &gpus(&[])), None);
        let devices = MemoryPlan { devices: Devices::Unknown, ..one.clone() };
        assert_eq!(judge_memory(&facts(99, config("float16")), &devices, &gpus(&[1])), None);
        let mut facts = facts(99, config("float16"));
        facts.weights = Weights::Unread("denied".to_owned());
        assert_eq!(judge_memory(&facts, &one, &gpus(&[1])), None);
    }
}
