//! Since when the service is gone, by ends that nobody asked for.

use std::time::Duration;

use super::Turn;
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::incident::Recovery;

/// That the service is gone, by ends that nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// When the first of them was, on the monotonic clock.
    since: Duration,
    /// Whose that was.
    first: Incarnation,
    incidents: u32,
}

impl Turn<'_> {
    /// The service is gone, if it was not before, with the end of this launch.
    pub(super) fn suffer_outage(&mut self, first: Incarnation) {
        let since = self.now.monotonic;
        let outage = self.machine.outage.get_or_insert(Outage { since, first, incidents: 0 });
        outage.incidents = outage.incidents.saturating_add(1);
    }

    /// The launch whose crash is not judged yet turns out to have another number.
    pub(super) fn rename_crash(&mut self, from: Incarnation, to: Incarnation) {
        self.machine.exits.rename(to);
        if let Some(outage) = self.machine.outage.as_mut().filter(|it| it.first == from) {
            outage.first = to;
        }
    }

    /// The service runs.
    pub(super) fn recover(&mut self, incarnation: Incarnation) {
        if let Some(Outage { since, first, incidents }) = self.machine.outage.take() {
            let downtime = self.now.monotonic.saturating_sub(since);
            let recovery = Recovery { at: self.now.wall, incarnation, first, downtime, incidents };
            self.emit(EventKind::ServiceRecovered { recovery });
        }
    }
}
