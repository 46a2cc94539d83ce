//! A real vLLM for the CPU, and tiny models for it: found, or installed by the scripts of
//! `tests/vllm`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The script's exit status for "cannot be installed here" (`tests/vllm/install.sh`).
const CANNOT: i32 = 3;

/// A real vLLM that can be run.
#[derive(Clone, Debug)]
pub struct RealVllm {
    /// Its `vllm` command.
    pub command: PathBuf,
    /// The directory of a model that it loads in no time.
    pub tiny_model: PathBuf,
    /// The same model under another name, to switch to.
    pub other_model: PathBuf,
}

/// Why there is no real vLLM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl RealVllm {
    /// The one that is installed in the target directory.
    ///
    /// # Errors
    ///
    /// Why there is none, in one line.
    pub fn installed() -> Result<Self, Unavailable> {
        let command = directory().join("venv/bin/vllm");
        if !command.is_file() {
            let script = script("install.sh");
            let said = format!(
                "no real vLLM at {}; `{} {}` installs one",
                command.display(),
                script.display(),
                directory().join("venv").display()
            );
            return Err(Unavailable(said));
        }
        Self::with_models(command)
    }

    /// The one at `command`, with the tiny models made for it.
    ///
    /// # Errors
    ///
    /// Why the models cannot be made.
    pub fn with_models(command: PathBuf) -> Result<Self, Unavailable> {
        let models = directory().join("models");
        let (tiny_model, other_model) = (models.join("tiny"), models.join("other"));
        for model in [&tiny_model, &other_model] {
            let mut script_run = python();
            run(script_run.arg(script("tiny_model.py")).arg(model))?;
        }
        Ok(Self { command, tiny_model, other_model })
    }

    /// Installs one in the target directory, or finds it there. The script's progress goes to
    /// stderr.
    ///
    /// # Errors
    ///
    /// Why it cannot be installed here.
    pub fn install() -> Result<Self, Unavailable> {
        run(program("bash").arg(script("install.sh")).arg(directory().join("venv")))?;
        Self::installed()
    }

    /// The arguments that keep it small and quick: no compilation, a short context.
    pub fn quick_arguments() -> [&'static str; 3] {
        ["--enforce-eager", "--max-model-len", "512"]
    }

    /// The variables that keep it off the network, and its KV cache at one GiB.
    pub fn quick_environment() -> [(&'static str, &'static str); 2] {
        [("HF_HUB_OFFLINE", "1"), ("VLLM_CPU_KVCACHE_SPACE", "1")]
    }
}

fn run(command: &mut Command) -> Result<(), Unavailable> {
    // Its one line on stdout is for scripts.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(CANNOT)) => Err(Unavailable("vLLM cannot be installed here, as said above".into())),
        Ok(code) => Err(Unavailable(format!("{command:?} failed with {code:?}"))),
        Err(error) => Err(Unavailable(format!("{command:?} cannot be run: {error}"))),
    }
}

#[expect(clippy::disallowed_methods, reason = "the scripts are no part of what is supervised")]
fn program(name: &str) -> Command {
    Command::new(name)
}

fn python() -> Command {
    program("python3")
}

/// The workspace is where this package's directory is.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

fn script(name: &str) -> PathBuf {
    workspace().join("tests/vllm").join(name)
}

/// Beside what cargo builds, so that `cargo clean` removes it.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target")).join("vllm")
}
