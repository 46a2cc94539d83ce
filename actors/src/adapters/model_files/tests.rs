//! Directories as they come from the Hub, from Git, from a copy that broke off.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::domain::preflight::{ConfigFile, ModelConfig, WeightFault, Weights};

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "num_attention_heads": 12, "max_position_embeddings": 2048}"#;

/// A file of safetensors with one tensor of this many bytes.
fn safetensors(bytes: usize) -> Vec<u8> {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"a":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#
    );
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; bytes]].concat()
}

fn model(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn config_of(content: &str) -> ConfigFile {
    look(model(&[("config.json", content.as_bytes())]).path()).config
}

fn read(content: &str) -> ModelConfig {
    match config_of(content) {
        ConfigFile::Read(config) => config,
        other => panic!("{other:?}"),
    }
}

fn weights_of(files: &[(&str, &[u8])]) -> (Vec<(String, Option<WeightFault>)>, Vec<String>) {
    match look(model(files).path()).weights {
        Weights::Files { present, missing } => {
            (present.into_iter().map(|it| (it.name, it.fault)).collect(), missing)
        }
        other => panic!("{other:?}"),
    }
}

fn fault_of(content: &[u8]) -> Option<WeightFault> {
    weights_of(&[("model.safetensors", content)]).0.remove(0).1
}

#[test]
fn a_whole_model_is_read() {
    let whole = safetensors(1000);
    let files: [(&str, &[u8]); 3] = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &whole),
        ("tokenizer.json", b"{}"),
    ];
    let directory = model(&files);
    let facts = look(directory.path());
    let config = read(CONFIG);
    assert_eq!(config.architectures, ["LlamaForCausalLM"]);
    assert_eq!((config.heads, config.context), (Some(12), Some(2048)));
    assert_eq!(facts.tokenizer, Tokenizer::Present);
    assert_eq!(weights_of(&files), (vec![("model.safetensors".to_owned(), None)], Vec::new()));
}

#[test]
fn a_configuration_is_missing_broken_or_another_ones() {
    assert_eq!(look(model(&[]).path()).config, ConfigFile::Missing);
    for content in
        ["", "{", "[]", "{\"a\": 1,}", "version https://git-lfs.github.com/spec/v1\noid x"]
    {
        assert!(matches!(config_of(content), ConfigFile::Broken(_)), "{content:?}");
    }
    let of_mistral = look(model(&[("params.json", b"{}")]).path()).config;
    assert!(matches!(of_mistral, ConfigFile::Unread(_)), "{of_mistral:?}");
}

#[test]
fn of_a_model_of_several_parts_the_one_that_makes_the_text_counts() {
    let config = read(
        r#"{"model_type": "qwen2_5_omni", "thinker_config": {"text_config":
            {"num_attention_heads": 28, "max_position_embeddings": 32768}}, "vision_config": {"num_heads": 99}}"#,
    );
    assert_eq!((config.heads, config.context), (Some(28), Some(32768)));
}

#[test]
fn a_scaled_context_is_as_long_as_it_can_be() {
    for scaling in [
        r#""rope_scaling": {"type": "yarn", "factor": 4.0}"#,
        r#""rope_parameters": {"full_attention": {"factor": 4}}"#,
    ] {
        let config = read(&format!(r#"{{"max_position_embeddings": 1000, {scaling}}}"#));
        assert_eq!(config.context, Some(4000), "{scaling}");
    }
}

#[test]
fn a_quantisation_is_named_where_there_is_one() {
    let of = |content: &str| read(content).quantisation;
    assert_eq!(of(r#"{"quantization_config": {"quant_method": "awq"}}"#).as_deref(), Some("awq"));
    assert_eq!(of(r#"{"quantization_config": null}"#), None);
    assert!(of(r#"{"text_config": {"quantization_config": {}}}"#).is_some());
}

#[test]
fn a_file_of_weights_that_is_not_whole_is_told_how() {
    let whole = safetensors(1000);
    assert_eq!(fault_of(&whole), None);
    let expected = Some(whole.len() as u64);
    let cut = |length: usize| fault_of(&whole[..length]);
    assert_eq!(cut(whole.len() - 1), Some(WeightFault::Truncated { expected }));
    for length in [0, 7, 8, 20, 60] {
        assert_eq!(cut(length), Some(WeightFault::Truncated { expected: None }), "{length}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_eq!(fault_of(pointer), Some(WeightFault::LfsPointer));
    for content in [&b"<html>not found</html> and more of it, and more, and more"[..], &[0xff; 100]]
    {
        assert_eq!(fault_of(content), Some(WeightFault::NotSafetensors));
    }
}

#[test]
fn shards_that_an_index_or_a_name_tells_of_are_missed() {
    let whole = safetensors(10);
    let index =
        br#"{"weight_map": {"a": "x.safetensors", "b": "y.safetensors", "c": "y.safetensors"}}"#;
    let files: [(&str, &[u8]); 2] =
        [("model.safetensors.index.json", index), ("x.safetensors", &whole)];
    assert_eq!(weights_of(&files).1, ["y.safetensors"]);
    let files: [(&str, &[u8]); 1] = [("model-00002-of-00003.safetensors", &whole)];
    let others = ["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"];
    assert_eq!(weights_of(&files).1, others);
}

#[test]
fn what_an_index_does_not_name_and_what_stands_beside_mistrals_own_is_not_loaded() {
    let whole = safetensors(10);
    let index = br#"{"weight_map": {"a": "x.safetensors"}}"#;
    let (present, missing) = weights_of(&[
        ("model.safetensors.index.json", index),
        ("x.safetensors", &whole),
        ("adapter-00001-of-00002.safetensors", b"broken off"),
    ]);
    assert_eq!((present, missing), (vec![("x.safetensors".to_owned(), None)], Vec::new()));
    let (present, missing) = weights_of(&[
        ("model.safetensors.index.json", index),
        ("consolidated.safetensors", &whole),
    ]);
    assert_eq!(
        (present, missing),
        (vec![("consolidated.safetensors".to_owned(), None)], Vec::new())
    );
}

#[test]
fn heads_on_which_its_parts_do_not_agree_are_not_known() {
    let of = |outer: u64| {
        let text = r#"{"num_attention_heads": 12}"#;
        read(&format!(r#"{{"num_attention_heads": {outer}, "text_config": {text}}}"#)).heads
    };
    assert_eq!((of(12), of(16)), (Some(12), None));
}

#[test]
fn a_quantisation_may_be_described_beside_the_configuration() {
    for name in ["quantize_config.json", "quant_config.json", "hf_quant_config.json"] {
        let directory = model(&[("config.json", CONFIG.as_bytes()), (name, b"{}")]);
        let ConfigFile::Read(config) = look(directory.path()).config else { panic!("{name}") };
        assert!(config.quantisation.is_some_and(|it| it.ends_with(name)), "{name}");
    }
}

#[test]
fn a_link_whose_file_has_gone_is_a_missing_file() {
    let directory = model(&[]);
    symlink("/nowhere/blob", directory.path().join("model.safetensors")).unwrap();
    let Weights::Files { present, missing } = look(directory.path()).weights else { panic!() };
    assert_eq!((present, missing), (Vec::new(), vec!["model.safetensors".to_owned()]));
}

#[test]
fn what_training_leaves_is_no_weights_and_safetensors_go_before_others() {
    let (present, _) = weights_of(&[("training_args.bin", b"x"), ("pytorch_model.bin", b"x")]);
    assert_eq!(present, [("pytorch_model.bin".to_owned(), None)]);
    let whole = safetensors(1);
    let (present, _) = weights_of(&[("a.safetensors", &whole), ("pytorch_model.bin", b"x")]);
    assert_eq!(present, [("a.safetensors".to_owned(), None)]);
}

#[test]
fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
    let facts = look(Path::new("/nowhere/at/all"));
    assert!(matches!(facts.weights, Weights::Unread(_)), "{facts:?}");
    assert!(matches!(facts.tokenizer, Tokenizer::Unread(_)));
}

#[test]
fn what_is_installed_is_known_by_its_modules() {
    let venv = tempfile::tempdir().unwrap();
    let packages = venv.path().join("lib/python3.12/site-packages");
    let write = |path: &str, text: &str| {
        let path = packages.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let settings = |text: &str| fs::write(venv.path().join("pyvenv.cfg"), text).unwrap();
    let config = ModelConfig {
        architectures: vec!["A".to_owned(), "B".to_owned(), "C".to_owned()],
        model_type: Some("chatglm".to_owned()),
        ..ModelConfig::default()
    };
    let look = || installed(Some(&packages), &config);
    settings("home = /usr/bin\ninclude-system-site-packages = false\n");
    write("vllm/model_executor/models/registry.py", "  \"A\": (\"a\", \"A\"),\n");
    write("vllm/transformers_utils/config.py", "\n");
    assert_eq!(look().architectures, None, "transformers is not there");
    write("transformers/models/auto/modeling_auto.py", "(\"b\", \"B\"),\n");
    assert_eq!(look().architectures.unwrap(), ["A", "B"]);
    assert_eq!(look().knows_type, Some(false));
    let kinds = ["AForRewardModel", "AForNothingKnown", "BModel", "ZForCausalLM"];
    let kinds = ModelConfig { architectures: kinds.map(str::to_owned).into(), ..config.clone() };
    let known = installed(Some(&packages), &kinds).architectures.unwrap();
    assert_eq!(
        known,
        ["AForRewardModel", "AForNothingKnown", "BModel"],
        "vLLM may make it of another"
    );
    write("vllm/transformers_utils/config.py", "    chatglm=\"ChatGLMConfig\",\n");
    assert_eq!(look().knows_type, Some(true));
    settings("include-system-site-packages = true\n");
    assert_eq!(look().architectures, None, "the system may have more");
    settings("include-system-site-packages = false\n");
    assert!(look().architectures.is_some());
    write("more.egg-info/entry_points.txt", "[vllm.platform_plugins]\nmore = more:register\n");
    assert_eq!(look().architectures, None, "more may be registered");
}

#[test]
fn what_is_not_known_to_be_broken_is_not_called_so() {
    let unread = |content: &str| matches!(config_of(content), ConfigFile::Unread(_));
    assert!(unread(r#"{"time_step_limit": [0.0, Infinity]}"#), "Python reads that");
    assert!(unread(r#"{"speculators_config": {"verifier": {}}}"#), "another model is loaded");
    let embeds = [("config.json", CONFIG.as_bytes()), ("sentence_bert_config.json", &b"{}"[..])];
    let ConfigFile::Read(config) = look(model(&embeds).path()).config else { panic!() };
    assert_eq!(config.context, None);
    let (present, _) = weights_of(&[("pytorch_model.bin", b"x"), ("rng_state.pt", LFS_POINTER)]);
    assert_eq!(present, [("pytorch_model.bin".to_owned(), None)]);
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let directory = model(&[]);
    let pipe = directory.path().join("model.safetensors");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let Weights::Files { present, .. } = look(directory.path()).weights else { panic!() };
    assert!(matches!(present[0].fault, Some(WeightFault::Unread(_))), "{present:?}");
}
