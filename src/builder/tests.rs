//! What a builder needs of its process, and what not.

use std::collections::BTreeMap;

use super::*;
use crate::config::{ModelReference, Secret};

/// A process with this environment alone.
fn process(environment: &[(&str, &str)]) -> Sources {
    let variable = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    Sources {
        environment: environment.iter().map(variable).collect::<BTreeMap<_, _>>(),
        working_directory: "/".into(),
        ..Sources::from_value(serde_json::Value::Null)
    }
}

fn keys(outcome: Result<Config, ConfigError>) -> Vec<String> {
    let problems = outcome.expect_err("there is a problem").problems;
    problems.into_iter().map(|problem| problem.key).collect()
}

#[test]
fn a_program_that_names_the_state_directory_needs_no_home() {
    const STATE: &str = "/var/lib/service";
    let ways: [fn(SupervisorBuilder) -> SupervisorBuilder; 3] = [
        |builder| builder.state_dir(STATE),
        |builder| builder.configure(|config| config.state_dir = STATE.into()),
        |builder| {
            let other = ModelReference::Hub("other/model".to_owned());
            builder.config(Config::with_defaults(other, STATE))
        },
    ];
    for environment in [&[][..], &[("HOME", "")], &[("XDG_STATE_HOME", "relative")]] {
        for way in ways {
            let builder = way(Supervisor::builder().model("org/model"));
            let config = builder.resolve(&process(environment)).unwrap();
            assert_eq!(config.state_dir, PathBuf::from(STATE));
            assert_eq!(config.model.to_string(), "org/model");
        }
    }
}

#[test]
fn without_home_nobody_guesses_where_state_is_kept() {
    let builder = Supervisor::builder().model("org/model");
    assert_eq!(keys(builder.resolve(&process(&[]))), ["--state-dir"]);
    let empty = Supervisor::builder().model("org/model").state_dir("");
    assert_eq!(keys(empty.resolve(&process(&[("HOME", "/home/me")]))), ["--state-dir"]);
}

#[test]
fn a_secret_that_the_program_gives_is_not_looked_for() {
    let process = process(&[("HOME", "/home/me"), ("HF_TOKEN_FILE", "/nowhere/token")]);
    let builder = Supervisor::builder().model("org/model");
    assert_eq!(keys(builder.resolve(&process)), ["HF_TOKEN_FILE"]);
    let builder = Supervisor::builder()
        .model("org/model")
        .configure(|config| config.secrets.hf_token = Some(Secret::new("abc")));
    builder.resolve(&process).unwrap();
    let given = Config::with_defaults(ModelReference::Hub("a/b".to_owned()), "/var/lib/service");
    Supervisor::builder().config(given).model("org/model").resolve(&process).unwrap();
}
