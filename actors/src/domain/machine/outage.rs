//! Since when the service is gone, by ends that nobody asked for.

use super::{Outage, Turn};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;

impl Turn<'_> {
    /// The service is gone, if it was not before, with the end of this launch.
    pub(super) fn suffer_outage(&mut self, first: Incarnation) {
        Outage::suffer(&mut self.machine.outage, first, self.now);
    }

    /// The launch whose crash is not judged yet turns out to have another number.
    pub(super) fn rename_crash(&mut self, from: Incarnation, to: Incarnation) {
        self.machine.exits.rename(to);
        Outage::rename(&mut self.machine.outage, from, to);
    }

    /// The service runs.
    pub(super) fn recover(&mut self, incarnation: Incarnation) {
        if let Some(outage) = self.machine.outage.take() {
            let recovery = outage.over(incarnation, self.now);
            self.emit(EventKind::ServiceRecovered { recovery });
        }
    }
}
