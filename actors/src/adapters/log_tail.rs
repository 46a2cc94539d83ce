//! Reads vLLM's output from the file that it goes to.
//!
//! vLLM writes to a file, not to a pipe: it never blocks on a reader that is slow, and is not killed
//! by one that is gone. The file is followed while a model loads, by a thread of its own that reads
//! no further than its lines are taken, and looked at after a crash. It is kept within bounds by
//! `keeper`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::mpsc;

use super::directory::Directory;
use super::state_directory::{HeldDirectory, LOGS, StateDirectory, log_name};
use crate::domain::diagnosis::{Diagnosis, Rulebook, Scanner};
use crate::domain::id::Incarnation;
use crate::domain::secret::Secret;
use crate::ports::{LineSource, Output, Pending};

mod cutting;
mod framer;
mod keeper;
mod masking;
mod scanning;
mod writing;

use framer::Framer;
use keeper::Keeper;
pub use keeper::LogBounds;
use masking::Masker;
use scanning::scan;

/// How often a file that has not grown is looked at again, for as long as a launch loads: what it writes
/// tells that it serves.
const PAUSE: Duration = Duration::from_millis(10);

/// How long until a thread is asked for again, where there was none to be had.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Read at a time, so that a flood does not keep the runtime busy.
const CHUNK_BYTES: usize = 64 * 1024;

/// A file longer than this is not read from its start: an adopted vLLM may have written for days.
const LEAD_BYTES: u64 = 256 * 1024;

/// Whoever falls further behind is brought forward: a flood is not worth its time.
const LAG_BYTES: u64 = 4 * 1024 * 1024;

/// The end of the file in which the last lines are looked for.
const TAIL_BYTES: u64 = 32 * 1024;

/// The logs in a state directory, kept within bounds for as long as this lives.
#[derive(Debug)]
pub struct LogFiles {
    state: Arc<StateDirectory>,
    /// The launch whose log was asked for last.
    present: Arc<AtomicU64>,
    /// Cuts what grows too long, and removes what is too old.
    _keeper: Keeper,
}

impl LogFiles {
    /// The logs in this directory; these texts are masked in those of the launches to come.
    ///
    /// # Errors
    ///
    /// When the thread that keeps them within bounds cannot be started, or the texts cannot be looked for.
    pub fn new(
        state: Arc<StateDirectory>,
        bounds: LogBounds,
        secrets: &[Secret],
    ) -> io::Result<Self> {
        let present = Arc::default();
        let masker = Masker::of(secrets)?;
        let keeper = Keeper::start(state.present().clone(), bounds, Arc::clone(&present), masker)?;
        Ok(Self { state, present, _keeper: keeper })
    }
}

impl Output for LogFiles {
    fn lines(&self, incarnation: Incarnation) -> Box<dyn LineSource> {
        self.present.store(incarnation.get(), Ordering::Relaxed);
        let state = self.state.present().clone();
        Box::new(FileLines::new(Followed { state, name: name_of(incarnation) }))
    }
}

/// The log's name below a state directory.
fn name_of(incarnation: Incarnation) -> String {
    format!("{LOGS}/{}", log_name(incarnation))
}

/// The log of a launch, in the state directory that was held when the launch was claimed or found.
#[derive(Clone, Debug)]
pub(super) struct LaunchLog {
    directory: Arc<Directory>,
    /// Below that directory.
    name: String,
}

impl LaunchLog {
    pub(super) fn of(state: &StateDirectory, incarnation: Incarnation) -> Self {
        Self { directory: state.present().now(), name: name_of(incarnation) }
    }

    /// Where it was then, for those who read of it.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// What all of it says of the end of the launch.
    pub(super) fn diagnosis(&self) -> io::Result<Option<Diagnosis>> {
        let book = Rulebook::new().map_err(io::Error::other)?;
        let mut file = self.directory.open_file(&self.name, OFlags::RDONLY)?;
        let mut scanner = Scanner::new(&Arc::new(book));
        scan(&mut file, &mut scanner)?;
        Ok(scanner.finish())
    }

    /// The last lines, oldest first, blank ones left out.
    pub(super) fn last_lines(&self, count: usize) -> io::Result<Vec<String>> {
        let mut file = self.directory.open_file(&self.name, OFlags::RDONLY)?;
        let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        bytes.push(b'\n');
        let mut lines = Framer::default().push(&bytes);
        lines.retain(|line| !line.trim().is_empty());
        let surplus = lines.len().saturating_sub(count);
        Ok(lines.split_off(surplus))
    }
}

/// The log of a launch that may be yet to be claimed, and with it a state directory to be held.
#[derive(Clone, Debug)]
struct Followed {
    state: HeldDirectory,
    /// Below that directory.
    name: String,
}

impl Followed {
    fn open(&self) -> io::Result<File> {
        self.state.now().open_file(&self.name, OFlags::RDONLY)
    }
}

/// One log, followed.
#[derive(Debug)]
struct FileLines {
    log: Followed,
    /// Begun with the first question.
    reader: Option<Reader>,
}

/// A thread that reads. It ends when this is dropped.
#[derive(Debug)]
struct Reader {
    /// One batch is in flight, no more: the thread waits until it is taken.
    lines: mpsc::Receiver<Vec<String>>,
    /// Wakes the thread from its pause by being dropped.
    _alive: Sender<()>,
}

impl FileLines {
    fn new(log: Followed) -> Self {
        Self { log, reader: None }
    }

    fn reader(&mut self) -> io::Result<&mut Reader> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            empty @ None => Ok(empty.insert(Reader::start(self.log.clone())?)),
        }
    }
}

impl Reader {
    fn start(log: Followed) -> io::Result<Self> {
        let (batches, lines) = mpsc::channel(1);
        let (alive, ended) = channel();
        let follow = move || {
            let mut log = Log::new(log);
            while !batches.is_closed() {
                match log.read() {
                    Ok(news) if !news.is_empty() => {
                        // Nobody is left to take them: the loop ends.
                        batches.blocking_send(news).ok();
                    }
                    Ok(_) if log.has_more() => {}
                    // It has not been made yet, or has not grown by a line.
                    Ok(_) | Err(_) => match ended.recv_timeout(PAUSE) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    },
                }
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(follow)?;
        Ok(Self { lines, _alive: alive })
    }
}

impl LineSource for FileLines {
    fn next_lines(&mut self) -> Pending<'_, Vec<String>> {
        Box::pin(async move {
            loop {
                match self.reader() {
                    Ok(reader) => match reader.lines.recv().await {
                        Some(lines) => return lines,
                        None => self.reader = None,
                    },
                    Err(error) => {
                        tracing::error!(%error, "no thread to read vLLM's log with");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        })
    }
}

/// A log that is being read.
#[derive(Debug)]
struct Log {
    source: Followed,
    /// Opened once it exists.
    file: Option<File>,
    /// Where the next byte to be read is.
    position: u64,
    /// What the last read brought.
    chunk: usize,
    framer: Framer,
}

impl Log {
    fn new(source: Followed) -> Self {
        Self { source, file: None, position: 0, chunk: 0, framer: Framer::default() }
    }

    fn read(&mut self) -> io::Result<Vec<String>> {
        self.chunk = 0;
        let (mut file, most) = match self.file.take() {
            Some(file) => (file, LAG_BYTES),
            None => (self.source.open()?, LEAD_BYTES),
        };
        let length = file.metadata()?.len();
        if length < self.position {
            // Whoever shortened it has begun anew.
            self.jump(&mut file, 0)?;
        } else if length - self.position > most {
            self.jump(&mut file, length - LEAD_BYTES)?;
        } else {
            // After an error it was opened anew.
            file.seek(SeekFrom::Start(self.position))?;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        self.chunk = file.read(&mut chunk)?;
        self.position += self.chunk as u64;
        self.file = Some(file);
        Ok(self.framer.push(&chunk[..self.chunk]))
    }

    /// Whether the end was not reached by the last read.
    fn has_more(&self) -> bool {
        self.chunk == CHUNK_BYTES
    }

    fn jump(&mut self, file: &mut File, to: u64) -> io::Result<()> {
        let passed_over = to.saturating_sub(self.position);
        tracing::debug!(passed_over, log = self.source.name, "a part of vLLM's log is not read");
        file.seek(SeekFrom::Start(to))?;
        self.position = to;
        self.framer = if to == 0 { Framer::default() } else { Framer::within_a_line() };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
