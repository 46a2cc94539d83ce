//! A LoRA adapter's files.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::{LFS_POINTER, config, read_whole, weights};
use crate::domain::preflight::{Adapter, AdapterConfig, LoraModule, WeightFile};

/// It names modules, of which there may be some thousand.
const MOST_BYTES: u64 = 16 << 20;

/// In this order (vLLM 0.32, `lora/lora_model.py`, `from_local_checkpoint`); the last one is tensorizer's,
/// of earlier versions.
const WEIGHTS: [&str; 4] =
    ["adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt", "adapter_model.tensors"];

/// What is in the directory of this adapter.
pub fn look_at_adapter(module: &LoraModule, directory: &Path) -> Adapter {
    Adapter { module: module.clone(), config: config_of(directory), weights: weights_of(directory) }
}

fn config_of(directory: &Path) -> AdapterConfig {
    let bytes = match read_whole(&directory.join("adapter_config.json"), MOST_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&error) => return AdapterConfig::Missing,
        Err(error) => return AdapterConfig::Unread(error.to_string()),
    };
    if bytes.starts_with(LFS_POINTER) {
        return AdapterConfig::Broken("it is a pointer that Git LFS has not fetched".to_owned());
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) if value.is_object() => {
            let pattern = value["rank_pattern"].as_object().into_iter().flatten();
            AdapterConfig::Read {
                rank: value["r"].as_u64(),
                largest_of_pattern: pattern.filter_map(|(_, rank)| rank.as_u64()).max(),
            }
        }
        Ok(_) => AdapterConfig::Broken("it is no JSON object".to_owned()),
        Err(_) if config::has_numbers_of_python(&bytes) => {
            AdapterConfig::Unread("it has numbers that are not JSON's".to_owned())
        }
        Err(error) => AdapterConfig::Broken(error.to_string()),
    }
}

fn weights_of(directory: &Path) -> Result<Option<WeightFile>, String> {
    for name in WEIGHTS {
        match weights::look_at(directory, name) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    Ok(None)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_adapter_is_read_as_far_as_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let module = LoraModule { name: "a".to_owned(), path: "a".to_owned() };
        let look = || look_at_adapter(&module, root.path());
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        assert_eq!((look().config, look().weights), (AdapterConfig::Missing, Ok(None)));
        let nowhere = look_at_adapter(&module, &root.path().join("nowhere"));
        assert_eq!((nowhere.config, nowhere.weights), (AdapterConfig::Missing, Ok(None)));
        write("adapter_config.json", r#"{"r": 8, "rank_pattern": {"q_proj": 64, "v_proj": 4}}"#);
        let config = AdapterConfig::Read { rank: Some(8), largest_of_pattern: Some(64) };
        assert_eq!(look().config, config);
        write("adapter_model.bin", "x");
        assert_eq!(look().weights.unwrap().unwrap().name, "adapter_model.bin");
        write("adapter_model.safetensors", "x");
        let file = look().weights.unwrap().unwrap();
        assert!(file.name == "adapter_model.safetensors" && file.fault.is_some(), "{file:?}");
        for (text, is_broken) in [("{\"r\": ", true), ("[]", true), ("{\"x\": NaN}", false)] {
            write("adapter_config.json", text);
            let config = look().config;
            assert_eq!(matches!(config, AdapterConfig::Broken(_)), is_broken, "{config:?}");
        }
    }
}
