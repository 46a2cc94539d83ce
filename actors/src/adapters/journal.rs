//! Keeps what happened in files of the state directory: `events.jsonl` and `restarts.jsonl`, one
//! JSON object a line.
//!
//! A thread of its own writes, so that a slow disk holds up nobody. The format is the codec's.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::domain::event::Event;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::RestartRecord;
use crate::domain::machine::Resume;
use crate::ports::{CustodyEnded, Journal, Pending};

/// How entries are written and read, one a line, without line breaks.
pub trait JournalCodec: fmt::Debug + Send + Sync + 'static {
    /// An event.
    fn event(&self, event: &Event) -> String;

    /// A restart.
    fn restart(&self, record: &RestartRecord) -> String;

    /// What became of a process whose owner ended.
    fn custody_ended(&self, ended: &CustodyEnded) -> String;

    /// The numbers of an event's line; `None` for other lines, and for one that was torn.
    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)>;

    /// A restart's line; `None` for one that was torn.
    fn read_restart(&self, line: &str) -> Option<RestartRecord>;
}

/// See the module.
#[derive(Debug)]
pub struct FileJournal {
    codec: Box<dyn JournalCodec>,
    entries: Sender<Entry>,
    restarts: PathBuf,
    writer: Option<JoinHandle<()>>,
}

enum Entry {
    Event(String),
    Restart(String),
    Flush(oneshot::Sender<()>),
    End,
}

impl FileJournal {
    /// Opens the journal in this directory, and tells where its numbering stands. Last lines that
    /// were torn by a crash are cut off.
    ///
    /// # Errors
    ///
    /// When the files cannot be opened, or the thread not be started.
    pub fn open(directory: &Path, codec: Box<dyn JournalCodec>) -> io::Result<(Self, Resume)> {
        let (events, restarts) = (directory.join("events.jsonl"), directory.join("restarts.jsonl"));
        let resume = resume(&cut_torn_line(&events)?, &*codec);
        cut_torn_line(&restarts)?;
        let files = (open(&events)?, open(&restarts)?);
        let (entries, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let writer = Some(thread.spawn(move || write(&inbox, files))?);
        Ok((Self { codec, entries, restarts, writer }, resume))
    }

    fn send(&self, entry: Entry) {
        if self.entries.send(entry).is_err() {
            tracing::error!("the journal's thread is gone; an entry is lost");
        }
    }
}

impl Journal for FileJournal {
    fn event(&self, event: &Event) {
        self.send(Entry::Event(self.codec.event(event)));
    }

    fn restart(&self, record: &RestartRecord) {
        self.send(Entry::Restart(self.codec.restart(record)));
    }

    fn custody_ended(&self, ended: &CustodyEnded) {
        self.send(Entry::Event(self.codec.custody_ended(ended)));
    }

    fn history(&self) -> Pending<'_, Vec<RestartRecord>> {
        Box::pin(async move {
            self.flushed().await;
            let bytes = fs::read(&self.restarts).unwrap_or_default();
            String::from_utf8_lossy(&bytes)
                .lines()
                .filter_map(|line| self.codec.read_restart(line))
                .collect()
        })
    }

    fn flushed(&self) -> Pending<'static, ()> {
        let (done, flushed) = oneshot::channel();
        self.send(Entry::Flush(done));
        // Without the thread there is nothing left to wait for.
        Box::pin(async move { drop(flushed.await) })
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.send(Entry::End);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

fn write(inbox: &Receiver<Entry>, (mut events, mut restarts): (File, File)) {
    for entry in inbox {
        let written = match entry {
            Entry::Event(line) => append(&mut events, &line),
            Entry::Restart(line) => append(&mut restarts, &line),
            Entry::Flush(done) => {
                // Nobody waits any more: fine.
                done.send(()).ok();
                Ok(())
            }
            Entry::End => return,
        };
        if let Err(error) = written {
            tracing::error!(%error, "the journal cannot be written");
        }
    }
}

/// In one piece, so that readers never see half a line of a living supervisor.
fn append(file: &mut File, line: &str) -> io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Cuts off a last line that a crash tore: the next one would be written onto its end, and be lost
/// as well. Returns what the file holds then.
fn cut_torn_line(path: &Path) -> io::Result<String> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
        bytes.truncate(whole);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The highest numbers of the whole journal.
fn resume(text: &str, codec: &dyn JournalCodec) -> Resume {
    let numbers = text.lines().filter_map(|line| codec.numbers(line));
    numbers.fold(Resume::default(), |resume, (sequence, incarnation)| Resume {
        sequence: resume.sequence.max(sequence),
        incarnation: resume.incarnation.max(incarnation),
    })
}

#[cfg(test)]
mod tests;
