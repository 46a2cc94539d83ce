//! From a configuration to the command line that starts vLLM.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use vllm_supervisor_actors::adapters::launcher::{Foresee, Foreseen, LaunchRecipe};
use vllm_supervisor_actors::adapters::preflight::Preflight;
use vllm_supervisor_actors::domain::cause::{Cause, Code};
use vllm_supervisor_actors::domain::gpu::Devices;
use vllm_supervisor_actors::domain::preflight::{Assessment, Finding, Subject};
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::domain::target::{Arguments, Target};
use vllm_supervisor_actors::ports::GpuSource;

use crate::config::{Argument, Config, Network, OFFLINE, Secret};

mod devices;
mod hidden;
mod inherited;
mod preflight;
mod program;
mod switching;

pub(crate) use devices::devices;
use devices::fills_its_share;
pub(crate) use switching::arguments_of_a_switch;

/// The module that serves, for a Python that has vLLM but no `vllm` command
/// (vLLM 0.8 to 0.32, `entrypoints/openai/api_server.py`).
const MODULE: &str = "vllm.entrypoints.openai.api_server";

/// The recipe for this configuration. Launches carry markers that begin with `marker_prefix`.
pub(crate) fn recipe(config: &Config, marker_prefix: String) -> Result<LaunchRecipe, Cause> {
    let vllm = find_vllm(config)?;
    let configured = Target {
        model: ModelId::new(config.model.to_string())
            .map_err(|error| Cause::new(Code::InvalidModelId, error.to_string()))?,
        arguments: arguments(config.extra_args.clone()),
    };
    Ok(LaunchRecipe {
        before_model: before_model(vllm.clone()),
        after_model: after_model(config),
        address: SocketAddr::new(config.host, config.port),
        environment: environment(config),
        secrets: secrets(config),
        inherited_secrets: hidden::secrets(config, env::vars_os()),
        withheld: inherited::withheld(
            env::vars_os().map(|(name, _)| name),
            config.secrets.hf_token.as_ref(),
        ),
        path: inherited::path(vllm.first(), env::var_os("PATH")),
        scratch: inherited::places(env::var_os("TMPDIR"), env::var_os("XDG_RUNTIME_DIR")),
        kernels: inherited::kernels(|name| env::var_os(name)),
        configured,
        foresee: foresee(config, vllm.first().cloned()),
        launch: config.lifecycle.launch,
        lessons: config.cache_dir.as_ref().map(|directory| directory.join("warm")),
        marker_prefix,
        on_exit: config.lifecycle.stop_on_exit,
    })
}

/// What is known of a launch before it, without asking anybody, in milliseconds.
#[cfg(feature = "cli")]
pub(crate) fn quick_preflight(config: &Config) -> Vec<Finding> {
    preflight_of(config, Preflight::look_at_files)
}

/// The same, with what the Hub says where it decides, and the GPUs' driver.
pub(crate) fn preflight(
    config: &Config,
    gpus: impl FnOnce() -> Arc<dyn GpuSource>,
) -> Vec<Finding> {
    let memory = preflight::memory(config);
    preflight_of(config, |preflight, model| {
        let mut findings = preflight.look(model);
        let seen = memory.and_then(|plan| preflight.look_at_memory(model, &plan, gpus));
        findings.extend(seen);
        findings
    })
}

fn preflight_of(
    config: &Config,
    look: impl FnOnce(&Preflight, &ModelId) -> Vec<Finding>,
) -> Vec<Finding> {
    let vllm = match find_vllm(config) {
        Ok(vllm) => vllm,
        Err(cause) => return vec![Finding::new(Subject::Vllm, Assessment::Fatal(cause))],
    };
    let preflight = preflight::preflight(config, vllm.first(), |name| env::var_os(name));
    // That it is no model's name is told of the configuration.
    let findings = ModelId::new(config.model.to_string())
        .map(|model| [look(&preflight, &model), preflight.look_at_host(&model)].concat());
    let found = Finding::new(Subject::Vllm, Assessment::Fine(vllm.join(" ")));
    [vec![found], findings.unwrap_or_default()].concat()
}

/// Tells what is known of a launch of this configuration with other arguments.
fn foresee(config: &Config, program: Option<String>) -> Foresee {
    let config = config.clone();
    Arc::new(move |arguments| {
        let config = Config { extra_args: arguments.words().to_vec(), ..config.clone() };
        let preflight = preflight::preflight(&config, program.as_ref(), |name| env::var_os(name));
        let fills = fills_its_share(&config);
        Foreseen { preflight, filled: if fills { devices(&config) } else { Devices::Unknown } }
    })
}

/// What these words tell vLLM.
pub(crate) fn arguments(words: Vec<String>) -> Arguments {
    let is_meant = |argument: &Argument<'_>| argument.may_be("--served-model-name");
    let served_name = value_of(&words, is_meant).map(str::to_owned);
    Arguments::new(words, served_name)
}

/// The value of a flag; of several the last one counts.
fn value_of(words: &[String], is_meant: impl Fn(&Argument<'_>) -> bool) -> Option<&str> {
    let value_at = |at: usize| {
        let argument = Argument::read(&words[at])?;
        argument.value(words.get(at + 1)).filter(|_| is_meant(&argument))
    };
    (0..words.len()).rev().find_map(value_at)
}

/// The program and its first words, as configured or as found on our PATH.
pub(crate) fn find_vllm(config: &Config) -> Result<Vec<String>, Cause> {
    find_vllm_on(&env::var_os("PATH").unwrap_or_default(), config)
}

fn find_vllm_on(path: &OsStr, config: &Config) -> Result<Vec<String>, Cause> {
    let directories: Vec<PathBuf> = env::split_paths(path).collect();
    if let Some(words) = &config.vllm_binary {
        return configured(words, &directories);
    }
    if let Some(vllm) = find_program("vllm", &directories) {
        return usable(&vllm, &format!("`{vllm}`")).map(|()| vec![vllm]);
    }
    let python = programs("python3", &directories)
        .find(|python| preflight::packages(Path::new(python)).is_some());
    match python {
        // `-P`: no module called so in the working directory is run instead (Python 3.11).
        Some(python) => Ok([&*python, "-P", "-m", MODULE].map(str::to_owned).into()),
        None => Err(Cause::new(
            Code::VllmNotFound,
            "there is no `vllm` on the PATH, and no `python3` that has it",
        )),
    }
}

fn configured(words: &[String], directories: &[PathBuf]) -> Result<Vec<String>, Cause> {
    let unusable = |what: String| Cause::new(Code::VllmNotFound, format!("vllm_binary {what}"));
    let Some((program, rest)) = words.split_first() else {
        return Err(unusable("names no program".to_owned()));
    };
    let found = if program.contains('/') {
        program.clone()
    } else {
        let missing = || unusable(format!("names `{program}`, and none such is on the PATH"));
        find_program(program, directories).ok_or_else(missing)?
    };
    usable(&found, &format!("vllm_binary names `{found}`, and that"))?;
    Ok([found].into_iter().chain(rest.iter().cloned()).collect())
}

/// Whether a program could be started; `named` begins the sentence that says why not.
fn usable(program: &str, named: &str) -> Result<(), Cause> {
    let Some(program::Fault { said, help }) = program::fault(Path::new(program)) else {
        return Ok(());
    };
    let cause = Cause::new(Code::VllmNotFound, format!("{named} {said}"));
    Err(help.into_iter().fold(cause, Cause::with_remedy))
}

fn before_model(vllm: Vec<String>) -> Vec<String> {
    let is_module = |pair: &[String]| pair[0] == "-m" && pair[1].starts_with("vllm.");
    let verb = if vllm.windows(2).any(is_module) { "--model" } else { "serve" };
    // As in the documentation of vLLM: `vllm serve`.
    let is_there = vllm.len() > 1 && vllm.last().is_some_and(|last| last == verb);
    vllm.into_iter().chain((!is_there).then(|| verb.to_owned())).collect()
}

fn after_model(config: &Config) -> Vec<String> {
    let gpu = &config.gpu;
    let flags = [
        ("--host", config.host.to_string()),
        ("--port", config.port.to_string()),
        ("--tensor-parallel-size", gpu.tensor_parallel_size.to_string()),
        ("--pipeline-parallel-size", gpu.pipeline_parallel_size.to_string()),
        ("--gpu-memory-utilization", gpu.memory_utilization.to_string()),
    ];
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// The variables that it gets on top of ours.
fn environment(config: &Config) -> Vec<(String, String)> {
    let offline = OFFLINE.iter().filter(|_| config.network == Network::Airgapped);
    let offline = offline.map(|name| ((*name).to_owned(), "1".to_owned()));
    let all: BTreeMap<String, String> = offline.chain(config.env.clone()).collect();
    all.into_iter().collect()
}

fn secrets(config: &Config) -> Vec<(String, Secret)> {
    let given =
        [("HF_TOKEN", &config.secrets.hf_token), ("VLLM_API_KEY", &config.secrets.vllm_api_key)];
    // A blank one is none, as it is for us who would have to send it.
    let given = given.into_iter().filter_map(|(name, secret)| Some((name, secret.clone()?)));
    given
        .filter(|(_, secret)| !secret.is_blank())
        .map(|(name, secret)| (name.to_owned(), secret))
        .collect()
}

fn find_program(name: &str, directories: &[PathBuf]) -> Option<String> {
    programs(name, directories).next()
}

fn programs(name: &str, directories: &[PathBuf]) -> impl Iterator<Item = String> {
    let places = directories.iter().map(move |directory| directory.join(name));
    let executable = places.filter(|place| is_executable(place));
    executable.filter_map(|place| place.into_os_string().into_string().ok())
}

fn is_executable(path: &Path) -> bool {
    let may_be = accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    may_be && fs::metadata(path).is_ok_and(|data| data.is_file())
}

#[cfg(test)]
mod tests;
