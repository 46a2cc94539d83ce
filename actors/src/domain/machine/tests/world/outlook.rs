//! What may happen next in a world, and what tells it from others.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use super::{Fitness, Life, Ownership, Stage, Step, World};
use crate::domain::id::Incarnation;
use crate::domain::machine::tests::cases::kind;
use crate::domain::machine::tests::world::about;

impl World {
    /// Everything that may happen at `now`.
    pub(in crate::domain::machine::tests) fn possible(&self, now: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.mail.is_empty() {
            steps.push(Step::Hear);
        }
        for (&incarnation, life) in &self.lives {
            steps.extend(self.possible_of(incarnation, life));
        }
        steps.extend(self.diagnosed.map(Step::Diagnose));
        // A look waits for a launch that was ordered before it.
        if self.looking && self.lives.values().all(|life| life.stage != Stage::Ordered) {
            steps.push(Step::FailToLook);
            steps.extend([Step::Find(Fitness::Fit), Step::Find(Fitness::Unfit)]);
        }
        let due = self.timers.iter().enumerate().filter(|(_, (at, ..))| *at <= now);
        steps.extend(due.map(|(index, _)| Step::RingTimer(index)));
        steps
    }

    fn possible_of(&self, incarnation: u64, life: &Life) -> Vec<Step> {
        let mut steps = match life.stage {
            Stage::Ordered => vec![Step::Start(incarnation), Step::FailToStart(incarnation)],
            Stage::Whole => vec![Step::Die(incarnation)],
            Stage::Headless => Vec::new(),
        };
        if life.stage == Stage::Ordered {
            return steps;
        }
        match life.ownership {
            Ownership::Held => {}
            Ownership::Nobody | Ownership::Lingering => steps.push(Step::Vanish(incarnation)),
            Ownership::Ending => {
                steps.extend([Step::Vanish(incarnation), Step::Linger(incarnation)]);
            }
        }
        if self.probed == Some(incarnation) {
            steps.push(Step::FailCheck(incarnation));
            if life.stage == Stage::Whole {
                steps.extend([Step::PassCheck(incarnation), Step::MissModel(incarnation)]);
            }
        }
        if self.drained == Some(incarnation) {
            steps.push(Step::Drain(incarnation));
        }
        if self.read == Some(incarnation) && life.stage == Stage::Whole && life.percent < 99 {
            steps.push(Step::LoadFurther(incarnation));
        }
        steps
    }

    /// How many reports wait to be heard.
    pub(in crate::domain::machine::tests) fn unheard(&self) -> usize {
        self.mail.len()
    }

    /// What tells this world from others: launches are the last one or the past, and timers of the
    /// past are nothing (the table shows that they ring in vain).
    pub(in crate::domain::machine::tests) fn shape(&self, last: Incarnation) -> impl Debug {
        let age = |incarnation: u64| last.get().saturating_sub(incarnation).min(1);
        let lives: Vec<_> = self
            .lives
            .iter()
            .map(|(&incarnation, life)| {
                (age(incarnation), life.stage, life.ownership, life.model.clone())
            })
            .collect();
        let mail: Vec<_> = self
            .mail
            .iter()
            .map(|input| (kind(input), about(input).map(|incarnation| age(incarnation.get()))))
            .collect();
        let timers: BTreeSet<_> = self
            .timers
            .iter()
            .filter(|(_, _, incarnation)| age(*incarnation) == 0)
            .map(|(_, timer, _)| format!("{timer:?}"))
            .collect();
        let followed =
            (self.probed.map(age), self.drained.map(age), self.owed.map(age), self.looking);
        let read = self.diagnosed.map(age);
        (lives, mail, timers, followed, read)
    }
}
