//! Every mistake is reported: with its key, what was found, and a way out.

use vllm_supervisor_actors::domain::cause::Code;

use super::*;

/// The one problem of a file with these settings and a model.
pub(super) fn mistake(settings: &str) -> Problem {
    let place = Place::with_settings(&format!("model: a/b\n{settings}"));
    let problems = place.problems();
    assert_eq!(problems.len(), 1, "{settings}: {problems:#?}");
    problems.into_iter().next().unwrap()
}

/// A setting, the key to report, the value found, and a part of what is told of it.
const WRONG_SETTINGS: &[(&str, &str, &str, &str)] = &[
    ("port: 0", "port", "0", "1 to 65535"),
    ("port: 70000", "port", "70000", "1 to 65535"),
    ("port: abc", "port", "abc", "1 to 65535"),
    ("port: '8000'", "port", "\"8000\"", "1 to 65535"),
    ("lifecycle: {stop_on_exit: 'true'}", "lifecycle.stop_on_exit", "\"true\"", "`true`"),
    ("vllm_binary: env VLLM_API_KEY=x vllm", "vllm_binary", "", "VLLM_API_KEY"),
    ("port: 80.5", "port", "80.5", "1 to 65535"),
    ("host: localhost", "host", "localhost", "loopback"),
    ("host: 0.0.0.0", "host", "0.0.0.0", "VLLM_API_KEY"),
    ("vllm_binary: ''", "vllm_binary", "", "program"),
    ("extra_args: --x", "extra_args", "a text", "arguments"),
    ("extra_args: [--x, true]", "extra_args[1]", "true", "quotes"),
    ("extra_args: [--port=1]", "extra_args[0]", "--port", "providers.vllm.port"),
    ("extra_args: ['--seed 7']", "extra_args[0]", "--seed 7", "\"--seed\", \"7\""),
    ("env: {HF_ENDPOINT: hub.local}", "env.HF_ENDPOINT", "hub.local", "`https://hub.local`"),
    ("env: [A=1]", "env", "a list", "variables"),
    ("env: {A: b, C: [d]}", "env.C", "a list", "quotes"),
    ("env: {VLLM_PORT: 1}", "env.VLLM_PORT", "", "providers.vllm.port"),
    ("env: {VLLM_RPC_BASE_PATH: /tmp}", "env.VLLM_RPC_BASE_PATH", "", "remove it"),
    ("env: {VLLM_DP_SIZE: 2}", "env.VLLM_DP_SIZE", "", "remove it"),
    ("env: {VLLM_DP_RANK: 1}", "env.VLLM_DP_RANK", "", "remove it"),
    ("env: {VLLM_PROCESS_NAME_PREFIX: a b}", "env.VLLM_PROCESS_NAME_PREFIX", "", "a word"),
    ("env: {SPT_NOENV: 0}", "env.SPT_NOENV", "", "remove it"),
    ("env: {VLLMD_INSTANCE: x}", "env.VLLMD_INSTANCE", "", "remove it"),
    ("gpu: {library: libnvidia-ml.so.1}", "gpu.library", "libnvidia-ml.so.1", "absolute"),
    ("gpu: {xid_actions: [79]}", "gpu.xid_actions", "a list", "prescribes"),
    ("gpu: {xid_actions: {all: none}}", "gpu.xid_actions", "all", "such as 79"),
    ("gpu: {xid_actions: {79: ignore}}", "gpu.xid_actions.79", "ignore", "none"),
    ("lifecycle: 3", "lifecycle", "3", "restart"),
    ("lifecycle: {mode: own}", "lifecycle.mode", "own", "`external`"),
    ("network: off", "network", "off", "`airgapped`"),
    ("lifecycle: {launch: hot}", "lifecycle.launch", "hot", "`warm`"),
    ("lifecycle: {start_timeout: 30}", "lifecycle.start_timeout", "30", "`_seconds`"),
    ("lifecycle: {start_timeout: soon}", "lifecycle.start_timeout", "soon", "30s"),
    ("lifecycle: {start_timeout: 0s}", "lifecycle.start_timeout", "0s", "at least 10ms"),
    ("lifecycle: {start_timeout: 5M}", "lifecycle.start_timeout", "5M", "`5m`"),
    ("lifecycle: {start_timeout: 1 month}", "lifecycle.start_timeout", "1 month", "`30d`"),
    (
        "lifecycle: {health_check_interval: 1ns}",
        "lifecycle.health_check_interval",
        "1ns",
        "at least 10ms",
    ),
    ("lifecycle: {start_timeout_seconds: -1}", "lifecycle.start_timeout_seconds", "-1", "seconds"),
    (
        "lifecycle: {stable_after_seconds: .inf}",
        "lifecycle.stable_after_seconds",
        ".inf",
        "seconds",
    ),
    ("lifecycle: {stable_after: 2y}", "lifecycle.stable_after", "2y", "at most 30days"),
    ("lifecycle: {restart_backoff: 1s}", "lifecycle.restart_backoff", "1s", "at least 2s"),
    (
        "lifecycle: {restart_backoff_seconds: 61}",
        "lifecycle.restart_backoff_seconds",
        "61",
        "at most 1m",
    ),
    (
        "lifecycle: {max_restarts_per_minute: 0}",
        "lifecycle.max_restarts_per_minute",
        "0",
        "at least 1",
    ),
    ("lifecycle: {stop_on_exit: no}", "lifecycle.stop_on_exit", "no", "`true`"),
    (
        "lifecycle: {model_load_max_retries: -1}",
        "lifecycle.model_load_max_retries",
        "-1",
        "0 for never",
    ),
    ("gpu: {memory_utilization: 1.2}", "gpu.memory_utilization", "1.2", "at most 1"),
    ("gpu: {memory_utilization: 0}", "gpu.memory_utilization", "0", "above 0"),
    ("gpu: {memory_utilization: .nan}", "gpu.memory_utilization", ".nan", "above 0"),
    ("gpu: {tensor_parallel_size: 0}", "gpu.tensor_parallel_size", "0", "at least 1"),
    ("gpu: {monitor: rocm}", "gpu.monitor", "rocm", "`amd`"),
    ("logs: {max_bytes: 1048575}", "logs.max_bytes", "1048575", "1 MiB"),
    ("logs: {max_bytes: 1099511627777}", "logs.max_bytes", "1099511627777", "1 TiB"),
    ("logs: {max_bytes: 10MB}", "logs.max_bytes", "10MB", "in bytes"),
    ("logs: {max_bytes: -1}", "logs.max_bytes", "-1", "in bytes"),
    ("logs: {keep: 0}", "logs.keep", "0", "1 to 1000"),
    ("logs: {keep: 1001}", "logs.keep", "1001", "1 to 1000"),
];

#[test]
fn a_wrong_setting_is_reported_with_its_key_its_value_and_what_would_be_right() {
    are_reported(WRONG_SETTINGS);
}

/// Each is, by these words.
pub(super) fn are_reported(mistakes: &[(&str, &str, &str, &str)]) {
    for (settings, key, value, help) in mistakes {
        let problem = mistake(settings);
        assert_eq!(problem.key, format!("providers.vllm.{key}"), "{settings}");
        assert_eq!(problem.value.as_deref().unwrap_or_default(), *value, "{settings}");
        let told = format!("{}; {}", problem.message, problem.help);
        assert!(told.contains(help), "{settings}: {told}");
        assert_eq!(problem.line, Some(4), "{settings}");
        assert_eq!(problem.code, Code::InvalidConfiguration, "{settings}");
    }
}

#[test]
fn an_unknown_key_is_reported_with_the_key_that_was_meant() {
    for (settings, key, help) in [
        ("prot: 1", "prot", "did you mean `providers.vllm.port`?"),
        ("logs: {max_byte: 1}", "logs.max_byte", "did you mean `providers.vllm.logs.max_bytes`?"),
        ("gpu: {montior: off}", "gpu.montior", "did you mean `providers.vllm.gpu.monitor`?"),
        ("gpu.monitor: off", "gpu.monitor", "did you mean `providers.vllm.gpu.monitor`?"),
        ("'': 1", "", "vllmd config schema"),
        ("stop_on_exit: true", "stop_on_exit", "mean `providers.vllm.lifecycle.stop_on_exit`?"),
        ("max_model_len: 512", "max_model_len", "belongs into `extra_args`"),
        ("colour: blue", "colour", "vllmd config schema"),
    ] {
        let problem = mistake(settings);
        assert_eq!(problem.key, format!("providers.vllm.{key}"));
        assert_eq!(problem.message, "unknown key");
        assert!(problem.help.contains(help), "{}", problem.help);
    }
}

#[test]
fn a_secret_in_the_file_is_reported_with_where_it_belongs_and_never_shown() {
    let token = format!("hf_{}", "aB3".repeat(11));
    for (settings, key, help) in [
        ("hf_token: $", "hf_token", "HF_TOKEN_FILE"),
        ("api_key: $", "api_key", "VLLM_API_KEY_FILE"),
        ("env: {HF_TOKEN: $}", "env.HF_TOKEN", "HF_TOKEN"),
        ("env: {VLLM_API_KEY: word}", "env.VLLM_API_KEY", "VLLM_API_KEY"),
        ("env: {WANDB_API_KEY: word}", "env.WANDB_API_KEY", "set WANDB_API_KEY in the environment"),
        ("env: {ANYTHING: $}", "env.ANYTHING", "ANYTHING in the environment"),
        ("extra_args: [--hf-token=$]", "extra_args[0]", "HF_TOKEN"),
    ] {
        let problem = mistake(&settings.replace('$', &token));
        assert_eq!(problem.key, format!("providers.vllm.{key}"));
        assert!(problem.message.contains("secret"), "{problem}");
        assert!(problem.help.contains(help), "{problem}");
        assert!(!format!("{problem:?} {problem}").contains(&token), "{problem}");
    }
}

#[test]
fn what_may_be_a_secret_is_not_shown_where_the_form_is_wrong() {
    for settings in [
        "env: {DB_SETTING: hunter2, DEBUG: true}",
        "env: [DB_SETTING=hunter2]",
        "env: DB_SETTING=hunter2",
        "extra_args: [--secret, hunter2, true]",
        "extra_args: --secret hunter2",
        "vllm_binary: {a: hunter2}",
    ] {
        let problem = mistake(settings);
        assert!(!format!("{problem} {problem:?}").contains("hunter2"), "{problem}");
    }
}

#[test]
fn a_parser_that_quotes_a_secret_is_not_quoted() {
    let token = format!("hf_{}", "aB3".repeat(11));
    for text in [
        "providers: $",
        "providers: {vllm: [$}",
        "providers:\n  vllm:\n    hf_token $\n    port: 1",
    ] {
        let error = Place::with_file(&text.replace('$', &token)).load().unwrap_err();
        assert_eq!(error.problems.len(), 1, "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains(&token), "{error}");
    }
}

#[test]
fn a_duration_given_twice_is_reported() {
    let problem = mistake("lifecycle:\n  start_timeout: 30s\n  start_timeout_seconds: 30");
    assert_eq!(problem.key, "providers.vllm.lifecycle.start_timeout_seconds");
    assert_eq!(problem.message, "given as well as `providers.vllm.lifecycle.start_timeout`");
    assert!(problem.help.contains("remove one"));
    assert_eq!(problem.line, Some(6));
}

#[test]
fn a_wrong_model_is_reported_under_the_name_of_its_source() {
    let check = |place: &Place, key: &str, value: &str| {
        let problems = place.problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!((problems[0].key.as_str(), problems[0].value.as_deref()), (key, Some(value)));
        assert_eq!(problems[0].code, Code::InvalidModelId);
        assert!(problems[0].help.contains("Hub id") || problems[0].help.contains("path"));
    };
    let mut place = Place::with_settings("model: my org/model");
    check(&place, "providers.vllm.model", "my org/model");
    place = place.variable("VLLM_MODEL", "gpt2");
    check(&place, "VLLM_MODEL", "gpt2");
    place.sources.overrides.model = Some("./no/such/model".to_owned());
    check(&place, "--model", "./no/such/model");
    place.sources.overrides.model = Some(String::new());
    check(&place, "--model", "");
}

#[test]
fn a_wrong_port_is_reported_under_the_name_of_its_source() {
    let mut place = Place::with_model().variable("VLLM_PORT", "tcp://10.0.0.1:8000");
    let problem = &place.problems()[0];
    assert_eq!(problem.key, "VLLM_PORT");
    assert!(problem.help.contains("enableServiceLinks"));
    place = place.variable("VLLM_PORT", "http");
    assert_eq!(place.problems()[0].value.as_deref(), Some("http"));
    place.sources.overrides.port = Some(70_000);
    let problem = &place.problems()[0];
    assert_eq!((problem.key.as_str(), problem.value.as_deref()), ("--port", Some("70000")));
}

#[test]
fn no_model_at_all_is_reported_with_the_three_ways_to_give_one() {
    let problems = Place::empty().problems();
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].key.as_str(), problems[0].line), ("providers.vllm.model", None));
    for way in ["--model", "VLLM_MODEL", "providers.vllm.model"] {
        assert!(problems[0].help.contains(way));
    }
}

#[test]
fn a_section_that_is_ours_but_for_a_slip_is_told_though_a_flag_names_the_model() {
    for (text, line, said) in [
        ("vllm:\n  port: 1\n", 1, "`vllm` stands at the top of the file"),
        ("providers:\n  vlm:\n    gpu: {}\n", 2, "there is `providers.vlm`"),
        ("providers: {VLLM: {extra_args: []}}\n", 1, "there is `providers.VLLM`"),
        ("provider:\n\n  vllm: {lifecycle: {}}\n", 3, "there is `provider.vllm`"),
    ] {
        let mut place = Place::with_file(text);
        place.sources.overrides.model = Some("a/b".to_owned());
        let problems = place.problems();
        assert_eq!((problems.len(), problems[0].line), (1, Some(line)), "{problems:#?}");
        assert!(problems[0].message.contains(said), "{problems:#?}");
        place.sources.overrides.model = None;
        assert_eq!(place.problems().len(), 1);
    }
    for text in [
        "providers: {ollama: {port: 1}}",
        "providers: {llm: {port: 1}}",
        "model: theirs",
        "vllm_x: 1",
    ] {
        let mut place = Place::with_file(text);
        place.sources.overrides.model = Some("a/b".to_owned());
        assert_eq!(place.config().port, 8000, "{text}");
    }
}

#[test]
fn a_model_at_the_wrong_level_is_told_with_the_place_where_it_belongs() {
    for (text, line, said) in [
        ("port: 1\nmodel: a/b\n", 2, "`model` stands at the top of the file"),
        ("vllm:\n  model: a/b\n", 1, "`vllm` stands at the top of the file"),
        ("providers:\n  model: a/b\n", 2, "`model` stands right below `providers`"),
    ] {
        let problems = Place::with_file(text).problems();
        assert_eq!((problems.len(), problems[0].line), (1, Some(line)), "{problems:#?}");
        let told = problems[0].to_string();
        assert!(told.contains("no model is given") && told.contains(said), "{told}");
        assert!(told.contains("below `providers:`"), "{told}");
    }
    let problems = Place::with_file("other: {model: a/b}\n").problems();
    assert_eq!((problems.len(), problems[0].line), (1, None), "{problems:#?}");
}

#[test]
fn a_missing_file_is_a_problem_when_it_was_named() {
    let mut place = Place::with_model().variable("VLLMD_CONFIG", "gone.yaml");
    let problem = &place.problems()[0];
    assert_eq!(problem.key, "VLLMD_CONFIG");
    assert!(problem.value.as_ref().unwrap().ends_with("gone.yaml"));
    place.sources.file = Some(PathBuf::from("gone.yaml"));
    place.sources.overrides.model = None;
    let problems = place.problems();
    assert_eq!(problems.len(), 1, "its model may be in the file: {problems:#?}");
    assert_eq!(problems[0].key, "--config");
}

#[test]
fn malformed_yaml_is_reported_with_its_file_line_and_column() {
    for (text, line) in [
        ("providers:\n  vllm: [1,\n", 2),
        ("providers:\n  vllm:\n    port: 1\n    port: 2\n", 4),
        ("providers: 3\n", 1),
        ("providers:\n\tvllm:\n", 2),
    ] {
        let place = Place::with_file(text).variable("HF_TOKEN_FILE", "gone");
        let error = place.load().unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
        let problem = &error.problems[0];
        assert_eq!(problem.key, place.sources.file.as_ref().unwrap().display().to_string());
        assert_eq!(problem.line, Some(line), "{text:?}: {problem}");
        assert!(problem.message.contains("column"), "{problem}");
        assert!(!problem.message.contains('\n'), "{problem}");
        assert_eq!(error.problems[1].key, "HF_TOKEN_FILE");
    }
}

#[test]
fn all_problems_of_all_sources_are_reported_at_once_in_order() {
    let mut place = Place::with_settings(
        "model: gpt2\nport: never\nprot: 1\nlifecycle: {restart_backoff: 1s, mode: 3}\n\
         gpu: {memory_utilization: 2, tensor_parallel_size: x}",
    )
    .variable("HF_TOKEN_FILE", "gone");
    place.sources.overrides.port = Some(0);
    let error = place.load().unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "--port",
            "HF_TOKEN_FILE",
            "providers.vllm.gpu.memory_utilization",
            "providers.vllm.gpu.tensor_parallel_size",
            "providers.vllm.lifecycle.mode",
            "providers.vllm.lifecycle.restart_backoff",
            "providers.vllm.model",
            "providers.vllm.prot",
        ]
    );
    let shown = error.to_string();
    assert_eq!(shown.lines().count(), keys.len());
    assert!(shown.contains("given.yaml:5: providers.vllm.prot: unknown key; did you mean"));
}

#[test]
fn a_variable_that_is_no_text_is_told_and_not_ignored() {
    let mut place = Place::with_model();
    place.sources.unreadable = ["VLLM_PORT", "SOMEBODYS"].map(str::to_owned).into();
    let problems = place.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].key, "VLLM_PORT");
}

#[test]
fn a_secret_is_masked_where_a_problem_would_repeat_it() {
    let place =
        Place::empty().variable("HF_TOKEN", "pass-word").variable("VLLM_MODEL", "pass-word");
    let error = place.load().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("pass-word"), "{error}");
}

#[test]
fn no_home_directory_is_a_problem_only_when_state_has_no_other_place() {
    let mut place = Place::with_model();
    place.sources.environment.clear();
    assert_eq!(place.problems()[0].key, "--state-dir");
    place.sources.overrides.state_dir = Some(PathBuf::from("/state"));
    assert_eq!(place.config().state_dir, Path::new("/state"));
}

#[test]
fn a_configuration_made_by_hand_is_judged_by_the_same_rules() {
    let model = ModelReference::Hub("a/b".to_owned());
    let mut config = Config::with_defaults(model, "/state");
    assert_eq!(config.problems(), []);
    config.port = 0;
    config.model = ModelReference::Directory(PathBuf::from("/no/such/directory"));
    config.lifecycle.restart_backoff = Duration::ZERO;
    let problems = config.problems();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    let [backoff, model, port] = ["lifecycle.restart_backoff", "model", "port"];
    assert_eq!(keys, [backoff, model, port]);
    config.extra_args = vec!["--port".to_owned(), "1".to_owned()];
    let problems = config.problems();
    assert!(problems[0].to_string().contains("set `port` instead"), "{problems:#?}");
}
