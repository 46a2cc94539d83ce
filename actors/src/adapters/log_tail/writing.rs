//! The log that a launch writes, from its beginning until nobody has it open any more.
//!
//! Every process of a launch inherits its output, and with it a shared lock of flock(2) on the log:
//! the kernel keeps that until the last of them has closed it, whoever supervises them by then. So
//! whether a log is written is asked of the log, not inferred from the number of its launch.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FlockOperation, OFlags, fcntl_setfl, flock};
use rustix::io::{Errno, retry_on_intr};

use super::LaunchLog;

impl LaunchLog {
    /// Makes it, empty, for the launch to write to. Neither a link nor a FIFO is written to.
    pub(in crate::adapters) fn begin(&self) -> io::Result<File> {
        loop {
            // Appending, so that whoever shortens the file makes room at once.
            let how = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
            let log = self.directory.open_file(&self.name, how)?;
            // Whoever holds it alone is just about to remove an old log with this name.
            if let Err(error) = retry_on_intr(|| flock(&log, FlockOperation::LockShared)) {
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

/// Takes a log that no launch writes any more for oneself, for as long as the file is open; tells
/// whether nobody does.
pub(super) fn take(log: &File) -> io::Result<bool> {
    match flock(log, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
