//! Ends that nobody asked for: what is told of them, and when it is known what follows.

use std::time::Duration;

use super::{Fallen, Follows, Turn, View};
use crate::domain::cause::Cause;
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::incident::{Incident, ProcessExit};
use crate::domain::outage::Outage;
use crate::domain::report::Role;
use crate::domain::ticket::CommandError;

impl Turn<'_> {
    /// It has ended by itself, or is judged dead. `exit` is how its main process ended.
    pub(super) fn fall(&mut self, cause: Cause, exit: Option<Exit>, follows: Follows) {
        let healthy_for = match &self.watch.view {
            View::Running(serving) => Some(self.now.since(serving.since)),
            View::Unknown
            | View::Stopped
            | View::Starting { .. }
            | View::Stopping
            | View::Crashed(_)
            | View::Failed { .. } => None,
        };
        let pid = self.watch.asked.and_then(|run| run.pid);
        self.watch.last_error = Some(cause.clone());
        Outage::suffer(&mut self.watch.outage, self.watch.incarnation, self.now);
        if matches!(follows, Follows::Undecided | Follows::Restart | Follows::Nothing) {
            self.cease();
        }
        let fallen = Fallen {
            cause: cause.clone(),
            at: self.now.wall,
            healthy_for,
            exit: pid.zip(exit),
            follows: Follows::Undecided,
        };
        self.enter(View::Crashed(Box::new(fallen)), Some(cause));
        if follows != Follows::Undecided {
            self.decide(follows, None);
        }
    }

    /// What follows an end is known now. `after` is how long its manager waits with a restart.
    pub(super) fn decide(&mut self, follows: Follows, after: Option<Duration>) {
        let View::Crashed(fallen) = &mut self.watch.view else { return };
        let was = std::mem::replace(&mut fallen.follows, follows);
        let fallen = fallen.clone();
        match was {
            Follows::Undecided => self.record(&fallen, after),
            // It is there no more.
            Follows::Answer | Follows::Token => self.cease(),
            Follows::Restart | Follows::Nothing => {}
        }
        match follows {
            Follows::Restart if was != Follows::Restart => {
                let attempt = self.watch.unit.as_ref().map_or(0, |unit| unit.restarts);
                // This one included.
                let restarts_in_window = self.watch.ledger.in_window(self.now).saturating_add(1);
                if let Some(delay) = after {
                    let attempt = attempt.saturating_add(1);
                    let kind = EventKind::RestartScheduled { attempt, delay, restarts_in_window };
                    self.emit(kind);
                }
            }
            Follows::Nothing => self.disappoint(&CommandError::Failed(fallen.cause)),
            Follows::Restart | Follows::Undecided | Follows::Answer | Follows::Token => {}
        }
    }

    /// Nobody will say what follows an end any more: it is kept as it is.
    pub(super) fn settle(&mut self) {
        if let View::Crashed(fallen) = &mut self.watch.view
            && fallen.follows == Follows::Undecided
        {
            fallen.follows = Follows::Nothing;
            let fallen = fallen.clone();
            self.record(&fallen, None);
        }
    }

    fn record(&mut self, fallen: &Fallen, restart_after: Option<Duration>) {
        let Fallen { cause, at, healthy_for, exit, .. } = fallen.clone();
        let exits = exit.map(|(pid, exit)| ProcessExit::new(pid, Role::ApiServer, exit));
        let incarnation = self.watch.incarnation;
        let model = self.watch.spec.target.model.clone();
        let incident = Incident {
            healthy_for,
            restart_after,
            exits: exits.into_iter().collect(),
            ..Incident::new(at, incarnation, model, cause)
        };
        self.emit(EventKind::IncidentRecorded { incident: Box::new(incident) });
    }

    /// It serves again.
    pub(super) fn recover(&mut self) {
        if let Some(outage) = self.watch.outage.take() {
            let recovery = outage.over(self.watch.incarnation, self.now);
            self.emit(EventKind::ServiceRecovered { recovery });
        }
    }
}
