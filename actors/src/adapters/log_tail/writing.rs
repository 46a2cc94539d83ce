//! The log that a launch writes, from its beginning until nobody has it open any more.
//!
//! Every process of a launch inherits its output, and with it a shared lock of flock(2) on the log:
//! the kernel keeps that until the last of them has closed it, whoever supervises them by then. So
//! whether a log is written is asked of the log, not inferred from the number of its launch.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FlockOperation, OFlags, fcntl_setfl, flock};
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use super::LaunchLog;
use crate::adapters::pause::pause;

/// How long an old log may take to be removed once it is locked for that.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

/// The pause between two attempts to lock a log.
const PAUSE: Duration = Duration::from_millis(5);

impl LaunchLog {
    /// Makes it, empty, for the launch to write to. Neither a link nor a FIFO is written to.
    pub(in crate::adapters) fn begin(&self) -> io::Result<File> {
        loop {
            // Appending, so that whoever shortens the file makes room at once.
            let how = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
            let log = self.directory.open_file(&self.name, how)?;
            if let Err(error) = share(&log) {
                // Then it cannot be locked to be removed either.
                tracing::warn!(%error, path = %self.path().display(), "vLLM's log cannot be locked");
            }
            if log.metadata()?.nlink() > 0 {
                log.set_len(0)?;
                // It was opened so as to wait for nobody; vLLM's output is as any other.
                fcntl_setfl(&log, OFlags::APPEND)?;
                return Ok(log);
            }
        }
    }
}

/// Locks it for all that write to it. Whoever holds it alone for a moment is about to remove an old
/// log with this name; somebody who holds it for longer holds up no launch.
fn share(log: &File) -> Result<(), Errno> {
    let began = Instant::now();
    loop {
        match flock(log, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) if began.elapsed() < REMOVED_WITHIN => pause(PAUSE),
            locked => return locked,
        }
    }
}

/// Takes a log that no launch writes any more for oneself, for as long as the file is open; tells
/// whether nobody does.
pub(super) fn take(log: &File) -> io::Result<bool> {
    match flock(log, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
