//! Since when the service is gone, by ends that nobody asked for.

use std::time::Duration;

use crate::domain::id::Incarnation;
use crate::domain::incident::Recovery;
use crate::domain::moment::Moment;

/// That the service is gone, by ends that nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// When the first of them was, on the monotonic clock.
    since: Duration,
    /// Whose that was.
    first: Incarnation,
    incidents: u32,
}

impl Outage {
    /// The service is gone, if it was not before, with the end of this launch.
    pub(super) fn suffer(known: &mut Option<Self>, first: Incarnation, now: Moment) {
        let since = now.monotonic;
        let outage = known.get_or_insert(Self { since, first, incidents: 0 });
        outage.incidents = outage.incidents.saturating_add(1);
    }

    /// The launch whose end it began with turns out to have another number.
    pub(super) fn rename(known: &mut Option<Self>, from: Incarnation, to: Incarnation) {
        if let Some(outage) = known.as_mut().filter(|it| it.first == from) {
            outage.first = to;
        }
    }

    /// The service runs again, by this launch.
    pub(super) fn over(self, incarnation: Incarnation, now: Moment) -> Recovery {
        let Self { since, first, incidents } = self;
        let downtime = now.monotonic.saturating_sub(since);
        Recovery { at: now.wall, incarnation, first, downtime, incidents }
    }
}
