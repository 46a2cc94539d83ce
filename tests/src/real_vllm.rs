//! A real vLLM for the CPU, and tiny models for it: found, or installed by the scripts of
//! `tests/vllm`.

use std::collections::BTreeSet;
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
    /// Where it is kept what a supervisor learns of it.
    pub cache: PathBuf,
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
        Ok(Self { command, tiny_model, other_model, cache: directory().join("cache") })
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

    /// The flags of `vllm serve`, in all their spellings, by its own help. It takes seconds.
    ///
    /// # Errors
    ///
    /// Why it cannot be asked.
    pub fn flags(&self) -> Result<BTreeSet<String>, Unavailable> {
        let command = &self.command;
        let unavailable =
            |said: String| Unavailable(format!("{} --help: {said}", command.display()));
        let mut help = program(&command.to_string_lossy());
        help.args(["serve", "--help=all"]).env("VLLM_NO_USAGE_STATS", "1").stdin(Stdio::null());
        let output = help.output().map_err(|error| unavailable(error.to_string()))?;
        let flags = flags_of_help(&String::from_utf8_lossy(&output.stdout));
        if flags.is_empty() {
            return Err(unavailable(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(flags)
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

/// Of Python's `argparse`: a line indented by two has the spellings of a flag, each with its value.
fn flags_of_help(help: &str) -> BTreeSet<String> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    let spellings = lines.filter(|line| line.starts_with('-')).flat_map(|line| line.split(", "));
    let flags = spellings.filter_map(|spelling| spelling.split(' ').next());
    flags.filter(|flag| flag.starts_with('-')).map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_help_in_all_their_spellings() {
        let help = "usage: vllm serve [model_tag] [options]\n\n\
            \u{20} -h, --help            show this help message and exit\n\
            \u{20} --host HOST           Host name, as with --port. (default: None)\n\
            \u{20} --data-parallel-external-lb, --no-data-parallel-external-lb, -dpe\n\
            \u{20}                       Whether to use `--x`.\n\
            \u{20} --nnodes NNODES, -n NNODES\n\
            \u{20} --model-impl ['auto', '-y']\n";
        let expected = [
            "--data-parallel-external-lb",
            "--help",
            "--host",
            "--model-impl",
            "--nnodes",
            "--no-data-parallel-external-lb",
            "-dpe",
            "-h",
            "-n",
        ];
        assert_eq!(flags_of_help(help).into_iter().collect::<Vec<_>>(), expected);
    }
}
