//! What is found in directories made for the purpose, and the command lines that come of it.

use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;
use vllm_supervisor_actors::domain::cause::RetryClass;

use super::*;
use crate::config::ModelReference;

/// A directory that stands for the machine.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, place: &str) -> PathBuf {
        self.0.path().join(place)
    }

    fn text(&self, place: &str) -> String {
        self.path(place).display().to_string()
    }

    fn file(self, place: &str, mode: u32) -> Self {
        let path = self.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn program(self, place: &str) -> Self {
        self.file(place, 0o755)
    }

    fn link(self, place: &str, to: &str) -> Self {
        fs::create_dir_all(self.path(place).parent().unwrap()).unwrap();
        symlink(self.path(to), self.path(place)).unwrap();
        self
    }

    /// Looks for vLLM with these directories as the PATH.
    fn find(&self, config: &Config, directories: &[&str]) -> Result<Vec<String>, Cause> {
        let path = env::join_paths(directories.iter().map(|place| self.path(place))).unwrap();
        find_vllm_on(&path, config)
    }

    /// The words that run the server as a module of this Python.
    fn module(&self, python: &str) -> Vec<String> {
        [&*self.text(python), "-P", "-m", MODULE].map(str::to_owned).into()
    }
}

fn config() -> Config {
    Config::with_defaults(ModelReference::Hub("org/model".to_owned()), "/var/lib/vllmd")
}

fn with_binary(words: &[&str]) -> Config {
    Config { vllm_binary: Some(owned(words)), ..config() }
}

fn with_arguments(words: &[&str]) -> Config {
    Config { extra_args: owned(words), ..config() }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn the_first_vllm_on_the_path_is_taken() {
    let machine = Machine::new().program("second/vllm").program("third/vllm");
    let found = machine.find(&config(), &["first", "second", "third"]);
    assert_eq!(found, Ok(vec![machine.text("second/vllm")]));
}

#[test]
fn a_vllm_that_cannot_be_executed_is_passed_over() {
    let machine = Machine::new().file("first/vllm", 0o644).program("second/vllm");
    let found = machine.find(&config(), &["first", "second"]);
    assert_eq!(found, Ok(vec![machine.text("second/vllm")]));
}

#[test]
fn a_directory_named_vllm_is_passed_over() {
    let machine = Machine::new().program("first/vllm/setup.py").program("second/vllm");
    let found = machine.find(&config(), &["first", "second"]);
    assert_eq!(found, Ok(vec![machine.text("second/vllm")]));
}

#[test]
fn a_python_that_has_vllm_runs_it_as_a_module() {
    for packages in ["lib/python3.11/site-packages", "lib/python3/dist-packages"] {
        let package = format!("usr/{packages}/vllm/__init__.py");
        let machine = Machine::new().program("usr/bin/python3").file(&package, 0o644);
        assert_eq!(machine.find(&config(), &["usr/bin"]), Ok(machine.module("usr/bin/python3")));
    }
}

#[test]
fn a_link_to_a_python_is_followed_to_its_packages() {
    let machine = Machine::new()
        .program("usr/bin/python3.11")
        .file("usr/lib/python3.11/site-packages/vllm/__init__.py", 0o644)
        .link("home/bin/python3", "usr/bin/python3.11");
    assert_eq!(machine.find(&config(), &["home/bin"]), Ok(machine.module("home/bin/python3")));
}

#[test]
fn the_python_of_an_environment_is_judged_by_the_packages_of_the_environment() {
    let machine = Machine::new()
        .program("usr/bin/python3.11")
        .file("venv/lib/python3.11/site-packages/vllm/__init__.py", 0o644)
        .link("venv/bin/python3", "usr/bin/python3.11");
    assert_eq!(machine.find(&config(), &["venv/bin"]), Ok(machine.module("venv/bin/python3")));
}

#[test]
fn a_python_without_vllm_does_not_hide_one_that_has_it() {
    let machine = Machine::new()
        .program("first/bin/python3")
        .program("second/bin/python3")
        .file("second/lib/python3.11/site-packages/vllm/__init__.py", 0o644);
    let found = machine.find(&config(), &["first/bin", "second/bin"]);
    assert_eq!(found, Ok(machine.module("second/bin/python3")));
}

#[test]
fn a_vllm_anywhere_on_the_path_wins_over_a_python() {
    let machine = Machine::new()
        .program("usr/bin/python3")
        .file("usr/lib/python3.11/site-packages/vllm/__init__.py", 0o644)
        .program("opt/bin/vllm");
    let found = machine.find(&config(), &["usr/bin", "opt/bin"]);
    assert_eq!(found, Ok(vec![machine.text("opt/bin/vllm")]));
}

#[test]
fn without_either_vllm_is_not_found_and_that_is_final() {
    let machine = Machine::new().program("usr/bin/python3");
    for directories in [&["usr/bin"][..], &[]] {
        let cause = machine.find(&config(), directories).unwrap_err();
        assert_eq!(cause.code.to_string(), "VLM-007");
        assert_eq!(cause.retry, RetryClass::Permanent);
    }
}

#[test]
fn a_configured_path_is_taken_with_the_words_after_it() {
    let machine = Machine::new().program("opt/vllm").program("usr/bin/vllm");
    let program = machine.text("opt/vllm");
    let config = with_binary(&[&program, "--flag"]);
    assert_eq!(machine.find(&config, &["usr/bin"]), Ok(vec![program, "--flag".to_owned()]));
}

#[test]
fn a_configured_name_is_looked_up_on_the_path() {
    let machine = Machine::new().program("usr/bin/uv");
    let found = machine.find(&with_binary(&["uv", "run", "vllm"]), &["usr/bin"]);
    let expected = [machine.text("usr/bin/uv"), "run".to_owned(), "vllm".to_owned()];
    assert_eq!(found, Ok(expected.to_vec()));
}

#[test]
fn a_configured_program_that_is_missing_is_named_and_nothing_else_is_tried() {
    let machine = Machine::new().program("usr/bin/vllm").file("opt/vllm", 0o644);
    for program in ["no-such-vllm", &machine.text("nowhere/vllm"), &machine.text("opt/vllm")] {
        let cause = machine.find(&with_binary(&[program]), &["usr/bin"]).unwrap_err();
        assert_eq!(cause.code, Code::VllmNotFound);
        assert!(cause.summary.contains(&format!("`{program}`")), "{cause}");
    }
}

#[test]
fn a_configured_command_line_without_words_is_not_found() {
    assert_eq!(
        find_vllm_on(OsStr::new(""), &with_binary(&[])).unwrap_err().code,
        Code::VllmNotFound
    );
}

/// The command line for a vLLM that was found as `vllm`.
fn argv(vllm: &[&str], config: &Config) -> String {
    let before = before_model(owned(vllm));
    let words = before.into_iter().chain(["org/model".to_owned()]).chain(after_model(config));
    let besides = arguments(config.extra_args.clone());
    words.chain(besides.words().iter().cloned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_command_serves_the_model_with_everything_that_is_configured() {
    assert_eq!(
        argv(&["/bin/vllm"], &config()),
        "/bin/vllm serve org/model --host 127.0.0.1 --port 8000 --tensor-parallel-size 1 \
         --pipeline-parallel-size 1 --gpu-memory-utilization 0.9"
    );
}

#[test]
fn the_module_takes_the_model_as_a_flag() {
    assert_eq!(
        argv(&["/bin/python3", "-m", MODULE], &config()),
        "/bin/python3 -m vllm.entrypoints.openai.api_server --model org/model --host 127.0.0.1 \
         --port 8000 --tensor-parallel-size 1 --pipeline-parallel-size 1 \
         --gpu-memory-utilization 0.9"
    );
}

#[test]
fn a_command_line_with_the_word_that_serves_has_it_once() {
    for words in [&["/bin/vllm", "serve"][..], &["uv", "run", "vllm", "serve"]] {
        let line = argv(words, &config());
        assert!(line.starts_with(&format!("{} org/model --host", words.join(" "))), "{line}");
    }
    assert!(argv(&["serve"], &config()).starts_with("serve serve org/model"));
}

#[test]
fn a_vllm_that_has_lost_its_python_is_told_so_wherever_it_was_found() {
    let machine = Machine::new().program("bin/vllm");
    fs::write(machine.path("bin/vllm"), "#!/opt/gone/bin/python3\n").unwrap();
    for config in [config(), with_binary(&[&machine.text("bin/vllm")]), with_binary(&["vllm"])] {
        let cause = machine.find(&config, &["bin"]).unwrap_err();
        assert_eq!(cause.code, Code::VllmNotFound);
        assert!(cause.summary.contains("is a script for /opt/gone/bin/python3"), "{cause}");
        assert!(cause.remedy().contains("install vLLM anew"), "{cause}");
    }
}

#[test]
fn a_vllm_in_a_directory_named_like_the_module_still_serves() {
    assert!(argv(&["/srv/api_server/vllm"], &config()).starts_with("/srv/api_server/vllm serve "));
}

#[test]
fn extra_arguments_come_last_and_as_they_are() {
    let words =
        argv(&["vllm"], &with_arguments(&["--max-model-len", "4096", "--chat-template=a b"]));
    assert!(words.ends_with(" 0.9 --max-model-len 4096 --chat-template=a b"), "{words}");
}

#[test]
fn the_model_is_served_under_its_own_name_unless_told_otherwise() {
    assert_eq!(served_name(&config()), None);
    assert_eq!(served_name(&with_arguments(&["--dtype=half", "--seed", "1"])), None);
}

#[test]
fn the_served_name_is_read_in_every_spelling() {
    for words in [
        &["--served-model-name", "mine"][..],
        &["--served_model_name", "mine"],
        &["--served-model-name=mine"],
        &["--served_model_name=mine"],
        &["--dtype=half", "--served-model-name", "mine", "also-mine"],
        &["--served", "mine"],
        &["--served-model-name=other", "--served-model-name", "mine"],
    ] {
        assert_eq!(served_name(&with_arguments(words)).as_deref(), Some("mine"), "{words:?}");
    }
}

#[test]
fn a_flag_for_the_served_name_without_a_name_gives_none() {
    assert_eq!(served_name(&with_arguments(&["--served-model-name"])), None);
}

#[test]
fn secrets_reach_the_environment_but_neither_the_arguments_nor_a_debug_output() {
    let machine = Machine::new().program("opt/vllm");
    let mut config = with_binary(&[&machine.text("opt/vllm")]);
    config.secrets.hf_token = Some(Secret::new("hf_hidden"));
    config.secrets.vllm_api_key = Some(Secret::new("key_hidden"));
    config.env.insert("PLAIN".to_owned(), "shown_to_vllm_hidden".to_owned());
    let recipe = recipe(&config, "marker".to_owned()).unwrap();
    let expected = [("HF_TOKEN", "hf_hidden"), ("VLLM_API_KEY", "key_hidden")];
    let expected = expected.map(|(name, text)| (name.to_owned(), Secret::new(text)));
    assert_eq!(recipe.secrets, expected);
    let words = recipe.before_model.iter().chain(&recipe.after_model);
    let variables = recipe.environment.iter().map(|(_, value)| value);
    assert!(!words.clone().any(|word| word.contains("hidden")));
    assert!(!variables.clone().any(|value| value.starts_with("hf_") || value.starts_with("key_")));
    assert!(!format!("{recipe:?}").contains("hidden"));
}

#[test]
fn secrets_that_are_not_set_are_not_passed_on() {
    let mut config = config();
    assert_eq!(secrets(&config), Vec::new());
    // What the probe would not send, vLLM must not ask for.
    config.secrets.vllm_api_key = Some(Secret::new(" \t"));
    assert_eq!(secrets(&config), Vec::new());
}

fn served_name(config: &Config) -> Option<String> {
    arguments(config.extra_args.clone()).served_name().map(str::to_owned)
}
