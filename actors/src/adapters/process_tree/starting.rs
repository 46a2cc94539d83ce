//! A main process that does not run.

use std::io;
use std::process::Child;

use crate::domain::absence::ScanError;

/// Why a main process does not run.
#[derive(Debug)]
pub(in crate::adapters) enum StartError {
    /// The system did not start it.
    NotStarted(io::Error),
    /// It could not be held.
    NotHeld(ScanError),
}

/// Nobody else has waited for it, so its number is its own; whatever it started carries the marker.
pub(super) fn end(mut child: Child) {
    let ended = child.kill().and_then(|()| child.wait());
    if let Err(error) = ended {
        tracing::error!(%error, pid = child.id(), "a process that cannot be held cannot be ended");
    }
}
