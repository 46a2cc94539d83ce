//! Keeps the logs within bounds, and secrets out of them: a thread of its own that looks at them once a
//! second.
//!
//! It lives as long as the supervisor, whatever vLLM is doing. A vLLM that is left running is not
//! watched until the next supervisor comes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::cutting::cut;
use super::masking::Masker;
use super::writing::take;
use crate::adapters::directory::Directory;
use crate::adapters::state_directory::{HeldDirectory, LOGS};
use crate::adapters::system_error::if_present;

/// How often the logs are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// How much of vLLM's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The room on the disk that the log of one launch may take, in bytes.
    pub max_bytes: u64,
    /// Of how many launches the logs are kept, the present one included. One that is still written
    /// is kept in any case.
    pub keep: usize,
}

/// How long the thread's last look may hold up who drops this: a disk may hang.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// See the module. The thread looks once more and ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Wakes the thread from its pause by being dropped.
    alive: Option<Sender<()>>,
    /// Closed by the thread when it ends.
    done: Mutex<Receiver<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.alive.take());
        // Whatever comes of it, it is over.
        self.done.get_mut().map(|done| done.recv_timeout(LAST_LOOK)).ok();
    }
}

impl Keeper {
    pub(super) fn start(
        state: HeldDirectory,
        bounds: LogBounds,
        present: Arc<AtomicU64>,
        mut masker: Masker,
    ) -> io::Result<Self> {
        let (alive, ended) = channel();
        let (end, done) = channel();
        let watch = move || {
            let _end: Sender<()> = end;
            let (mut told, mut is_over) = (None, false);
            loop {
                let present = present.load(Ordering::Relaxed);
                let logs = state.now().below(LOGS);
                let outcome = logs.and_then(|logs| keep(&logs, bounds, present, &mut masker));
                let outcome = outcome.map_err(|error| error.kind());
                if let Err(kind) = outcome
                    && told != Some(kind)
                {
                    tracing::error!(%kind, "vLLM's logs cannot be kept within their bounds, nor secrets out of them");
                }
                told = outcome.err();
                if is_over {
                    return;
                }
                // What was written last is looked through once more.
                is_over = ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
            }
        };
        std::thread::Builder::new().name("logs".to_owned()).spawn(watch)?;
        Ok(Self { alive: Some(alive), done: Mutex::new(done) })
    }
}

/// Removes logs that are too old, and cuts those that are too long. One that cannot be cut does not
/// keep the others from it. None is removed before it is known which launch is the `present` one.
pub(super) fn keep(
    logs: &Directory,
    bounds: LogBounds,
    present: u64,
    masker: &mut Masker,
) -> io::Result<()> {
    let most = if present == 0 { usize::MAX } else { bounds.keep };
    let mut outcome = Ok(());
    let names: Vec<String> =
        latest_first(logs, present)?.into_iter().map(|(_, name)| name).collect();
    masker.forget_others(&names);
    for (index, name) in names.into_iter().enumerate() {
        let masked = masker.mask(logs, &name);
        let kept = if index < most {
            cut(logs, &name, bounds.max_bytes)
        } else {
            remove(logs, &name, bounds.max_bytes)
        };
        // It was removed by somebody else: fine.
        outcome = outcome.and(if_present(masked.and(kept), &[Errno::NOENT]).map(drop));
    }
    outcome
}

/// Removes a log, unless it is written still: then its room is bounded.
fn remove(logs: &Directory, name: &str, max_bytes: u64) -> io::Result<()> {
    let log = logs.open_file(name, OFlags::RDWR)?;
    if take(&log)? { logs.remove(name) } else { cut(logs, name, max_bytes) }
}

/// The logs by their launches.
fn latest_first(logs: &Directory, present: u64) -> io::Result<Vec<(Age, String)>> {
    let age_of = |name: &str| {
        let launch = name.strip_prefix("vllm-")?.strip_suffix(".log")?.parse().ok()?;
        Some(Age::of(launch, present))
    };
    let names = logs.names()?.into_iter();
    let mut logs: Vec<_> = names.filter_map(|name| Some((age_of(&name)?, name))).collect();
    logs.sort_by(|one, other| other.cmp(one));
    Ok(logs)
}

/// The age of a log, by the number of its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// It has a number that was not given yet: numbering has begun anew since, with a new journal.
    OfEarlierJournal(u64),
    OfThisJournal(u64),
    /// That of the present launch, whatever numbers others have.
    Present,
}

impl Age {
    fn of(launch: u64, present: u64) -> Self {
        match launch {
            launch if launch == present => Self::Present,
            // The next one may have been begun already.
            launch if launch > present.saturating_add(1) => Self::OfEarlierJournal(launch),
            launch => Self::OfThisJournal(launch),
        }
    }
}
