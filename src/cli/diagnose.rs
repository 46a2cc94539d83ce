//! `vllmd diagnose`: why a vLLM failed, by the log that it left.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::complaint::Complaint;
use super::exit::Exit;
use super::{Output, plain, screen};
use crate::{Diagnosis, Rulebook, Scanner};

/// How much is read at a time, in bytes.
const PART: usize = 256 * 1024;

/// The longest line of what is not known to be vLLM's, in bytes.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

const NO_FAILURE: &str = "the log shows no failure";

/// What no log tells.
const SILENT: &str = "a vLLM that hangs, or was killed from outside, leaves no line that says so: \
    restarts.jsonl in the state directory tells how each launch ended";

/// Reads a log, `-` for stdin, and prints the cause.
pub(super) fn diagnose(log: &Path, output: Output) -> Exit {
    let read = open(log).and_then(|mut log| read(&mut log));
    let diagnosis = match read {
        Ok(diagnosis) => diagnosis,
        Err(error) => {
            let summary = format!("{} cannot be read: {error}", log.display());
            screen::tell(Complaint::new(
                summary,
                "name a file that vLLM has written, or - for stdin",
            ));
            return Exit::Misconfigured;
        }
    };
    match output {
        Output::Text => screen::show(&plain::lines(&in_words(diagnosis.as_ref())), Exit::Done),
        Output::Json => screen::print(screen::json(&Body::of(diagnosis.as_ref())), Exit::Done),
    }
}

fn open(log: &Path) -> io::Result<Box<dyn Read>> {
    if log == Path::new("-") {
        Ok(Box::new(io::stdin().lock()))
    } else {
        Ok(Box::new(File::open(log)?))
    }
}

fn read(log: &mut dyn Read) -> io::Result<Option<Diagnosis>> {
    let book = Rulebook::new().map_err(io::Error::other)?;
    let mut scanner = Scanner::new(&Arc::new(book));
    let mut part = vec![0; PART];
    let mut text = Text::default();
    loop {
        match log.read(&mut part) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(count) => {
                scanner.feed(&part[..count]);
                // A log of ours may have a hole, behind its beginning.
                if !scanner.is_of_vllm() {
                    text.judge(&part[..count])?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether what is read is text, which has lines and no NUL.
#[derive(Default)]
struct Text {
    /// How much has been read since the last end of a line, in bytes.
    line: usize,
}

impl Text {
    fn judge(&mut self, part: &[u8]) -> io::Result<()> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if part.contains(&0) {
            return refuse("it is no text: it has NUL bytes");
        }
        self.line = match part.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(end) => part.len() - end - 1,
            None => self.line.saturating_add(part.len()),
        };
        if self.line > LONGEST_LINE {
            return refuse("it is no log: a line of it has no end");
        }
        Ok(())
    }
}

fn in_words(diagnosis: Option<&Diagnosis>) -> String {
    let Some(found) = diagnosis else {
        return format!("{NO_FAILURE}: vLLM came to serve\n  help: {SILENT}");
    };
    let Diagnosis { code, summary, remedy, line_number, line, .. } = found;
    let telling = match line_number {
        0 => String::new(),
        number => format!("\n  line {number}: {line}"),
    };
    format!("{code}: {summary}{telling}\n  help: {remedy}")
}

/// A diagnosis as a JSON object: all of it is null but the words, if there is none.
#[derive(Debug, Serialize)]
struct Body<'a> {
    code: Option<String>,
    summary: &'a str,
    remedy: Option<&'a str>,
    class: Option<&'static str>,
    line_number: Option<u64>,
    line: Option<&'a str>,
}

impl<'a> Body<'a> {
    fn of(diagnosis: Option<&'a Diagnosis>) -> Self {
        let line = diagnosis.filter(|it| it.line_number > 0);
        Self {
            code: diagnosis.map(|it| it.code.to_string()),
            summary: diagnosis.map_or(NO_FAILURE, |it| it.summary.as_str()),
            remedy: diagnosis.map(|it| it.remedy.as_str()),
            class: diagnosis.map(|it| it.class.as_str()),
            line_number: line.map(|it| it.line_number),
            line: line.map(|it| it.line.as_str()),
        }
    }
}
