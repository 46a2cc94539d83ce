//! What one input to a machine led to.

use super::*;

/// What one input led to.
#[derive(Clone, Debug)]
pub(in super::super) struct Outcome {
    /// The states it went to, in order.
    pub(in super::super) path: Vec<ServiceState>,
    pub(in super::super) effects: Vec<Effect>,
    pub(in super::super) events: Vec<EventKind>,
    pub(in super::super) answers: Vec<(Ticket, Answer)>,
}

impl Outcome {
    /// The incarnation that is launched, if one is.
    pub(in super::super) fn launched(&self) -> Option<u64> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Launch { incarnation, .. } => Some(incarnation.get()),
            Effect::Adopt
            | Effect::Watch { .. }
            | Effect::FinishLoading { .. }
            | Effect::Probe { .. }
            | Effect::Disregard
            | Effect::Drain { .. }
            | Effect::End
            | Effect::Stop { .. }
            | Effect::Clear { .. }
            | Effect::Sample { .. }
            | Effect::FeelPulse { .. }
            | Effect::AskForToken { .. }
            | Effect::Schedule { .. }
            | Effect::Rest
            | Effect::Prepare { .. }
            | Effect::Compare { .. }
            | Effect::Diagnose { .. }
            | Effect::Remember { .. } => None,
        })
    }

    /// How it is launched, if it is.
    pub(in super::super) fn method(&self) -> Option<LaunchMethod> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Launch { method, .. } => Some(*method),
            _ => None,
        })
    }

    /// What is to be kept of launches.
    pub(in super::super) fn memories(&self) -> Vec<&Memory> {
        let effects = self.effects.iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Remember { memory, .. } => Some(memory),
                _ => None,
            })
            .collect()
    }

    /// How long the timer for this runs, if it is set.
    pub(in super::super) fn scheduled(&self, what: Timer) -> Option<Duration> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Schedule { timer, after, .. } if *timer == what => Some(*after),
            _ => None,
        })
    }

    /// Whether nothing at all came of it.
    pub(in super::super) fn is_nothing(&self) -> bool {
        self.effects.is_empty() && self.events.is_empty()
    }
}
