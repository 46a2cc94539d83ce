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
    let text = match output {
        Output::Text => plain::lines(&in_words(diagnosis.as_ref())),
        Output::Json => screen::json(&Body::of(diagnosis.as_ref())),
    };
    screen::print(text, Exit::Done)
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
    loop {
        match log.read(&mut part) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(count) => scanner.feed(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn in_words(diagnosis: Option<&Diagnosis>) -> String {
    let Some(found) = diagnosis else {
        return "nothing speaks of a failure: vLLM came to serve, and did not fail".to_owned();
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
            summary: diagnosis.map_or("nothing speaks of a failure", |it| it.summary.as_str()),
            remedy: diagnosis.map(|it| it.remedy.as_str()),
            class: diagnosis.map(|it| it.class.as_str()),
            line_number: line.map(|it| it.line_number),
            line: line.map(|it| it.line.as_str()),
        }
    }
}
