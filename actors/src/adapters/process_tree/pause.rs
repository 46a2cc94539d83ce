//! Pauses of a thread of our own, which end early when there is something to be seen.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};

use crate::adapters::ownership::Held;

/// Waits until one of them has ended, a tenth of a second at most: others may have come meanwhile.
pub(super) fn wait_for_one(living: &[Arc<Held>]) {
    let mut descriptors: Vec<PollFd<'_>> = living.iter().map(|held| held.descriptor()).collect();
    wait(&mut descriptors, Duration::from_millis(100));
}

pub(super) fn pause(time: Duration) {
    wait(&mut [], time);
}

fn wait(descriptors: &mut [PollFd<'_>], limit: Duration) {
    // One too long to be told would be for ever.
    let limit = Timespec::try_from(limit).ok();
    if let Err(error) = poll(descriptors, limit.as_ref()) {
        tracing::debug!(%error, "a wait was cut short");
    }
}
