//! The LoRA adapters that are asked for in `extra_args`.

use serde_json::Value;
use vllm_supervisor_actors::domain::preflight::{LoraModule, LoraPlan};

use super::{given, has};
use crate::config::{Argument, Config};

/// vLLM 0.32, `config/lora.py`, `max_lora_rank`.
const USUAL_RANK: u64 = 16;

pub(super) fn plan(config: &Config) -> LoraPlan {
    LoraPlan {
        is_enabled: has(config, "--enable-lora"),
        largest_rank: match given(config, "--max-lora-rank") {
            Some(rank) => rank.parse().ok(),
            None => Some(USUAL_RANK),
        },
        modules: modules(&config.extra_args),
    }
}

/// The last `--lora-modules`, which takes the words up to the next flag.
fn modules(words: &[String]) -> Vec<LoraModule> {
    let is_meant = |word: &String| {
        Argument::read(word).is_some_and(|argument| argument.may_be("--lora-modules"))
    };
    let Some(at) = words.iter().rposition(is_meant) else { return Vec::new() };
    if let Some((_, value)) = words[at].split_once('=') {
        return module(value).into_iter().collect();
    }
    let values = words[at + 1..].iter().take_while(|word| Argument::read(word).is_none());
    values.filter_map(|word| module(word)).collect()
}

/// vLLM 0.32, `entrypoints/launchers/cli_args.py`, `LoRAParserAction`.
fn module(word: &str) -> Option<LoraModule> {
    let (name, path) = match word.split_once('=') {
        Some((name, path)) if !word.contains(',') => (name.to_owned(), path.to_owned()),
        _ => {
            let value: Value = serde_json::from_str(word).ok()?;
            (value["name"].as_str()?.to_owned(), value["path"].as_str()?.to_owned())
        }
    };
    Some(LoraModule { name, path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelReference;

    fn of(words: &[&str]) -> LoraPlan {
        let model = ModelReference::Hub("a/b".to_owned());
        let mut config = Config::with_defaults(model, "/state");
        config.extra_args = words.iter().map(|&word| word.to_owned()).collect();
        plan(&config)
    }

    #[test]
    fn adapters_are_read_in_every_form_that_vllm_takes() {
        let names = |words: &[&str]| {
            let modules = of(words).modules.into_iter();
            modules.map(|it| format!("{} {}", it.name, it.path)).collect::<Vec<_>>()
        };
        let json = r#"{"name": "c", "path": "/c", "base_model_name": "x"}"#;
        let all = ["--lora-modules", "a=/a", "b=org/b", json, "--enable-lora"];
        assert_eq!(names(&all), ["a /a", "b org/b", "c /c"]);
        assert_eq!(names(&["--lora_modules=a=/a"]), ["a /a"]);
        assert_eq!(names(&["--lora-modules", "a=/a", "--lora-modules", "b=/b"]), ["b /b"]);
        assert_eq!(names(&["--lora-modules", "[]", "{}", "x", "--seed", "1"]), [""; 0]);
        assert_eq!(of(&[]), LoraPlan { largest_rank: Some(16), ..LoraPlan::default() });
    }

    #[test]
    fn what_is_allowed_is_read_too() {
        assert!(of(&["--enable-lora"]).is_enabled);
        assert_eq!(of(&["--max-lora-rank", "64"]).largest_rank, Some(64));
        assert_eq!(of(&["--max-lora-rank=x"]).largest_rank, None);
    }
}
