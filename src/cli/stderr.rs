//! Messages and log records on stderr, written by a thread of their own: whoever reads stderr may
//! be slow or stuck, and must not hold up the supervision of vLLM.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use super::progress::Progress;

/// Texts that may wait to be written; more are dropped, and counted.
const BACKLOG: usize = 1024;

/// How long the last texts may take to be read once everything else has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to stderr. Clones lead to the same.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    inbox: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Text(Vec<u8>),
    Flush(Sender<()>),
}

impl Stderr {
    /// Begins to write, past the progress bar.
    pub(super) fn open(progress: Progress) -> io::Result<Self> {
        Self::onto(move |text| progress.aside(|| io::stderr().lock().write_all(text)))
    }

    fn onto(mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (inbox, items) = mpsc::sync_channel(BACKLOG);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let work = move || write_all(&items, &lost, &mut write);
        thread::Builder::new().name("stderr".to_owned()).spawn(work)?;
        Ok(Self { inbox, dropped })
    }

    /// Writes a message, unless too many wait already.
    pub(super) fn tell(&self, message: impl Display) {
        self.send(format!("{message}\n").into_bytes());
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
        self.send(record.to_vec());
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That a text cannot be written is nothing that anybody could be told.
fn write_all(
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
            let note = format!("{lost} messages were dropped: stderr is not read fast enough\n");
            write(note.as_bytes()).unwrap_or_default();
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
        let stderr = Stderr::onto(move |text| {
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
}
