//! What the command says to its parent when it ends.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It did what was asked.
    Done,
    /// It could not, for a reason that has no code of its own.
    Failure,
    /// The command line, the configuration or what it points to cannot be used.
    Misconfigured,
    /// The service gave up.
    GaveUp,
    /// SIGINT ended it.
    Interrupted,
    /// SIGQUIT ended it.
    Quit,
    /// SIGTERM, or a signal that means the same, ended it.
    Terminated,
}

impl Exit {
    /// The exit code. That of a signal is 128 and its number, as shells have it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Misconfigured => 2,
            Self::GaveUp => 3,
            Self::Interrupted => 130,
            Self::Quit => 131,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
