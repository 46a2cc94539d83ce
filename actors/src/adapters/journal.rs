//! Keeps what happened in files of the state directory, one JSON object a line, and reads it back.
//!
//! | file | holds | at most |
//! |---|---|---|
//! | `events.jsonl` | the latest events | 4 MiB and a line |
//! | `events-<number of the last>.jsonl` | those before, oldest removed first | 60 MiB together |
//! | `restarts.jsonl`, `restarts-old.jsonl` | the ends that nobody asked for, and the returns from them | 4 MiB and a line each |
//! | `numbers` | the numbers that may have been given | 42 bytes |
//!
//! A thread of its own writes, so that a slow disk holds up nobody. Every line of the events has a
//! number, and numbers are never given twice (`numbers.rs`): whatever is lost, by a crash, a full
//! disk or age, is a hole in the numbers that readers see. The format is the codec's.
//!
//! It is written and read in the directory that the supervisor holds, wherever its name leads by
//! now, and in another one when that one is held: what stands at the name meanwhile may be another
//! supervisor's.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::directory::Directory;
use super::state_directory::HeldDirectory;
use crate::domain::event::Event;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::incident::{Incident, Record};
use crate::domain::machine::Resume;
use crate::ports::{Journal, Orphaned, PastEvents, Pending};

mod files;
mod history;
mod lane;
mod lines;
mod numbers;
mod opening;
mod past;
mod reader;
mod segments;
mod writer;

use writer::Writer;

/// Entries that may wait for the thread. Thousands are never due unless the disk stands still.
const ENTRIES_WAITING: usize = 4096;

/// How long a flush, and the journal's end, wait for the disk.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Numbers from here on are none of ours, whatever line says so: at a million events a second they
/// are a century away.
const NUMBERS_END: u64 = 1 << 52;

fn plausible(number: u64) -> Option<u64> {
    (number < NUMBERS_END).then_some(number)
}

/// How entries are written and read, one a line, without line breaks.
pub trait JournalCodec: fmt::Debug + Send + Sync + 'static {
    /// An event.
    fn event(&self, event: &Event) -> String;

    /// An entry of the history.
    fn record(&self, record: &Record) -> String;

    /// That so many entries are missing; of events, up to the one with this number.
    fn gap(&self, through: Option<Sequence>, at: SystemTime, missed: u64) -> String;

    /// The numbers of a line; `None` for one that has none, and for one that was torn.
    fn numbers(&self, line: &str) -> Option<(Sequence, Incarnation)>;

    /// An event's line; `None` for other lines, and for one that was torn.
    fn read_event(&self, line: &str) -> Option<Event>;

    /// A line of the history; `None` for other lines, and for one that was torn.
    fn read_record(&self, line: &str) -> Option<Record>;
}

/// A file of the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the journal's file {path} cannot be used", path = .path.display())]
#[non_exhaustive]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl JournalError {
    fn of(directory: &Directory, name: &str, source: io::Error) -> Self {
        Self { path: directory.path().join(name), source }
    }
}

/// Where numbering stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ResumePoint {
    sequence: u64,
    incarnation: u64,
}

/// See the module.
#[derive(Debug)]
pub struct FileJournal {
    codec: Arc<dyn JournalCodec>,
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

/// What callers and the thread share.
#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    home: Mutex<Home>,
    /// Numbers up to here are reserved.
    reserved: AtomicU64,
    /// Entries that were written, or tried at least once.
    handled: watch::Sender<u64>,
}

/// Where the journal is written, and read.
#[derive(Clone, Debug)]
struct Home {
    directory: Arc<Directory>,
    /// Numbers up to here stand there for events of another supervisor, and were given for others
    /// in this life; 0 where what is written there is all one history.
    foreign: u64,
}

/// Under one lock, so that numbers arrive in their order.
#[derive(Debug)]
struct Inbox {
    /// The last number given to an event.
    given: u64,
    /// Restarts so far in this life.
    restarts: u64,
    /// Entries sent so far.
    sent: u64,
    /// `None` once the journal is being dropped.
    entries: Option<SyncSender<Entry>>,
}

/// What is written.
#[derive(Debug)]
enum Entry {
    Event(Arc<Event>),
    /// With its place in the history of this life.
    Record(u64, Record),
    /// Another directory is held: numbers are kept there before anything happens.
    Moved,
    /// Nothing more is expected.
    Close,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> u64 {
        self.inbox().given
    }

    /// No number up to this one is given any more.
    fn go_on_behind(&self, number: u64) {
        let mut inbox = self.inbox();
        inbox.given = inbox.given.max(number);
    }

    fn home(&self) -> Home {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn go_home(&self, home: Home) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = home;
    }

    /// Numbers an event, and sends it to the thread.
    fn number(&self, event: Event) -> Arc<Event> {
        let mut inbox = self.inbox();
        inbox.given += 1;
        if inbox.given == self.reserved.load(Ordering::Relaxed) + 1 {
            tracing::error!("event numbers run ahead of the journal, which cannot be written");
        }
        let event = Arc::new(Event { sequence: Sequence::new(inbox.given), ..event });
        inbox.send(Entry::Event(Arc::clone(&event)));
        event
    }

    /// Resolves when what was sent so far was written, or tried once; after a while in any case.
    fn flushed(&self) -> Pending<'static, ()> {
        let (sent, mut handled) = (self.inbox().sent, self.handled.subscribe());
        Box::pin(async move {
            let written = handled.wait_for(|handled| *handled >= sent);
            // The thread is gone, or the disk stands still.
            if !matches!(tokio::time::timeout(LONGEST_WAIT, written).await, Ok(Ok(_))) {
                tracing::warn!("the journal is not written yet, and is not waited for");
            }
        })
    }
}

impl Inbox {
    /// Never waits. What finds no room is missing in the numbers, and the thread says so.
    fn send(&mut self, entry: Entry) {
        match self.entries.as_ref().map(|entries| entries.try_send(entry)) {
            Some(Ok(())) => self.sent += 1,
            Some(Err(TrySendError::Full(_))) => {
                tracing::error!("the journal's disk stands still; an entry is lost");
            }
            Some(Err(TrySendError::Disconnected(_))) | None => {
                tracing::error!("the journal's thread is gone; an entry is lost");
            }
        }
    }
}

impl FileJournal {
    /// Opens the journal in the directory that is held, and tells where its numbering stands. Only
    /// the end of the latest file is read, however much there is.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when a file cannot be used, or no numbers be reserved.
    pub fn open(
        held: &HeldDirectory,
        codec: Box<dyn JournalCodec>,
    ) -> Result<(Self, Resume), JournalError> {
        let codec = Arc::from(codec);
        let directory = held.now();
        let mut opened = opening::open(&directory, &codec)?;
        let reserved = opened.reserve()?;
        let (entries, inbox) = mpsc::sync_channel(ENTRIES_WAITING);
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox {
                given: opened.resume.sequence,
                restarts: 0,
                sent: 0,
                entries: Some(entries),
            }),
            home: Mutex::new(Home { directory: Arc::clone(&directory), foreign: 0 }),
            reserved: AtomicU64::new(reserved.sequence),
            handled: watch::Sender::new(0),
        });
        let listener = Arc::downgrade(&shared);
        held.on_change(move || {
            if let Some(shared) = listener.upgrade() {
                shared.inbox().send(Entry::Moved);
            }
        });
        let resume = Resume {
            sequence: Sequence::new(opened.resume.sequence),
            incarnation: Incarnation::new(opened.resume.incarnation),
        };
        let writer = Writer::of(opened, held, reserved, &shared, &codec);
        let (alive, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let run = move || {
            writer.run(&inbox);
            drop(alive);
        };
        let failed = |source| JournalError { path: directory.path().to_owned(), source };
        thread.spawn(run).map_err(failed)?;
        Ok((Self { codec, shared, ended: Mutex::new(ended) }, resume))
    }
}

impl Journal for FileJournal {
    fn event(&self, event: Event) -> Arc<Event> {
        self.shared.number(event)
    }

    fn record(&self, record: Record) {
        let mut inbox = self.shared.inbox();
        inbox.restarts += 1;
        let number = inbox.restarts;
        inbox.send(Entry::Record(number, record));
    }

    fn orphaned(&self, ended: &Orphaned) -> Arc<Event> {
        self.shared.number(ended.event())
    }

    fn events(&self, from: Sequence) -> Box<dyn PastEvents> {
        let codec = Arc::clone(&self.codec);
        Box::new(past::FileEvents::new(codec, Arc::clone(&self.shared), from))
    }

    /// The last 1000 records, as far as they lie in the last 8 MiB.
    fn history(&self) -> Pending<'_, Vec<Incident>> {
        let (shared, codec) = (Arc::clone(&self.shared), Arc::clone(&self.codec));
        let flushed = shared.flushed();
        Box::pin(async move {
            flushed.await;
            past::blocking(move || history::read(&shared.home().directory, &*codec)).await
        })
    }

    fn flushed(&self) -> Pending<'static, ()> {
        self.shared.flushed()
    }

    fn closed(&self) -> Pending<'static, ()> {
        self.shared.inbox().send(Entry::Close);
        self.shared.flushed()
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        // The thread writes what is left, and ends.
        self.shared.inbox().entries = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(ended.recv_timeout(LONGEST_WAIT), Err(RecvTimeoutError::Timeout)) {
            tracing::error!("the journal's disk stands still; what is not written is lost");
        }
    }
}

#[cfg(test)]
mod tests;
