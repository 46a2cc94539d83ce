//! The command `vllmd`: words on the command line in, an exit code out.
//!
//! Data goes to stdout, messages and log records go to stderr. What is printed is made in `render`
//! and `complaint`, which are pure; the subcommands say when.

mod check;
mod complaint;
mod config;
mod diagnose;
mod exit;
mod inherited;
mod log;
mod look;
mod memory;
mod orphans;
mod plain;
mod printer;
mod progress;
mod render;
mod run;
mod screen;
mod signals;
mod stderr;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{Overrides, Sources};

const EXAMPLES: &str = "\
Examples:
  vllmd run --model facebook/opt-125m          serve a model until Ctrl-C
  vllmd check --config vllmd.yaml              is everything there that it needs?
  vllmd diagnose vllm.log                      why did it fail?
  vllmd run --output json | jq .type           follow the events from a program

The usual places of a configuration file (the first that exists is read):
  ./.agent/config.yml, ~/.config/vllmd/config.yaml, /etc/vllmd/config.yaml

Exit codes:
  0    done
  1    failure
  2    the command line or the configuration is wrong
  3    vLLM cannot be brought up, and trying again will not help
  130  ended by SIGINT; 131 by SIGQUIT; 143 by SIGTERM, SIGHUP, SIGABRT, SIGXCPU or SIGPWR";

const RUN_HELP: &str = "\
Signals:
  The first SIGINT, SIGTERM, SIGQUIT or SIGHUP stops vLLM, or leaves it running if
  lifecycle.stop_on_exit is false (then the next run takes it over)
  The second kills vLLM, the third exits at once; what of vLLM is alive then is killed, or
  left running, by lifecycle.stop_on_exit
  A vLLM that is not ours (lifecycle.mode) is left alone by all of them
  Signals without a meaning, such as SIGUSR1, are ignored

Environment:
  VLLM_MODEL, VLLM_PORT      as --model and --port
  HF_TOKEN, VLLM_API_KEY     secrets, or the paths of files with them in HF_TOKEN_FILE and
                             VLLM_API_KEY_FILE
  VLLMD_CONFIG               as --config
  VLLMD_LOG                  which log records go to stderr, such as `info` [default: warn]

Examples:
  vllmd run --model facebook/opt-125m
  vllmd run --config /etc/vllmd/config.yaml --output json
  VLLMD_LOG=debug vllmd run --model ./my-model --log-format json";

const DIAGNOSE_HELP: &str = "\
JSON:
  code         VLM-NNN; null if the log shows no failure; VLM-099 if it is not known
  summary      what happened, in a sentence
  remedy       what to do; null without a failure
  class        permanent, transient or after_cleanup: whether trying again can help
  line_number  of the line that tells it, from 1; null if none does
  line         that line

Exit codes:
  0  the log was read, whatever it says
  2  it cannot be read, or the command line is wrong

Examples:
  vllmd diagnose ~/.local/state/vllmd/logs/vllm-3.log
  journalctl -u vllm | vllmd diagnose --output json -";

/// Owns the life of a vLLM server: starts it, watches it, brings it back, stops it without a trace
#[derive(Debug, Parser)]
#[command(name = "vllmd", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    common: CommonArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
struct CommonArguments {
    /// The configuration file [default: looked for in the usual places]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The model: namespace/name of Hugging Face, or a directory such as ./my-model
    #[arg(long, global = true)]
    model: Option<String>,
    /// The TCP port vLLM listens on [default: 8000]
    // Any number, so that one out of range is reported with everything else that is wrong.
    #[arg(long, global = true, value_name = "NUMBER")]
    port: Option<u32>,
    /// Where logs and history are kept; one `run` a directory [default: ~/.local/state/vllmd]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

impl CommonArguments {
    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--config", self.config.is_some()),
            ("--model", self.model.is_some()),
            ("--port", self.port.is_some()),
            ("--state-dir", self.state_dir.is_some()),
        ];
        given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    fn into_sources(self) -> Sources {
        let Self { config, model, port, state_dir } = self;
        Sources::from_process(Overrides { model, port, state_dir }, config)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Supervise vLLM in the foreground, until a signal
    #[command(after_help = RUN_HELP)]
    Run {
        /// The form of the events on stdout: lines for people, or one JSON object a line, from the
        /// first event of this run on
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        /// The form of the log records and messages on stderr
        #[arg(long, value_enum, default_value_t)]
        log_format: Output,
    },
    /// Check the configuration and whether everything is there to run; starts nothing
    Check {
        /// The form of what is printed on stdout
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Tell from a log why vLLM failed
    #[command(after_help = DIAGNOSE_HELP)]
    Diagnose {
        /// The log of one launch of vLLM, or of several, of which the last counts; - is stdin
        #[arg(value_name = "FILE")]
        log: PathBuf,
        /// The form of what is printed on stdout
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show what vllmd is configured by
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting with its value and where that came from; secrets are masked
    Show {
        /// The form of what is printed on stdout
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// The JSON schema of the configuration file, for editors
    Schema,
}

/// For whom something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Does what the command line of this process says.
///
/// Wrong usage, `--help` and `--version` end the process right here, as is clap's habit.
pub fn run() -> ExitCode {
    inherited::reset_signals();
    memory::share_one_heap();
    let Arguments { common, command } = Arguments::parse();
    if let Command::Diagnose { .. } = command
        && let Some(flag) = common.first_given()
    {
        let said = format!("{flag} has no meaning for `vllmd diagnose`, which reads one log alone");
        Arguments::command().error(ErrorKind::ArgumentConflict, said).exit();
    }
    let sources = common.into_sources();
    let exit = match command {
        Command::Run { output, log_format } => run::run(&sources, output, log_format),
        Command::Check { output } => check::check(&sources, output),
        Command::Diagnose { log, output } => diagnose::diagnose(&log, output),
        Command::Config { what: ConfigCommand::Show { output } } => config::show(&sources, output),
        Command::Config { what: ConfigCommand::Schema } => config::schema(),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["vllmd --port 70000 check", "vllmd check --port 70000"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.common.port, Some(70_000), "{line}");
        }
    }
}
