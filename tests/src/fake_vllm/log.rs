//! Speaks the lines of a transcript on the streams that vLLM uses for them.
//!
//! vLLM's own log goes to stdout, with its prefix `(Process pid=N) LEVEL …`; everything else,
//! uvicorn's lines, progress bars, warnings and tracebacks, goes to stderr (vLLM 0.32,
//! `logger.py`). Each line is flushed; a stream that is closed is spoken to in vain, not fatally.

use std::io::Write as _;
use std::process;
use std::time::SystemTime;

/// What to put in place of `{name}`.
type Values = [(&'static str, String)];

/// The voice of one process.
#[derive(Debug, Default)]
pub(super) struct Log {
    values: Vec<(&'static str, String)>,
}

impl Log {
    /// A voice that puts these values in wherever a transcript asks for them.
    pub(super) fn with(values: Vec<(&'static str, String)>) -> Self {
        Self { values }
    }

    /// Prints a transcript now.
    pub(super) fn print(&self, transcript: &str) {
        self.print_with(transcript, &[]);
    }

    /// Prints a transcript now, with values that only this one needs.
    pub(super) fn print_with(&self, transcript: &str, values: &Values) {
        let mut text = stamp(transcript);
        for (name, value) in values.iter().chain(&self.values) {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        for line in text.lines() {
            let line = line.replace("\\r", "\r");
            if line.starts_with('(') { to_stdout(&line) } else { to_stderr(&line) }
        }
    }
}

/// One line of uvicorn's access log, which goes to stdout (uvicorn's `LOGGING_CONFIG`).
pub(super) fn access(line: &str) {
    to_stdout(line);
}

/// One line of a progress bar; an empty one ends the bar (tqdm).
pub(super) fn progress(line: &str) {
    to_stderr(line);
}

/// Four megabytes on stdout before a line ends.
pub(super) fn flood() {
    let mut stdout = std::io::stdout().lock();
    let block = [b'#'; 4096];
    for _ in 0..1024 {
        stdout.write_all(&block).ok();
    }
    stdout.write_all(b"\n").ok();
    stdout.flush().ok();
}

fn to_stdout(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).ok();
    stdout.flush().ok();
}

fn to_stderr(line: &str) {
    // In one piece: stderr is not buffered, and several processes share it.
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).ok();
}

/// Puts in the pid and the time, as vLLM (`11-23 07:48:26`) and glog (`1123 07:48:26.122159`)
/// write it.
fn stamp(transcript: &str) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let (date, time) = (&now[5..10], &now[11..19]);
    let glog_time = format!("{} {}", date.replace('-', ""), &now[11..26]);
    transcript
        .replace("{pid}", &process::id().to_string())
        .replace("{time}", &format!("{date} {time}"))
        .replace("{glog_time}", &glog_time)
}
