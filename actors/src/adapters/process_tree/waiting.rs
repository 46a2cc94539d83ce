//! A pause that ends early when there is something to be seen.

use std::sync::Arc;

use rustix::event::{PollFd, Timespec, poll};

use crate::adapters::ownership::Held;

/// Waits until one of them has ended, a tenth of a second at most: others may have come meanwhile.
pub(super) fn wait_for_one(living: &[Arc<Held>]) {
    let mut descriptors: Vec<PollFd<'_>> = living.iter().map(|held| held.descriptor()).collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    if let Err(error) = poll(&mut descriptors, Some(&limit)) {
        tracing::debug!(%error, "a wait was cut short");
    }
}
