//! The files we ship say what the code does: defaults, schema, examples.

use std::path::Path;

use serde_json::Value;

use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_default_file_says_exactly_the_defaults() {
    let mut place = Place::with_file(DEFAULT_YAML);
    place.sources.overrides.model = Some("flag/model".to_owned());
    let config = place.config();
    assert_eq!(config, of_defaults(&config));
}

/// A file that we ship is what is made of the options.
fn is_up_to_date(path: &str, made: &str) {
    let path = repository(path);
    if std::env::var_os("UPDATE_CONFIG").is_some() {
        fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "run this test again with UPDATE_CONFIG=1");
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    is_up_to_date("config/schema.json", &format!("{:#}\n", schema()));
}

/// A text as comments of this depth.
fn comment(text: &str, depth: usize) -> String {
    let indent = " ".repeat(depth);
    let lines = textwrap::wrap(text, 98 - depth);
    lines.iter().flat_map(|line| [&indent, "# ", line, "\n"]).collect()
}

#[test]
fn the_committed_default_file_is_the_generated_one() {
    let (introduction, _) = DEFAULT_YAML.split_once("\nproviders:\n").unwrap();
    let mut made = format!("{introduction}\nproviders:\n  vllm:\n");
    let defaults = Config::with_defaults(ModelReference::Hub(String::new()), "");
    for section in &options::SECTIONS {
        let depth = if section.key.is_empty() { 4 } else { 6 };
        if !section.key.is_empty() {
            made.extend(["\n", &comment(section.help, 4), "    ", section.key, ":\n"]);
        }
        let below = OPTIONS.iter().filter_map(|entry| {
            let (map, word) = entry.key.split_once('.').unwrap_or(("", entry.key));
            (map == section.key).then_some((word, entry))
        });
        let options = below.map(|(word, entry)| {
            let default = match (entry.json)(&defaults) {
                Value::String(text) if text.is_empty() => "null".to_owned(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            let indent = " ".repeat(depth);
            format!("{}{indent}{word}: {default}\n", comment(entry.help, depth))
        });
        made += &options.collect::<Vec<_>>().join("\n");
    }
    is_up_to_date("config/default.yaml", &made);
}

#[test]
fn the_examples_load_without_a_problem() {
    let mut count = 0;
    for entry in fs::read_dir(repository("config/examples")).unwrap() {
        let mut place = Place::empty();
        let path = entry.unwrap().path();
        place.sources.file = Some(path.clone());
        assert_eq!(place.config().problems(), [], "{}", path.display());
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
