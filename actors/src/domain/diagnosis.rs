//! What the end of a process says about its cause.

use std::fmt;

use crate::domain::cause::{Cause, Code};

mod line;
mod quote;
mod rule;
mod rulebook;
mod rules;
mod scanner;

pub use quote::Diagnosis;
pub use rulebook::{RuleError, Rulebook};
pub use scanner::Scanner;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited with this status. vLLM's says little: it is 0 when the engine died
    /// (vLLM 0.8 to 0.32, `entrypoints/launcher.py`).
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It is gone, and only its parent could have read how.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    // Linux numbers, the same on x86-64 and arm64.
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// How far an incarnation had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not yet proven healthy: there is nothing to drain, and vLLM swallows one SIGTERM.
    Loading,
    /// It had served.
    Serving,
}

/// `argparse`'s status for arguments it does not accept
/// (vLLM 0.32, `utils/argparse_utils.py`).
const ARGPARSE_ERROR: i32 = 2;

/// The cause behind an end that nobody asked for.
pub fn diagnose(exit: Exit, phase: Phase, last_lines: Vec<String>) -> Cause {
    let cause = match (phase, exit) {
        (Phase::Loading, Exit::Code(ARGPARSE_ERROR)) => {
            let said = last_lines.iter().rev().find(|line| line.contains("error:"));
            Cause::new(
                Code::ArgumentsRejected,
                said.map_or_else(|| exit.to_string(), |line| line.trim().to_owned()),
            )
        }
        (Phase::Serving, _) => {
            Cause::new(Code::EngineDied, format!("vLLM ended while serving: {exit}"))
        }
        (Phase::Loading, Exit::Signal(_)) => {
            Cause::new(Code::EngineDied, format!("vLLM ended while loading: {exit}"))
        }
        (Phase::Loading, Exit::Code(_) | Exit::Unknown) => {
            Cause::new(Code::Unrecognised, format!("vLLM ended while loading: {exit}"))
        }
    };
    cause.with_last_lines(last_lines)
}

#[cfg(test)]
mod tests;
