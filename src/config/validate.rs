//! The rules that a configuration must keep, whoever made it.

use std::net::IpAddr;
use std::path::Path;

use vllm_supervisor_actors::domain::cause::Code;

use super::model_reference::ModelReferenceError;
use super::options::OPTIONS;
use super::problem::{Problem, SECTION};
use super::resolve::of_fault;
use super::telltale::{is_named_like_a_secret, looks_like_a_secret, where_a_secret_belongs};
use super::{
    Config, ExitPolicy, LifecycleMode, ModelReference, Network, OFFLINE, Secrets, reserved,
};

/// Everything wrong with a configuration, in no particular order.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let model = match &config.model {
        // It was named for a server that is not ours.
        ModelReference::Listed(name) if config.lifecycle.mode == LifecycleMode::Managed => {
            ModelReference::parse_here(name).err()
        }
        model => model.check().err(),
    };
    let model = model.map(|error| invalid_model(error).with_value(config.model.to_string()));
    let mut problems: Vec<Problem> = model.into_iter().collect();
    if config.lifecycle.mode == LifecycleMode::Managed {
        problems.extend(exposed_host(config.host, &config.secrets));
    }
    if config.port == 0 {
        let help = "use a port from 1 to 65535; vLLM cannot be found at one the kernel picks";
        problems.push(Problem::of_setting("port", "not a usable port", help).with_value("0"));
    }
    if config.vllm_binary.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
        let help = "name the program that starts vLLM, or leave the key out";
        problems.push(Problem::of_setting("vllm_binary", "names no program", help));
    }
    problems.extend(config.vllm_binary.iter().flatten().find_map(|word| secret_word(word)));
    problems.extend(owner(config));
    if config.state_dir.as_os_str().is_empty() {
        let message = "nobody names a state directory, and there is no home directory for one";
        let help = "give `--state-dir` (in a program, `state_dir`), or set XDG_STATE_HOME or HOME";
        problems.push(Problem::new("--state-dir", message, help));
    }
    problems.extend(arguments(&config.extra_args));
    let judge = |(name, value): (&String, &String)| variable(name, value, config.host);
    problems.extend(config.env.iter().filter_map(judge));
    problems.extend(contradictions(config));
    problems.extend(library(config.gpu.library.as_deref()));
    problems.extend(OPTIONS.iter().filter_map(|entry| {
        let fault = (entry.judge)(config)?;
        Some(of_fault(entry, fault, &format!("{SECTION}.{}", entry.key)))
    }));
    problems
}

/// The problem of a model that names none.
pub(crate) fn invalid_model(error: ModelReferenceError) -> Problem {
    Problem::of_setting("model", error.to_string(), error.help()).with_code(Code::InvalidModelId)
}

/// What cannot be had of a vLLM that somebody else owns, and what only of such a one.
fn owner(config: &Config) -> Vec<Problem> {
    let lifecycle = &config.lifecycle;
    let mode = lifecycle.mode.as_str();
    let mut problems = Vec::new();
    if lifecycle.mode != LifecycleMode::Managed && lifecycle.stop_on_exit == ExitPolicy::Stop {
        let message = format!("in mode `{mode}` vLLM is not ours to stop");
        let help = "remove it, or set `lifecycle.mode: managed`";
        problems
            .push(Problem::of_setting("lifecycle.stop_on_exit", message, help).with_value("true"));
    }
    let Some(unit) = &lifecycle.monitored_unit else { return problems };
    let fault = if lifecycle.mode != LifecycleMode::Monitored {
        let message = format!("means nothing in mode `{mode}`");
        Some((message, "set `lifecycle.mode: monitored`, or remove it".to_owned()))
    } else if !cfg!(feature = "systemd") {
        let help = "remove it: checks of health alone decide then";
        Some(("this build cannot ask systemd".to_owned(), help.to_owned()))
    } else {
        unit_fault(unit)
    };
    problems.extend(fault.map(|(message, help)| {
        Problem::of_setting("lifecycle.monitored_unit", message, help).with_value(unit)
    }));
    problems
}

/// systemd 257, `src/basic/unit-name.c`, `unit_name_is_valid`.
fn unit_fault(unit: &str) -> Option<(String, String)> {
    let may_be = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let Some(name) = unit.strip_suffix(".service") else {
        let message = "not the whole name of a service".to_owned();
        return Some((message, format!("write `{}.service`", unit.trim_end_matches('.'))));
    };
    let is_name = !name.is_empty() && name.chars().all(may_be) && unit.len() < 256;
    if is_name && !name.ends_with('@') {
        return None;
    }
    let help = "use a name that `systemctl list-units --all` shows, such as `vllm.service`";
    Some(("not the name of a unit".to_owned(), help.to_owned()))
}

fn exposed_host(host: IpAddr, secrets: &Secrets) -> Option<Problem> {
    let is_safe =
        host.is_loopback() || secrets.vllm_api_key.as_ref().is_some_and(|key| !key.is_blank());
    (!is_safe).then(|| {
        let message = "others could reach vLLM there, and it would not ask for a key";
        let help = "set VLLM_API_KEY in the environment, or use a loopback address (127.0.0.1)";
        Problem::of_setting("host", message, help).with_value(host.to_string())
    })
}

/// A secret among the words that start vLLM, such as `env VLLM_API_KEY=… vllm`.
fn secret_word(word: &str) -> Option<Problem> {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    (is_named_like_a_secret(name) || looks_like_a_secret(word)).then(|| {
        let message = "a secret does not belong in a command, where every user sees it";
        Problem::of_setting("vllm_binary", message, where_a_secret_belongs(name))
    })
}

/// What speaks against these arguments, in the words of a program.
pub(crate) fn problems_of_arguments(words: &[String]) -> Vec<Problem> {
    arguments(words).map(Problem::in_code).collect()
}

fn arguments(arguments: &[String]) -> impl Iterator<Item = Problem> {
    arguments.iter().enumerate().filter_map(|(index, argument)| {
        let setting = format!("extra_args[{index}]");
        if looks_like_a_secret(argument) {
            let message = "a secret does not belong in the arguments, where every user sees it";
            return Some(Problem::of_setting(&setting, message, where_a_secret_belongs("hf")));
        }
        if argument.contains('\0') {
            let help = "remove the NUL character";
            return Some(Problem::of_setting(&setting, "no argument can contain NUL", help));
        }
        if let Some((flag, value)) = two_words(argument) {
            let message = format!("one word is expected here, and this is `{flag}` with its value");
            let help = format!("write two: \"{flag}\", \"{value}\"");
            return Some(Problem::of_setting(&setting, message, help).with_value(argument));
        }
        let (flag, rule) = reserved::flag(argument, arguments.get(index + 1))?;
        let message = format!("`{flag}` {}", rule.fault);
        // Its value could be a secret.
        let found = argument.split('=').next().unwrap_or_default();
        Some(Problem::of_setting(&setting, message, rule.help).with_value(found))
    })
}

/// A flag and what stands behind it in the same word, as in a shell.
fn two_words(argument: &str) -> Option<(&str, &str)> {
    let (flag, value) = argument.split_once(char::is_whitespace)?;
    let value = value.trim();
    let is_flag = flag.starts_with("--") && !flag.contains(['=', '{']);
    (is_flag && !value.is_empty()).then_some((flag, value))
}

fn variable(name: &str, value: &str, host: IpAddr) -> Option<Problem> {
    let setting = format!("env.{name}");
    if is_named_like_a_secret(name) || looks_like_a_secret(value) {
        let help = where_a_secret_belongs(name);
        return Some(Problem::of_setting(&setting, "a secret does not belong in the file", help));
    }
    if let Some((message, help)) = reserved::variable(name, value, host) {
        return Some(Problem::of_setting(&setting, message, help));
    }
    let has_scheme = ["http://", "https://"].iter().any(|scheme| value.starts_with(scheme));
    if name == "HF_ENDPOINT" && !value.is_empty() && !has_scheme {
        let help = format!("write `https://{value}`");
        return Some(Problem::of_setting(&setting, "not an address", help).with_value(value));
    }
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        let message = "not a possible environment variable";
        let help = "a name is not empty and has no `=`; neither part has NUL";
        return Some(Problem::of_setting(&setting, message, help));
    }
    None
}

/// Variables that say otherwise than the network's setting.
fn contradictions(config: &Config) -> impl Iterator<Item = Problem> {
    let is_on =
        |value: &str| ["0", "off", "no", "false"].contains(&value.trim().to_lowercase().as_str());
    let airgapped = config.network == Network::Airgapped;
    OFFLINE.into_iter().filter_map(move |name| {
        let value = config.env.get(name).filter(|value| airgapped && is_on(value))?;
        let message = "says otherwise than `network: airgapped`";
        let problem = Problem::of_setting(&format!("env.{name}"), message, "remove one of the two");
        Some(problem.with_value(value))
    })
}

fn library(path: Option<&Path>) -> Option<Problem> {
    let path = path.filter(|path| !path.is_absolute())?;
    let help = "use an absolute path, such as /usr/lib/wsl/lib/libnvidia-ml.so.1";
    let problem = Problem::of_setting("gpu.library", "not an absolute path", help);
    Some(problem.with_value(path.display().to_string()))
}
