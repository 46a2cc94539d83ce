//! Messages and log records on stderr, written by a thread of their own: whoever reads stderr may
//! be slow or stuck, and must not hold up the supervision of vLLM.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::complaint::Complaint;
use super::look::{Look, Tone};
use super::progress::Progress;
use super::{Output, plain};

/// Texts that may wait to be written; more are dropped, and counted.
const BACKLOG: usize = 1024;

/// How long the last texts may take to be read once everything else has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to stderr. Clones lead to the same.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    form: Output,
    look: fn() -> Look,
    inbox: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Text(Vec<u8>),
    Flush(Sender<()>),
}

impl Stderr {
    /// Begins to write, past the progress bar. In JSON, every line is an object, in the form of a log
    /// record.
    pub(super) fn open(form: Output, progress: Progress) -> io::Result<Self> {
        let write = move |text: &[u8]| progress.aside(|| io::stderr().lock().write_all(text));
        Ok(Self { look: Look::of_stderr, ..Self::onto(form, write)? })
    }

    fn onto(
        form: Output,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (inbox, items) = mpsc::sync_channel(BACKLOG);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let work = move || write_all(form, &items, &lost, &mut write);
        thread::Builder::new().name("stderr".to_owned()).spawn(work)?;
        Ok(Self { form, look: Look::default, inbox, dropped })
    }

    /// Writes a message, unless too many wait already.
    pub(super) fn tell(&self, message: impl Display) {
        self.send(told(self.form, (self.look)(), "INFO", &message.to_string()));
    }

    /// Writes what is wrong, unless too much waits already.
    pub(super) fn complain(&self, complaint: &Complaint) {
        self.send(match self.form {
            Output::Text => told(self.form, (self.look)(), "ERROR", &complaint.to_string()),
            Output::Json => record("ERROR", &complaint.record()),
        });
    }

    fn send(&self, text: Vec<u8>) {
        if self.inbox.try_send(Item::Text(text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for everything so far to be written, but not for long.
    pub(super) fn flush(&self) {
        let (done, written) = mpsc::channel();
        // With a full backlog nobody reads, and waiting is in vain.
        if self.inbox.try_send(Item::Flush(done)).is_ok() {
            written.recv_timeout(PATIENCE).ok();
        }
    }
}

/// A log record comes in one piece.
impl Write for Stderr {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.send(match self.form {
            Output::Text => {
                let text = String::from_utf8_lossy(record);
                format!("{}\n", plain::line(text.trim_end_matches('\n'))).into_bytes()
            }
            Output::Json => record.to_vec(),
        });
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message in this form.
fn told(form: Output, look: Look, level: &str, message: &str) -> Vec<u8> {
    match form {
        Output::Text => {
            format!("{}\n", look.dress(&plain::lines(message), Tone::Neutral)).into_bytes()
        }
        Output::Json => record(level, &json!({ "message": message })),
    }
}

/// As log records are written (`tracing_subscriber::fmt::format::Json`).
fn record(level: &str, fields: &serde_json::Value) -> Vec<u8> {
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let record =
        json!({ "timestamp": timestamp, "level": level, "fields": fields, "target": "vllmd" });
    format!("{record}\n").into_bytes()
}

/// That a text cannot be written is nothing that anybody could be told.
fn write_all(
    form: Output,
    items: &Receiver<Item>,
    dropped: &AtomicU64,
    write: &mut impl FnMut(&[u8]) -> io::Result<()>,
) {
    for item in items {
        match item {
            Item::Text(text) => write(&text).unwrap_or_default(),
            Item::Flush(done) => done.send(()).unwrap_or_default(),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note = format!("{lost} messages were dropped: stderr is not read fast enough");
            write(&told(form, Look::default(), "WARN", &note)).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up_and_learns_what_it_missed() {
        let (go_on, gate) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(String::new()));
        let page = Arc::clone(&written);
        let stderr = Stderr::onto(Output::Text, move |text| {
            gate.recv().ok();
            page.lock().unwrap().push_str(&String::from_utf8_lossy(text));
            Ok(())
        })
        .unwrap();
        for number in 0..2 * BACKLOG {
            stderr.tell(number);
        }
        drop(go_on);
        // There is room again once the writer has got to work.
        let (done, flushed) = mpsc::channel();
        stderr.inbox.send(Item::Flush(done)).unwrap();
        flushed.recv().unwrap();
        let written = written.lock().unwrap();
        assert!(written.starts_with("0\n") && written.contains("\n1\n2\n"), "{written}");
        assert!(written.contains("messages were dropped"), "{written}");
    }

    /// What comes out when these things are written in this form.
    fn written(form: Output, write: impl FnOnce(&mut Stderr)) -> String {
        let page = Arc::new(Mutex::new(String::new()));
        let paper = Arc::clone(&page);
        let mut stderr = Stderr::onto(form, move |text| {
            paper.lock().unwrap().push_str(&String::from_utf8_lossy(text));
            Ok(())
        })
        .unwrap();
        write(&mut stderr);
        Stderr::flush(&stderr);
        page.lock().unwrap().clone()
    }

    #[test]
    fn what_others_say_in_a_log_record_is_shown_and_not_obeyed() {
        let record = b"WARN vllmd: \x1b]0;title\x07\nERROR forged\n";
        let text = written(Output::Text, |stderr| stderr.write_all(record).unwrap());
        assert_eq!(text, "WARN vllmd: \\u{1b}]0;title\\u{7}\\u{a}ERROR forged\n");
    }

    #[test]
    fn with_records_in_json_every_line_is_json() {
        let text = written(Output::Json, |stderr| {
            stderr.tell("two\n  lines \u{1b}[2J");
            stderr.complain(&Complaint::new("no \u{7}bell", "stop"));
            stderr.write_all(b"{\"level\":\"WARN\"}\n").unwrap();
        });
        let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
        let lines: Vec<_> = lines.map(Result::unwrap).collect();
        assert_eq!(lines[0]["fields"]["message"], "two\n  lines \u{1b}[2J");
        assert_eq!((&lines[1]["level"], &lines[1]["target"]), (&json!("ERROR"), &json!("vllmd")));
        assert_eq!(lines[1]["fields"]["message"], "no \u{7}bell");
        assert_eq!(lines[1]["fields"]["remedy"], "stop");
        assert_eq!(lines[2]["level"], "WARN");
        assert_eq!(lines.len(), 3);
    }
}
