//! Keeps the logs within bounds: a thread of its own that looks at them once a second.
//!
//! It lives as long as the supervisor, whatever vLLM is doing. A vLLM that is left running is not
//! watched until the next supervisor comes.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::cutting::cut;

/// How often the logs are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// How much of vLLM's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The room on the disk that the log of one launch may take, in bytes.
    pub max_bytes: u64,
    /// Of how many launches the logs are kept, the present one included.
    pub keep: usize,
}

/// See the module. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Wakes the thread from its pause by being dropped.
    _alive: Sender<()>,
}

impl Keeper {
    pub(super) fn start(
        directory: PathBuf,
        bounds: LogBounds,
        present: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let (alive, ended) = channel();
        let watch = move || {
            let mut told = None;
            loop {
                let outcome = keep(&directory, bounds, present.load(Ordering::Relaxed));
                let outcome = outcome.map_err(|error| error.kind());
                if let Err(kind) = outcome
                    && told != Some(kind)
                {
                    tracing::error!(%kind, "vLLM's logs cannot be kept within their bounds");
                }
                told = outcome.err();
                match ended.recv_timeout(PAUSE) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("logs".to_owned()).spawn(watch)?;
        Ok(Self { _alive: alive })
    }
}

/// Removes logs that are too old, and cuts those that are too long. One that cannot be cut does not
/// keep the others from it. None is removed before it is known which launch is the `present` one.
pub(super) fn keep(directory: &Path, bounds: LogBounds, present: u64) -> io::Result<()> {
    let most = if present == 0 { usize::MAX } else { bounds.keep };
    let mut outcome = Ok(());
    for (index, (_, path)) in logs(directory, present)?.into_iter().rev().enumerate() {
        let kept = if index < most { cut(&path, bounds.max_bytes) } else { fs::remove_file(&path) };
        // It was removed by somebody else: fine.
        outcome = outcome.and(kept.or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }));
    }
    outcome
}

/// The logs by their launches, oldest first.
fn logs(directory: &Path, present: u64) -> io::Result<Vec<(Age, PathBuf)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let launch = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("vllm-")?.strip_suffix(".log")?.parse().ok());
        logs.extend(launch.map(|launch| (Age::of(launch, present), entry.path())));
    }
    logs.sort();
    Ok(logs)
}

/// The age of a log, by the number of its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// It has a number that was not given yet: numbering has begun anew since, with a new journal.
    OfEarlierJournal(u64),
    OfThisJournal(u64),
}

impl Age {
    fn of(launch: u64, present: u64) -> Self {
        // The next one may have been begun already.
        if launch > present.saturating_add(1) {
            Self::OfEarlierJournal(launch)
        } else {
            Self::OfThisJournal(launch)
        }
    }
}
