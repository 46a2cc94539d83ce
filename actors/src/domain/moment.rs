//! Time as the rules see it: an argument.

use std::time::{Duration, SystemTime};

/// One reading of both clocks, taken by an actor when something reached it.
///
/// The rules decide by the monotonic clock only; the wall clock is for people and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since an arbitrary origin that is fixed for the life of the supervisor.
    pub monotonic: Duration,
    /// The date and time to show and to store. It may jump.
    pub wall: SystemTime,
}

impl Moment {
    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.monotonic.saturating_sub(earlier.monotonic)
    }
}
