//! `config.json`, as far as it matters before a launch.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::{LFS_POINTER, cache_shape, read_whole};
use crate::domain::preflight::{ConfigFile, ModelConfig};

/// Some have a megabyte of labels.
const MOST_BYTES: u64 = 16 << 20;

/// Where a model of several parts describes the one that makes the text (transformers 5,
/// `configuration_utils.py`, `get_text_config`, and what vLLM 0.32 adds in `transformers_utils/config.py`).
const TEXT_PARTS: [&str; 5] =
    ["text_config", "llm_config", "language_config", "decoder", "thinker_config"];

pub(super) const HEADS: [&str; 4] = ["num_attention_heads", "n_head", "n_heads", "num_heads"];

/// What the longest context is called (vLLM 0.32, `config/model.py`, `_get_and_verify_max_len`).
const CONTEXTS: [&str; 11] = [
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "seq_len",
    "model_max_length",
    "max_target_positions",
    "max_source_positions",
    "max_sequence_length",
    "max_seq_length",
    "n_ctx",
];

/// Numbers of Python's `json` (its documentation, "Infinite and NaN Number Values").
const NOT_JSON: [&[u8]; 2] = [b"Infinity", b"NaN"];

/// Where a quantisation may be described instead (vLLM 0.32, `get_config_filenames` of
/// `model_executor/layers/quantization`).
const QUANTISATION_FILES: [&str; 3] =
    ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

pub(super) fn look(directory: &Path) -> ConfigFile {
    let bytes = match read_whole(&directory.join("config.json"), MOST_BYTES) {
        Ok(bytes) => bytes,
        // Of Mistral's own format (vLLM 0.32, `transformers_utils/config.py`).
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match directory.join("params.json").try_exists() {
                Ok(true) => ConfigFile::Unread("there is a params.json in its place".to_owned()),
                Ok(false) | Err(_) => ConfigFile::Missing,
            };
        }
        Err(error) => return ConfigFile::Unread(error.to_string()),
    };
    if bytes.starts_with(LFS_POINTER) {
        return ConfigFile::Broken("it is a pointer that Git LFS has not fetched".to_owned());
    }
    match serde_json::from_slice::<Value>(&bytes) {
        // vLLM takes another model, which it names, in its place (0.32, `transformers_utils/config.py`,
        // `maybe_override_with_speculators`).
        Ok(value) if value["speculators_config"].is_object() => ConfigFile::Unread(
            "it is a speculator's, and vLLM loads the model that it names".to_owned(),
        ),
        Ok(value) if value.is_object() => {
            let mut config = read(&value);
            // Then that says how long a context may be (vLLM 0.32, `config/model.py`).
            if directory.join("sentence_bert_config.json").try_exists().unwrap_or(true) {
                config.context = None;
            }
            // What cannot be looked at may be there.
            let is_there = |name: &&&str| directory.join(name).try_exists().unwrap_or(true);
            let beside = || QUANTISATION_FILES.iter().find(is_there);
            config.quantisation =
                config.quantisation.or_else(|| Some(format!("described in {}", beside()?)));
            ConfigFile::Read(config)
        }
        Ok(_) => ConfigFile::Broken("it is no JSON object".to_owned()),
        // Python takes numbers that JSON has not, and some models have them.
        Err(_) if has_numbers_of_python(&bytes) => {
            ConfigFile::Unread("it has numbers that are not JSON's".to_owned())
        }
        Err(error) => ConfigFile::Broken(error.to_string()),
    }
}

/// Whether this has numbers that Python's `json` takes, and nobody else.
pub(super) fn has_numbers_of_python(bytes: &[u8]) -> bool {
    NOT_JSON.iter().any(|word| contains(bytes, word))
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn read(config: &Value) -> ModelConfig {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let architectures = config["architectures"].as_array().into_iter().flatten();
    let parts = parts(config);
    let quantisation = ["quantization_config", "compression_config"].iter().find_map(|key| {
        let described = parts.iter().map(|part| &part[*key]).find(|it| it.is_object())?;
        Some(
            text(&described["quant_method"])
                .unwrap_or_else(|| "of a kind it does not name".to_owned()),
        )
    });
    ModelConfig {
        architectures: architectures.filter_map(text).collect(),
        model_type: text(&config["model_type"]),
        has_code: config["auto_map"].is_object(),
        heads: unanimous(number(&parts, &HEADS)),
        context: context(&parts),
        quantisation,
        dtype: ["dtype", "torch_dtype"].iter().find_map(|key| text(&config[*key])),
        cache: cache_shape::read(config),
    }
}

/// The configuration and what is in it of the part that makes the text.
fn parts(config: &Value) -> Vec<&Value> {
    let mut parts = vec![config];
    let mut at = 0;
    while let Some(part) = parts.get(at).copied() {
        parts.extend(TEXT_PARTS.iter().map(|key| &part[*key]).filter(|it| it.is_object()));
        at += 1;
    }
    parts
}

/// The number on which all agree: which of them counts, only vLLM knows.
fn unanimous(mut numbers: impl Iterator<Item = u64>) -> Option<u64> {
    let first = numbers.next()?;
    numbers.all(|other| other == first).then_some(first)
}

fn number<'a>(parts: &'a [&Value], keys: &'a [&str]) -> impl Iterator<Item = u64> + 'a {
    parts.iter().flat_map(|part| keys.iter().filter_map(|key| part[*key].as_u64()))
}

/// The most that any key says, stretched by any scaling there is: what is refused must be refused by vLLM,
/// which takes less in some cases.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of tokens"
)]
fn context(parts: &[&Value]) -> Option<u64> {
    let longest = number(parts, &CONTEXTS).max()?;
    let scalings = parts.iter().flat_map(|part| [&part["rope_scaling"], &part["rope_parameters"]]);
    let factors = scalings.flat_map(|scaling| {
        let own = scaling["factor"].as_f64();
        let below = scaling.as_object().into_iter().flatten();
        own.into_iter().chain(below.filter_map(|(_, it)| it["factor"].as_f64()))
    });
    let factor = factors.fold(1.0, f64::max);
    Some((longest as f64 * factor).ceil() as u64)
}
