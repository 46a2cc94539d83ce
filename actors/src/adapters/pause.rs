//! A pause of a thread of our own.

use std::time::Duration;

use rustix::event::{Timespec, poll};

/// Waits so long. Interrupted by a signal it is shorter, which is no harm to whoever looks again
/// after it. It allocates nothing and takes no lock: a guardian pauses so as well.
pub(super) fn pause(time: Duration) {
    // One too long to be told would be for ever.
    poll(&mut [], Timespec::try_from(time).ok().as_ref()).ok();
}
