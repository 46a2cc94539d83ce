//! What is to be looked at before a launch, by what is asked of vLLM and where it is installed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use vllm_supervisor_actors::adapters::preflight::{Place, Preflight};
use vllm_supervisor_actors::domain::preflight::{Network, Part, Plan};

use super::value_of;
use crate::config::{self, Argument, Config, OFFLINE};

mod hub;
mod lora;
mod memory;

pub(super) use memory::memory;

/// What is to be looked at for vLLM of this configuration, whose program is this; `inherited` tells
/// variables of our environment.
pub(super) fn preflight(
    config: &Config,
    program: Option<&String>,
    inherited: impl Fn(&str) -> Option<OsString>,
) -> Preflight {
    let variable = |name: &str| {
        let own = config.env.get(name).cloned();
        own.or_else(|| inherited(name)?.into_string().ok()).filter(|it| !it.is_empty())
    };
    Preflight {
        plan: plan(config, &variable),
        packages: program
            .filter(|_| ELSEWHERE.iter().all(|name| variable(name).is_none()))
            .and_then(|program| own_packages(Path::new(program))),
        hub_cache: hub_cache(config, &variable),
        network: network(config, &variable),
        hub: hub::access(config, &variable),
        revision: given(config, "--revision").map(str::to_owned),
        lora: lora::plan(config),
        home: variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
        state: place("journal and logs", config.state_dir.clone(), 64 << 20),
        compiled: compiled(&variable).and_then(|it| place("what vLLM compiles", it, 1 << 30)),
        path: path(config, program, inherited("PATH")),
        compiler: variable("CC"),
    }
}

/// Where vLLM looks for programs: what is set for it counts alone.
fn path(config: &Config, program: Option<&String>, inherited: Option<OsString>) -> Vec<PathBuf> {
    let own = config.env.get("PATH").map(OsString::from);
    let path = own.or_else(|| super::inherited::path(program, inherited));
    path.map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// Where much is written, with how much is soon needed.
fn place(purpose: &'static str, path: PathBuf, enough: u64) -> Option<Place> {
    path.is_absolute().then_some(Place { purpose, path, enough })
}

/// vLLM 0.32, `envs.py`, `VLLM_CACHE_ROOT`.
fn compiled(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    path("VLLM_CACHE_ROOT").or_else(|| {
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        Some(cache?.join("vllm"))
    })
}

fn given<'a>(config: &'a Config, flag: &str) -> Option<&'a str> {
    value_of(&config.extra_args, |argument: &Argument<'_>| argument.may_be(flag))
}

fn has(config: &Config, flag: &str) -> bool {
    let arguments = config.extra_args.iter().filter_map(|word| Argument::read(word));
    arguments.into_iter().any(|argument| argument.may_be(flag))
}

fn plan(config: &Config, variable: &impl Fn(&str) -> Option<String>) -> Plan {
    let flags: [(&[&str], Part); 3] = [
        (&["--load-format"], Part::Weights),
        (&["--tokenizer", "--skip-tokenizer-init", "--tokenizer-mode"], Part::Tokenizer),
        (
            &[
                "--hf-config-path",
                "--hf-overrides",
                "--config-format",
                "--model-impl",
                "--rope-scaling",
                "--rope-theta",
                "--runner",
                "--convert",
                "--task",
            ],
            Part::Config,
        ),
    ];
    let elsewhere =
        flags.map(|(flags, part)| flags.iter().any(|flag| has(config, flag)).then_some(part));
    Plan {
        tensor_parallel: config.gpu.tensor_parallel_size.get().into(),
        context: given(config, "--max-model-len").and_then(tokens),
        may_exceed: variable("VLLM_ALLOW_LONG_MAX_MODEL_LEN").is_some_and(|it| it.trim() != "0"),
        quantisation: given(config, "--quantization")
            .or_else(|| given(config, "-q"))
            .map(str::to_owned),
        elsewhere: elsewhere.into_iter().flatten().collect(),
        trusts_code: has(config, "--trust-remote-code"),
        workers: u64::from(config.gpu.tensor_parallel_size.get())
            * u64::from(config.gpu.pipeline_parallel_size.get()),
        eager: has(config, "--enforce-eager"),
    }
}

/// A number of tokens as vLLM reads it (0.32, `engine/arg_utils.py`, `human_readable_int`): `8192`,
/// `8k` of thousands, `8K` of 1024s. What it works out by itself is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of tokens, above 0"
)]
fn tokens(text: &str) -> Option<u64> {
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'k') => (&text[..at], 1e3),
        (at, 'K') => (&text[..at], 1024.0),
        (at, 'm') => (&text[..at], 1e6),
        (at, 'M') => (&text[..at], 1024.0 * 1024.0),
        _ => return text.parse().ok(),
    };
    let number: f64 = number.parse().ok().filter(|it: &f64| *it > 0.0 && *it < 1e9)?;
    Some((number * factor) as u64)
}

/// As `huggingface_hub` finds it (1.0, `constants.py`); `None` where vLLM asks another hub, or keeps a model
/// in two places (`--download-dir` has its weights alone), or where a path is to be made out first (`~`, `$`).
fn hub_cache(config: &Config, variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let is_other = variable("VLLM_USE_MODELSCOPE").is_some_and(|it| is_true(&it));
    if is_other || has(config, "--download-dir") {
        return None;
    }
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = || {
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        path("HF_HOME").or_else(|| Some(cache?.join("huggingface")))
    };
    path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(home()?.join("hub")))
        .filter(|cache| cache.is_absolute() && !cache.to_string_lossy().contains('$'))
}

fn network(config: &Config, variable: &impl Fn(&str) -> Option<String>) -> Network {
    // The first that is set counts (huggingface_hub 1.0, `constants.py`, `HF_HUB_OFFLINE`).
    let given = OFFLINE.iter().find_map(|name| variable(name));
    if config.network == config::Network::Airgapped || given.is_some_and(|it| is_true(&it)) {
        Network::Offline
    } else {
        Network::Online
    }
}

/// `huggingface_hub` 1.0, `constants.py`, `ENV_VARS_TRUE_VALUES`.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

/// Variables with which it is another vLLM, or another model, that is loaded.
const ELSEWHERE: [&str; 3] = ["PYTHONPATH", "PYTHONHOME", "VLLM_MODEL_REDIRECT_PATH"];

/// The packages that a Python, or a script for one, surely takes: a program of another kind, such as
/// `docker`, may find others anywhere.
fn own_packages(program: &Path) -> Option<PathBuf> {
    let is_python = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
    };
    let python = if is_python(program) {
        program.to_owned()
    } else {
        super::program::interpreter(program).filter(|it| is_python(it))?
    };
    let mut all = packages_of(&python);
    let only = all.next()?;
    // Of those of several versions nobody knows which are meant.
    (all.next().is_none() && is_known(&only)).then_some(only)
}

/// Whether what is called vLLM there is laid out as vLLM is (0.8 to 0.32): of another nobody knows what it
/// wants.
fn is_known(packages: &Path) -> bool {
    packages.join("vllm/model_executor/models/registry.py").is_file()
}

/// The packages of the environment that this program is of, with vLLM among them. Asking Python would
/// import it, which takes seconds.
pub(super) fn packages(program: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(program).ok();
    // `vllm` is a script, wherever it was put.
    let interpreter = super::program::interpreter(program);
    let candidates = [Some(program.to_owned()), real, interpreter];
    candidates.into_iter().flatten().find_map(|program| packages_of(&program).next())
}

/// The same, beside the program itself.
fn packages_of(program: &Path) -> impl Iterator<Item = PathBuf> {
    let libraries = program.parent().and_then(Path::parent).map(|root| root.join("lib"));
    let versions = libraries.and_then(|it| fs::read_dir(it).ok()).into_iter().flatten().flatten();
    let places = versions.flat_map(|version| {
        ["site-packages", "dist-packages"].map(|packages| version.path().join(packages))
    });
    places.filter(|packages| packages.join("vllm/__init__.py").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelReference;

    fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Config {
        let mut config = Config::with_defaults(ModelReference::Hub("a/b".to_owned()), "/state");
        config.extra_args = arguments.iter().map(|&it| it.to_owned()).collect();
        config.env = variables.iter().map(|&(name, it)| (name.to_owned(), it.to_owned())).collect();
        config
    }

    fn of(arguments: &[&str], variables: &[(&str, &str)]) -> Preflight {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/a"));
        preflight(&config(arguments, variables), None, home)
    }

    #[test]
    fn a_context_is_read_as_vllm_reads_it() {
        for (text, tokens) in [
            ("8192", Some(8192)),
            ("8k", Some(8000)),
            ("8K", Some(8192)),
            ("1.5k", Some(1500)),
            ("1M", Some(1_048_576)),
            ("auto", None),
            ("-1", None),
        ] {
            assert_eq!(of(&["--max-model-len", text], &[]).plan.context, tokens, "{text}");
        }
        assert_eq!(of(&["--max_model_len=4096"], &[]).plan.context, Some(4096));
    }

    #[test]
    fn the_cache_is_looked_for_as_the_hub_does() {
        for (variables, cache) in [
            (&[][..], "/home/a/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/x")], "/hf/hub"),
            (&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/hf")], "/c"),
        ] {
            assert_eq!(of(&[], variables).hub_cache, Some(cache.into()), "{variables:?}");
        }
        assert_eq!(of(&[], &[("VLLM_USE_MODELSCOPE", "true")]).hub_cache, None);
        assert_eq!(of(&["--download-dir", "/d"], &[("HF_HUB_CACHE", "/c")]).hub_cache, None);
        assert_eq!(of(&[], &[("HF_HOME", "~/hf")]).hub_cache, None);
    }

    #[test]
    fn a_network_is_off_where_the_hub_takes_it_for_off() {
        for (name, value, network) in [
            ("HF_HUB_OFFLINE", "1", Network::Offline),
            ("TRANSFORMERS_OFFLINE", "yes", Network::Offline),
            ("HF_HUB_OFFLINE", "0", Network::Online),
            ("HF_HUB_OFFLINE", "", Network::Online),
        ] {
            assert_eq!(of(&[], &[(name, value)]).network, network, "{name}={value}");
        }
        let both = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert_eq!(of(&[], &both).network, Network::Online);
    }

    #[test]
    fn only_the_packages_that_a_python_surely_takes_are_looked_at() {
        let machine = tempfile::tempdir().unwrap();
        let path = |place: &str| machine.path().join(place);
        let write = |place: &str, text: &str| {
            fs::create_dir_all(path(place).parent().unwrap()).unwrap();
            fs::write(path(place), text).unwrap();
        };
        let install = |version: &str| {
            for module in ["__init__.py", "model_executor/models/registry.py"] {
                write(&format!("lib/{version}/site-packages/vllm/{module}"), "");
            }
        };
        let python = path("bin/python3").display().to_string();
        write("bin/python3", "\x7fELF");
        write("bin/vllm", &format!("#!{python}\n"));
        write("bin/docker", "\x7fELF");
        write("bin/wrapper", "#!/bin/sh\n");
        let look = |program: &str, variables: &[(&str, &str)]| {
            let program = path(program).display().to_string();
            preflight(&config(&[], variables), Some(&program), |_| None).packages
        };
        install("python3.12");
        let packages = Some(path("lib/python3.12/site-packages"));
        assert_eq!((look("bin/vllm", &[]), look("bin/python3", &[])), (packages.clone(), packages));
        assert_eq!((look("bin/docker", &[]), look("bin/wrapper", &[])), (None, None));
        for name in ELSEWHERE {
            assert_eq!(look("bin/vllm", &[(name, "/other")]), None, "{name}");
        }
        install("python3.13");
        assert_eq!(look("bin/vllm", &[]), None, "it may be either");
    }

    #[test]
    fn airgapped_there_is_no_network() {
        let mut config = config(&[], &[]);
        config.network = config::Network::Airgapped;
        assert_eq!(preflight(&config, None, |_| None).network, Network::Offline);
    }

    #[test]
    fn what_is_taken_from_elsewhere_is_not_looked_for_here() {
        let plan = |arguments: &[&str]| of(arguments, &[]).plan;
        assert_eq!(plan(&["--load-format", "dummy"]).elsewhere, [Part::Weights]);
        assert_eq!(plan(&["--tokenizer=x/y"]).elsewhere, [Part::Tokenizer]);
        assert_eq!(plan(&["--hf-overrides", "{}"]).elsewhere, [Part::Config]);
        assert!(plan(&["--trust-remote-code"]).trusts_code);
        assert_eq!(plan(&["-q", "awq"]).quantisation.as_deref(), Some("awq"));
        assert_eq!(plan(&[]), Plan { tensor_parallel: 1, workers: 1, ..Plan::default() });
        assert!(plan(&["--enforce-eager"]).eager);
    }
}
