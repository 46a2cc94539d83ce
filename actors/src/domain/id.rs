//! Numbers that tell launches and events apart.

use std::fmt;

/// Numbers our launches of vLLM, from 1, across restarts of the supervisor.
///
/// Everything that can arrive late carries the incarnation it belongs to, so that the past cannot
/// act on the present. (*Generation* would be the usual word; in this field it means text.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Before the first launch.
    pub const NONE: Self = Self(0);

    /// The incarnation with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number; 0 before the first launch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The launch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers the public events, from 1, without a gap, across restarts of the supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Before the first event.
    pub const NONE: Self = Self(0);

    /// The sequence number `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number; 0 before the first event.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of the event after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
