//! What decides how much of the GPUs' memory vLLM needs.

use vllm_supervisor_actors::domain::preflight::{ContextPlan, MemoryPlan};

use super::{given, has, tokens};
use crate::config::Config;
use crate::launch_recipe::devices;

/// Flags with which the weights are not in the GPUs' memory as they are in the files, or not alone, or the
/// GPUs are not used (vLLM 0.32, `engine/arg_utils.py`).
const WEIGHTS_OTHERWISE: [&str; 13] = [
    "--cpu-offload-gb",
    "--offload-backend",
    "--quantization",
    "-q",
    "--load-format",
    "--dtype",
    "--device",
    "--hf-config-path",
    "--hf-overrides",
    "--config-format",
    "--enable-expert-parallel",
    "--data-parallel-size",
    "-dp",
];

/// Flags with which the cache is another, or of another size.
const CACHE_OTHERWISE: [&str; 9] = [
    "--kv-cache-dtype",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--speculative-config",
    "--decode-context-parallel-size",
    "-dcp",
    "--runner",
    "--task",
    "--convert",
];

/// `None` where that is not known.
pub(in crate::launch_recipe) fn memory(config: &Config) -> Option<MemoryPlan> {
    if WEIGHTS_OTHERWISE.iter().any(|flag| has(config, flag)) {
        return None;
    }
    let is_otherwise = CACHE_OTHERWISE.iter().any(|flag| has(config, flag));
    let context = match given(config, "--max-model-len") {
        _ if is_otherwise => ContextPlan::Unknown,
        Some(text) => tokens(text).map_or(ContextPlan::Unknown, ContextPlan::Asked),
        None => ContextPlan::OfModel,
    };
    Some(MemoryPlan {
        devices: devices(config),
        share: config.gpu.memory_utilization,
        tensor_parallel: config.gpu.tensor_parallel_size.get().into(),
        pipeline_parallel: config.gpu.pipeline_parallel_size.get().into(),
        context,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelReference;

    fn of(words: &[&str]) -> Option<MemoryPlan> {
        let model = ModelReference::Hub("a/b".to_owned());
        let mut config = Config::with_defaults(model, "/state");
        config.extra_args = words.iter().map(|&word| word.to_owned()).collect();
        memory(&config)
    }

    #[test]
    fn what_makes_the_weights_or_the_cache_others_is_heeded() {
        let context = |words: &[&str]| of(words).unwrap().context;
        assert_eq!(context(&[]), ContextPlan::OfModel);
        assert_eq!(context(&["--max-model-len", "8k"]), ContextPlan::Asked(8000));
        assert_eq!(context(&["--max-model-len", "auto"]), ContextPlan::Unknown);
        assert_eq!(context(&["--kv-cache-dtype=fp8"]), ContextPlan::Unknown);
        for words in [
            &["--cpu-offload-gb", "4"][..],
            &["-q", "fp8"],
            &["--load-format=dummy"],
            &["--dtype=half"],
        ] {
            assert_eq!(of(words), None, "{words:?}");
        }
    }
}
