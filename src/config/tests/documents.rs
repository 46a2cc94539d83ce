//! The files we ship say what the code does: defaults, schema, examples.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::super::{file, schema as schema_module};
use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The keys of a section with the keys inside them, without the contents of `env`.
fn keys_of(section: &Value, prefix: &str, keys: &mut BTreeSet<String>) {
    for (name, value) in section.as_object().into_iter().flatten() {
        let key = format!("{prefix}{name}");
        keys_of(value, &format!("{key}."), keys);
        keys.insert(key);
    }
}

#[test]
fn the_default_file_says_exactly_the_defaults() {
    let mut place = Place::with_file(DEFAULT_YAML);
    place.sources.overrides.model = Some("flag/model".to_owned());
    let config = place.config();
    assert_eq!(config, of_defaults(&config));
}

#[test]
fn the_default_file_has_every_key_of_the_schema_and_no_other() {
    let mut written = BTreeSet::new();
    keys_of(&file::parse(DEFAULT_YAML).unwrap().section, "", &mut written);
    let known: BTreeSet<String> = schema_module::settings()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !key.ends_with("_seconds"))
        .collect();
    assert_eq!(written, known);
}

#[test]
fn every_key_of_the_schema_is_a_setting_that_check_shows() {
    let resolved = Place::with_model().load().unwrap();
    let shown: BTreeSet<&str> = resolved.origins.iter().map(|setting| setting.key).collect();
    for (key, schema) in schema_module::settings() {
        let is_section = schema.get("properties").is_some();
        let is_shown = shown.contains(key.trim_end_matches("_seconds"));
        assert!(is_section || is_shown, "{key}");
        assert!(schema["description"].is_string(), "{key}");
    }
}

#[test]
fn every_duration_has_its_twin_in_seconds() {
    let settings = schema_module::settings();
    let keys: BTreeSet<&str> = settings.iter().map(|(key, _)| key.as_str()).collect();
    for setting in Place::with_model().load().unwrap().origins {
        let is_duration = setting.key.contains('.') && setting.value.ends_with(['s', 'm', 'h']);
        let has_twin = keys.contains(format!("{}_seconds", setting.key).as_str());
        assert_eq!(is_duration, has_twin, "{}", setting.key);
    }
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = repository("config/schema.json");
    let generated = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "run this test again with UPDATE_SCHEMA=1");
}

#[test]
fn the_examples_load_without_a_problem() {
    let mut count = 0;
    for entry in fs::read_dir(repository("config/examples")).unwrap() {
        let mut place = Place::empty();
        place.sources.file = Some(entry.unwrap().path());
        assert!(matches!(place.config().model, ModelReference::Hub(_)));
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_file_in_the_readme_loads_without_a_problem() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").expect("a file");
    let (text, _) = rest.split_once("```").expect("its end");
    let config = Place::with_file(text).config();
    assert!(config.vllm_binary.is_some() && config.port != 0, "{text}");
}

#[test]
fn durations_may_be_written_as_numbers_of_seconds() {
    let place = Place::with_file(
        r#"
providers:
  vllm:
    model: "meta-llama/Llama-2-7b-hf"
    port: 8000
    lifecycle:
      mode: managed
      start_timeout_seconds: 30
      health_check_interval_seconds: 60
      max_restarts_per_minute: 3
      model_load_timeout_seconds: 300
      stop_on_exit: false
    gpu:
      memory_utilization: 0.9
      tensor_parallel_size: 1
"#,
    );
    let config = place.config();
    assert_eq!(config.model.to_string(), "meta-llama/Llama-2-7b-hf");
    assert_eq!(config, of_defaults(&config));
}

/// The defaults for the same model and directories.
fn of_defaults(config: &Config) -> Config {
    Config {
        cache_dir: config.cache_dir.clone(),
        ..Config::with_defaults(config.model.clone(), config.state_dir.clone())
    }
}
