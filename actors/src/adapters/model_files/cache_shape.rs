//! What of `config.json` decides how large the cache of a request is.

use serde_json::Value;

use super::config::HEADS;
use crate::domain::preflight::CacheShape;

/// What tells that not every layer keeps all of a request alike (vLLM 0.32, `config/model.py`,
/// `transformers_utils/configs`): windows, chunks, latent attention, layers that share, state spaces.
const OTHERWISE: [&str; 14] = [
    "attention_chunk_size",
    "attn_layer_period",
    "block_types",
    "cross_attention_layers",
    "full_attention_interval",
    "hybrid_override_pattern",
    "kv_lora_rank",
    "layers_block_type",
    "linear_num_key_heads",
    "mamba_d_state",
    "num_kv_shared_layers",
    "recurrent_block_type",
    "ssm_cfg",
    "sliding_window_pattern",
];

/// Of a model of one part, where that is plain.
pub(super) fn read(config: &Value) -> Option<CacheShape> {
    let has = |key: &&str| !config[*key].is_null();
    let is_windowed = has(&"sliding_window") && config["use_sliding_window"] != false;
    let layer_types = config["layer_types"].as_array().into_iter().flatten();
    let is_uniform = layer_types.into_iter().all(|it| it == "full_attention");
    let is_generating = config["architectures"][0].as_str()?.ends_with("ForCausalLM");
    if OTHERWISE.iter().any(has) || is_windowed || !is_uniform || !is_generating {
        return None;
    }
    let number = |key: &str| config[key].as_u64().filter(|number| *number > 0);
    let heads = HEADS.iter().find_map(|key| number(key))?;
    Some(CacheShape {
        layers: number("num_hidden_layers")?,
        heads: number("num_key_value_heads").unwrap_or(heads),
        head_size: number("head_dim").or_else(|| Some(number("hidden_size")? / heads))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> Value {
        json!({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32, "hidden_size": 4096,
            "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": null})
    }

    fn with(key: &str, value: Value) -> Option<CacheShape> {
        let mut config = llama();
        config[key] = value;
        read(&config)
    }

    #[test]
    fn a_plain_model_is_read_and_one_that_keeps_less_is_not() {
        let shape = CacheShape { layers: 32, heads: 8, head_size: 128 };
        assert_eq!(read(&llama()), Some(shape));
        assert_eq!(with("head_dim", json!(64)), Some(CacheShape { head_size: 64, ..shape }));
        assert_eq!(with("layer_types", json!(["full_attention"])), Some(shape));
        for (key, value) in [
            ("sliding_window", json!(4096)),
            ("layer_types", json!(["full_attention", "sliding_attention"])),
            ("kv_lora_rank", json!(512)),
            ("architectures", json!(["BertModel"])),
            ("num_hidden_layers", json!(null)),
        ] {
            assert_eq!(with(key, value.clone()), None, "{key}: {value}");
        }
    }
}
