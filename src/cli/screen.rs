//! Where the words of a command go that is over at once: stdout and stderr.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use super::complaint::Complaint;
use super::exit::Exit;
use super::look::{Look, Tone};
use super::plain;

/// Writes all the data that a command has; returns `exit`, unless that fails. That the reader has
/// gone away is no failure: `vllmd … | head -1` is fine.
pub(super) fn print(text: impl Display, exit: Exit) -> Exit {
    match print_line(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            tell(Complaint::new(format!("cannot write to stdout: {error}"), ""));
            Exit::Failure
        }
        Ok(()) | Err(_) => exit,
    }
}

/// The same of words for people, which hold nothing that a terminal obeys.
pub(super) fn show(text: &str, exit: Exit) -> Exit {
    print(Look::of_stdout().dress(text, Tone::Neutral), exit)
}

/// A report as JSON, on several lines.
pub(super) fn json(report: &impl Serialize) -> String {
    // Plain structs of strings always have a JSON form.
    serde_json::to_string_pretty(report).unwrap_or_default()
}

/// Writes a line of data, for readers that wait for it.
pub(super) fn print_line(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes a message to the operator, which is lost if nobody reads stderr.
pub(super) fn tell(message: impl Display) {
    let text = plain::lines(&message.to_string());
    writeln!(io::stderr().lock(), "{}", Look::of_stderr().dress(&text, Tone::Neutral)).ok();
}
