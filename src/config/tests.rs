//! Loading as a whole: what every source gives, which one wins, and what is reported.

mod arguments;
mod documents;
mod mistakes;
mod modes;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use vllm_supervisor_actors::domain::gpu::GpuAction;

use super::*;

/// A directory of its own that serves as working directory, home and `/etc`.
struct Place {
    directory: TempDir,
    sources: Sources,
}

impl Place {
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let sources = Sources {
            overrides: Overrides::default(),
            environment: BTreeMap::from([(
                "HOME".to_owned(),
                root.join("home").display().to_string(),
            )]),
            working_directory: root.to_owned(),
            system_file: root.join("etc/vllmd/config.yaml"),
            ..Sources::from_value(serde_json::Value::Null)
        };
        Self { directory, sources: Sources { content: None, ..sources } }
    }

    fn with_model() -> Self {
        let mut place = Self::empty();
        place.sources.overrides.model = Some("flag/model".to_owned());
        place
    }

    /// A `--config` file with these settings, at the indentation of the first.
    fn with_settings(settings: &str) -> Self {
        let lines = settings.lines().map(|line| format!("    {line}\n"));
        Self::with_file(&format!("providers:\n  vllm:\n{}", lines.collect::<String>()))
    }

    fn with_file(text: &str) -> Self {
        let mut place = Self::empty();
        place.sources.file = Some(place.write("given.yaml", text));
        place
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Resolved, ConfigError> {
        Resolved::load(&self.sources)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}")).config
    }

    fn problems(&self) -> Vec<Problem> {
        self.load().expect_err("there is a problem").problems
    }
}

fn origin_of<'a>(resolved: &'a Resolved, key: &str) -> &'a Setting {
    resolved.origins.iter().find(|setting| setting.key == key).expect("a setting of that name")
}

#[test]
fn the_password_of_an_address_is_not_shown() {
    let proxy = "env: {HTTPS_PROXY: 'http://me:hunter2@proxy:3128'}";
    let place =
        Place::with_settings(&format!("model: a/b\n{proxy}\nextra_args: ['http://x:hunter2@y']"));
    let resolved = place.load().unwrap();
    let shown = format!("{:?}", resolved.origins);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(origin_of(&resolved, "env").value.contains("http://me:********@proxy:3128"), "{shown}");
    assert_eq!(resolved.config.env["HTTPS_PROXY"], "http://me:hunter2@proxy:3128");
}

const MODEL_FILE: &str = "providers: {vllm: {model: file/model, port: 1001}}";

#[test]
fn without_a_file_a_model_is_enough_and_the_rest_is_default() {
    let place = Place::with_model();
    let resolved = place.load().unwrap();
    let state_dir = place.directory.path().join("home/.local/state/vllmd");
    let model = ModelReference::Hub("flag/model".to_owned());
    let cache_dir = Some(place.directory.path().join("home/.cache/vllmd"));
    assert_eq!(resolved.config, Config { cache_dir, ..Config::with_defaults(model, state_dir) });
    assert_eq!(resolved.file, None);
    let given: Vec<_> =
        resolved.origins.iter().filter(|setting| setting.origin != Origin::Default).collect();
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].origin, Origin::Flag("--model"));
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let mut place = Place::with_file(MODEL_FILE);
    let file = place.sources.file.clone().unwrap();
    let found = |place: &Place| {
        let resolved = place.load().unwrap();
        let port = origin_of(&resolved, "port").clone();
        (resolved.config.model.to_string(), resolved.config.port, port.origin)
    };
    assert_eq!(found(&place), ("file/model".to_owned(), 1001, Origin::File(file)));

    place = place.variable("VLLM_MODEL", "env/model").variable("VLLM_PORT", "1002");
    let by_variable = Origin::Environment("VLLM_PORT".to_owned());
    assert_eq!(found(&place), ("env/model".to_owned(), 1002, by_variable));

    place.sources.overrides.model = Some("flag/model".to_owned());
    place.sources.overrides.port = Some(1003);
    assert_eq!(found(&place), ("flag/model".to_owned(), 1003, Origin::Flag("--port")));
}

#[test]
fn empty_variables_count_as_unset() {
    let place = Place::with_file(MODEL_FILE);
    let place = place.variable("VLLM_MODEL", "").variable("VLLM_PORT", "").variable("HF_TOKEN", "");
    let config = place.config();
    assert_eq!((config.model.to_string().as_str(), config.port), ("file/model", 1001));
    assert_eq!(config.secrets, Secrets::default());
}

#[test]
fn a_wrong_value_that_a_stronger_source_replaces_is_not_judged() {
    let place =
        Place::with_settings("model: file/model\nport: never").variable("VLLM_PORT", "1002");
    assert_eq!(place.config().port, 1002);
}

#[test]
fn the_usual_files_are_looked_for_in_their_order() {
    let file = |model: &str| format!("providers: {{vllm: {{model: {model}}}}}");
    let mut place = Place::empty();
    let model = |place: &Place| place.config().model.to_string();

    place.write("etc/vllmd/config.yaml", &file("by/system"));
    assert_eq!(model(&place), "by/system");
    place.write("home/.config/vllmd/config.yaml", &file("by/home"));
    assert_eq!(model(&place), "by/home");
    place.write("xdg/vllmd/config.yaml", &file("by/xdg"));
    let xdg = place.directory.path().join("xdg").display().to_string();
    place = place.variable("XDG_CONFIG_HOME", &xdg);
    assert_eq!(model(&place), "by/xdg");
    place.write(".agent/config.yml", &file("by/project"));
    assert_eq!(model(&place), "by/project");
    place.write("named.yaml", &file("by/variable"));
    place = place.variable("VLLMD_CONFIG", "named.yaml");
    assert_eq!(model(&place), "by/variable");
    place.sources.file = Some(place.write("given.yaml", &file("by/flag")));
    assert_eq!(model(&place), "by/flag");
}

#[test]
fn sections_of_other_programs_are_left_alone() {
    let place = Place::with_file(
        "agent: {port: [1, {2: three}], <<: {a: 1}}\n\
         providers:\n  ollama: {port: never, hf_token: theirs}\n  vllm: {model: file/model}\n\
         42: !tag text\n",
    );
    assert_eq!(place.config().model.to_string(), "file/model");
}

#[test]
fn a_file_without_our_section_gives_nothing() {
    for text in ["", "# nothing\n", "providers:\n", "providers:\n  vllm:\n", "other: 1\n"] {
        let mut place = Place::with_file(text);
        place.sources.overrides.model = Some("flag/model".to_owned());
        assert_eq!(place.config().port, 8000, "{text:?}");
    }
}

#[test]
fn every_setting_of_a_file_arrives() {
    let place = Place::with_settings(include_str!("tests/every_setting.yaml"))
        .variable("VLLM_API_KEY", "the-key");
    let root = place.directory.path();
    let config = place.config();
    let lifecycle = Lifecycle {
        mode: LifecycleMode::Managed,
        monitored_unit: None,
        launch: LaunchPolicy::Warm,
        start_timeout: Duration::from_secs(31),
        model_load_timeout: Duration::from_millis(1500),
        health_check_interval: Duration::from_secs(5 * 60),
        max_consecutive_failures: NonZeroU32::new(4).unwrap(),
        max_restarts_per_minute: NonZeroU32::new(5).unwrap(),
        restart_backoff: Duration::from_millis(2500),
        stable_after: Duration::from_secs(90),
        stop_on_exit: ExitPolicy::Stop,
        shutdown_grace_period: Duration::ZERO,
        model_load_max_retries: 0,
    };
    let gpu = GpuConfig {
        memory_utilization: 0.5,
        tensor_parallel_size: NonZeroU32::new(2).unwrap(),
        pipeline_parallel_size: NonZeroU32::new(3).unwrap(),
        monitor: GpuMonitor::Off,
        sample_interval: Duration::from_millis(250),
        library: Some("/opt/libnvidia-ml.so.1".into()),
        xid_actions: [(79, GpuAction::None), (109, GpuAction::RestartApplication)].into(),
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let program = root.join("./bin/python").display().to_string();
    assert_eq!(config.host, "0.0.0.0".parse::<IpAddr>().unwrap());
    assert_eq!(config.port, 9000);
    assert_eq!(config.vllm_binary, Some(words(&[&program, "-m", "vllm"])));
    assert_eq!(config.extra_args, words(&["--max-model-len", "4096", "--served-model-name=no"]));
    assert_eq!(config.env.into_iter().collect::<Vec<_>>(), [("A".to_owned(), "1".to_owned())]);
    assert_eq!(config.network, Network::Airgapped);
    assert_eq!(config.lifecycle, lifecycle);
    assert_eq!(config.gpu, gpu);
    let keep = NonZeroU32::new(3).unwrap();
    assert_eq!(config.logs, Logs { max_bytes: 1024 * 1024, keep });
    assert_eq!(config.secrets.vllm_api_key, Some(Secret::new("the-key")));
}

#[test]
fn numbers_among_texts_are_passed_on_as_they_are_written() {
    let place = Place::with_settings(
        "model: a/b\nvllm_binary: [/bin/x, 1.10]\nenv: {A: 010, B: 0x1F, C: &c 1e3, D: *c}\nextra_args:\n  - 1.10\n  - 007\n  - +1\n  - 1000000000000000000000",
    );
    let config = place.config();
    assert_eq!(config.extra_args, ["1.10", "007", "+1", "1000000000000000000000"]);
    assert_eq!(config.vllm_binary.unwrap()[1], "1.10");
    let values: Vec<_> = config.env.values().map(String::as_str).collect();
    assert_eq!(values, ["010", "0x1F", "1e3", "1e3"]);
}

#[test]
fn a_command_is_found_from_where_it_was_written() {
    for (written, program) in [
        ("vllm", "vllm".to_owned()),
        ("~/venv/bin/vllm", "{root}/home/venv/bin/vllm".to_owned()),
        ("/opt/vllm --verbose", "/opt/vllm".to_owned()),
        ("['my programs/vllm']", "{root}/my programs/vllm".to_owned()),
        ("there is/one", "{root}/there is/one".to_owned()),
    ] {
        let place = Place::with_settings(&format!("model: a/b\nvllm_binary: {written}"));
        place.write("there is/one", "");
        let root = place.directory.path().display().to_string();
        let command = place.config().vllm_binary.unwrap();
        assert_eq!(command[0], program.replace("{root}", &root), "{written}");
    }
}

#[test]
fn the_state_directory_comes_from_the_flag_or_the_environment() {
    let mut place = Place::with_model().variable("XDG_STATE_HOME", "/var/state");
    let resolved = place.load().unwrap();
    assert_eq!(resolved.config.state_dir, Path::new("/var/state/vllmd"));
    let by_variable = Origin::Environment("XDG_STATE_HOME".to_owned());
    assert_eq!(origin_of(&resolved, "state_dir").origin, by_variable);
    place.sources.overrides.state_dir = Some(PathBuf::from("here"));
    assert_eq!(place.config().state_dir, place.directory.path().join("here"));
}

#[test]
fn the_cache_directory_comes_from_the_environment() {
    let resolved = Place::with_model().variable("XDG_CACHE_HOME", "/var/cache").load().unwrap();
    assert_eq!(resolved.config.cache_dir.as_deref(), Some(Path::new("/var/cache/vllmd")));
    let by_variable = Origin::Environment("XDG_CACHE_HOME".to_owned());
    assert_eq!(origin_of(&resolved, "cache_dir").origin, by_variable);
}

#[test]
fn a_secret_is_in_no_output_but_its_presence_is() {
    let place = Place::with_model().variable("HF_TOKEN", "tok").variable("VLLM_API_KEY", "key-1");
    let resolved = place.load().unwrap();
    let shown = format!("{resolved:?} {:?}", place.sources);
    assert!(!shown.contains("tok\"") && !shown.contains("key-1"), "{shown}");
    let token = origin_of(&resolved, "hf_token");
    assert_eq!(token.value, "********");
    assert_eq!(token.origin, Origin::Environment("HF_TOKEN".to_owned()));
}

/// A program that has a configuration of its own, with ours somewhere in it.
#[test]
fn a_text_and_a_value_are_read_without_a_file_and_without_the_environment() {
    let text = "app: [1]\ninference:\n  local:\n    model: a/b\n    port: 1001\n  1: {x: y}\n";
    let of_text = Sources { section: "inference.local".to_owned(), ..Sources::from_text(text) };
    let value = serde_json::json!({"model": "a/b", "port": 1001});
    for mut sources in [of_text, Sources::from_value(value)] {
        sources.overrides.state_dir = Some("/state".into());
        let resolved = Resolved::load(&sources).unwrap();
        let config = &resolved.config;
        assert_eq!((config.model.to_string().as_str(), config.port), ("a/b", 1001));
        assert_eq!((config.secrets.clone(), resolved.file), (Secrets::default(), None));
        sources.environment.insert("VLLM_PORT".to_owned(), "1002".to_owned());
        assert_eq!(Resolved::load(&sources).unwrap().config.port, 1002);
    }
}

#[test]
fn problems_of_a_section_of_another_name_name_its_keys() {
    let text = "llm:\n  model: a/b\n  prot: 1\n  extra_args: [--port=1]\n";
    let mut sources = Sources { section: "llm".to_owned(), ..Sources::from_text(text) };
    sources.overrides.state_dir = Some("/state".into());
    let error = Resolved::load(&sources).unwrap_err();
    let told: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    assert!(
        told[0].starts_with("llm.extra_args[0]: `--port` is set by the supervisor"),
        "{told:?}"
    );
    assert!(told[0].ends_with("set `llm.port` instead"), "{told:?}");
    assert_eq!(told[1], "llm.prot: unknown key; did you mean `llm.port`?");
    assert_eq!(error.problems[1].line, Some(3));
    sources.content = Some(Content::Text("llm: [".to_owned()));
    let error = Resolved::load(&sources).unwrap_err();
    assert_eq!((error.problems[0].key.as_str(), error.problems[0].line), ("llm", Some(1)));
}

#[test]
fn the_sources_of_this_process_have_its_environment_and_directory() {
    let sources = Sources::from_process(Overrides::default(), None);
    assert!(sources.environment.contains_key("PATH"));
    assert!(sources.working_directory.is_absolute());
}
