//! A tiny honest world: it does what the effects ask, and reports only what its processes really
//! do, in the order in which it happened, but possibly late.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::script::{
    adopted, diagnosed, drained, exited, healthy, launch_failed, launched, lingered, loader,
    look_failed, model_missing, no, nothing_found, progress, remnant_found, sampled, unhealthy,
    vacated,
};
use crate::domain::cause::Code;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, Input, Timer};
use crate::domain::loading::LoadNews;
use crate::domain::report::ProcessReport;

mod outlook;

/// Everything outside of the machine that can make it move, operators apart.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// Launches of which something is alive, or about to be.
    lives: BTreeMap<u64, Life>,
    /// What the process actor has said and the root has not yet heard.
    mail: VecDeque<Input>,
    /// Whether the process actor is looking for what was left.
    looking: bool,
    /// What it was told to end before the look was over.
    owed: Option<u64>,
    /// Whom the health actor probes.
    probed: Option<u64>,
    /// Whose requests are waited for.
    drained: Option<u64>,
    /// Whose log the loader reads.
    read: Option<u64>,
    /// Whose log is read for why it ended.
    diagnosed: Option<u64>,
    /// When which timer runs out.
    timers: Vec<(Duration, Timer, u64)>,
}

/// A launch of which something is alive, or about to be.
#[derive(Clone, Debug)]
struct Life {
    stage: Stage,
    /// Whether the present process actor knows of it.
    ownership: Ownership,
    model: String,
    /// How far it has loaded.
    percent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Ordered; it may yet fail to start.
    Ordered,
    /// The main process is alive.
    Whole,
    /// The main process is dead; others are alive.
    Headless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// The actor that held it is gone, and none has found it yet.
    Nobody,
    Held,
    /// Being stopped or cleared.
    Ending,
    /// Being stopped or cleared, and reported to outlive it.
    Lingering,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The root hears the next word of the process actor.
    Hear,
    Start(u64),
    FailToStart(u64),
    /// The main process dies.
    Die(u64),
    /// The last of it dies.
    Vanish(u64),
    Linger(u64),
    /// The system does not let it look; it goes on.
    FailToLook,
    /// The look ends, and finds what there is.
    Find(Fitness),
    PassCheck(u64),
    FailCheck(u64),
    MissModel(u64),
    LoadFurther(u64),
    /// The requests that ran have been answered.
    Drain(u64),
    /// What it has written has been read.
    Diagnose(u64),
    RingTimer(usize),
}

/// Whether a whole process that is found is what would be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    Fit,
    Unfit,
}

/// What becomes of the processes of an actor that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrphanOutcome {
    Killed,
    Kept,
}

impl World {
    /// A world in which an earlier supervisor has left this launch, whole.
    pub(super) fn with_whole(incarnation: u64) -> Self {
        Self::with_left(incarnation, Stage::Whole)
    }

    /// A world in which an earlier supervisor has left a launch without its head.
    pub(super) fn with_headless(incarnation: u64) -> Self {
        Self::with_left(incarnation, Stage::Headless)
    }

    fn with_left(incarnation: u64, stage: Stage) -> Self {
        let ownership = Ownership::Nobody;
        let life = Life { stage, ownership, model: "org/a".to_owned(), percent: 0 };
        Self { lives: BTreeMap::from([(incarnation, life)]), ..Self::default() }
    }

    /// Whether nothing is alive.
    pub(super) fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }

    /// Does what an effect asks.
    pub(super) fn obey(&mut self, effect: &Effect, now: Duration) {
        match effect {
            Effect::Adopt => self.looking = true,
            Effect::Launch { incarnation, target, .. } => {
                assert!(self.lives.is_empty(), "launched {incarnation} while {self:?}");
                let (stage, ownership) = (Stage::Ordered, Ownership::Held);
                let life = Life { stage, ownership, model: target.model.to_string(), percent: 0 };
                let incarnation = incarnation.get();
                // A look that is still under way would only find what is launched now.
                self.looking = false;
                self.lives.insert(incarnation, life);
                self.probed = Some(incarnation);
                self.read = Some(incarnation);
            }
            Effect::Watch { incarnation } => self.probed = Some(incarnation.get()),
            Effect::FinishLoading { .. } => self.read = None,
            Effect::Disregard => {
                self.probed = None;
                self.read = None;
                self.drained = None;
            }
            Effect::Diagnose { incarnation } => self.diagnosed = Some(incarnation.get()),
            Effect::Drain { incarnation } => self.drained = Some(incarnation.get()),
            Effect::Stop { incarnation, .. } | Effect::Clear { incarnation } => {
                // What is told to stop is not drained any more: its timer rings in vain.
                self.timers.retain(|(_, timer, _)| *timer != Timer::Drain);
                self.end(incarnation.get());
            }
            Effect::Sample { incarnation } => {
                self.mail.push_back(sampled(incarnation.get(), Duration::ZERO));
            }
            Effect::Schedule {
                timer: timer @ (Timer::Restart | Timer::Silence | Timer::Drain | Timer::Diagnosis),
                incarnation,
                after,
            } => {
                self.timers.push((now + *after, *timer, incarnation.get()));
            }
            // The supervisor's own timers change nothing but what is shown.
            Effect::Probe { .. }
            | Effect::Rest
            | Effect::Prepare { .. }
            | Effect::Compare { .. }
            | Effect::Remember { .. }
            | Effect::FeelPulse { .. }
            | Effect::AskForToken { .. }
            | Effect::End
            | Effect::Schedule { timer: Timer::Window | Timer::Vitals | Timer::End, .. } => {}
        }
    }

    fn end(&mut self, incarnation: u64) {
        match self.lives.get_mut(&incarnation) {
            Some(life) if life.ownership != Ownership::Nobody => life.ownership = Ownership::Ending,
            Some(_) | None if self.looking => self.owed = Some(incarnation),
            Some(_) | None => self.mail.push_back(vacated(incarnation)),
        }
    }

    /// Lets something happen, and tells what the root hears of it at once.
    pub(super) fn take(&mut self, step: Step) -> Option<Input> {
        match step {
            Step::Hear => return self.mail.pop_front(),
            Step::Start(incarnation) => {
                self.life(incarnation).stage = Stage::Whole;
                self.mail.push_back(launched(incarnation));
            }
            Step::FailToStart(incarnation) => {
                let life = self.lives.remove(&incarnation);
                self.mail.push_back(launch_failed(incarnation, Code::PortInUse));
                if life.is_some_and(|life| life.ownership == Ownership::Ending) {
                    self.mail.push_back(vacated(incarnation));
                }
            }
            Step::Die(incarnation) => self.die(incarnation),
            Step::Vanish(incarnation) => self.vanish(incarnation),
            Step::Linger(incarnation) => {
                self.life(incarnation).ownership = Ownership::Lingering;
                self.mail.push_back(lingered(incarnation));
            }
            Step::FailToLook => self.mail.push_back(look_failed()),
            Step::Find(fitness) => self.find(fitness),
            Step::PassCheck(incarnation) => return Some(healthy(incarnation)),
            Step::FailCheck(incarnation) => return Some(unhealthy(incarnation)),
            Step::MissModel(incarnation) => return Some(model_missing(incarnation)),
            Step::LoadFurther(incarnation) => {
                let life = self.life(incarnation);
                life.percent = (life.percent + 33).min(99);
                let news = LoadNews::Progressed(progress(life.percent));
                return Some(loader(incarnation, news));
            }
            Step::Drain(incarnation) => {
                self.drained = None;
                return Some(drained(incarnation));
            }
            Step::Diagnose(incarnation) => {
                self.diagnosed = None;
                self.mail.push_back(diagnosed(incarnation));
            }
            Step::RingTimer(index) => {
                let (_, timer, incarnation) = self.timers.remove(index);
                return Some(Input::Due(timer, no(incarnation)));
            }
        }
        None
    }

    fn die(&mut self, incarnation: u64) {
        let life = self.life(incarnation);
        life.stage = Stage::Headless;
        if life.ownership != Ownership::Nobody {
            self.mail.push_back(exited(incarnation));
        }
    }

    fn vanish(&mut self, incarnation: u64) {
        if self.life(incarnation).stage == Stage::Whole {
            self.die(incarnation);
        }
        let ownership = self.life(incarnation).ownership;
        self.lives.remove(&incarnation);
        if ownership != Ownership::Nobody {
            self.mail.push_back(vacated(incarnation));
        }
    }

    fn find(&mut self, fitness: Fitness) {
        self.looking = false;
        self.mail.push_back(match self.lives.iter_mut().next() {
            None => nothing_found(),
            Some((&incarnation, life)) => {
                life.ownership = Ownership::Held;
                if (life.stage, fitness) == (Stage::Whole, Fitness::Fit) {
                    adopted(incarnation, &life.model)
                } else {
                    remnant_found(incarnation)
                }
            }
        });
        if let Some(incarnation) = self.owed.take() {
            self.end(incarnation);
        }
    }

    /// The process actor dies. What it has said of a launch is still heard, for that carries an
    /// incarnation; what it has found is not, for the next look would be answered by it.
    pub(super) fn lose_actor(&mut self, outcome: OrphanOutcome) -> Input {
        self.looking = false;
        self.owed = None;
        self.diagnosed = None;
        self.mail.retain(|input| about(input).is_some());
        if outcome == OrphanOutcome::Killed {
            self.lives.clear();
        }
        for life in self.lives.values_mut() {
            life.ownership = Ownership::Nobody;
            if life.stage == Stage::Ordered {
                life.stage = Stage::Whole;
            }
        }
        Input::ProcessActorLost
    }

    /// It has been decided what follows: the table shows that whatever is said of it comes in vain.
    pub(super) fn diagnose_no_longer(&mut self) {
        self.diagnosed = None;
        self.timers.retain(|(_, timer, _)| *timer != Timer::Diagnosis);
        self.mail.retain(|input| !matches!(input, Input::Process(ProcessReport::Diagnosed { .. })));
    }

    fn life(&mut self, incarnation: u64) -> &mut Life {
        self.lives.get_mut(&incarnation).expect("only what lives does something")
    }
}

/// The incarnation that a report or a timer is about. Commands are about none, and the answers to
/// a look are about whatever there is.
pub(super) fn about(input: &Input) -> Option<Incarnation> {
    match input {
        Input::Process(report) => match report {
            ProcessReport::Launched { incarnation, .. }
            | ProcessReport::LaunchFailed { incarnation, .. }
            | ProcessReport::Exited { incarnation, .. }
            | ProcessReport::MemberDied { incarnation, .. }
            | ProcessReport::Diagnosed { incarnation, .. }
            | ProcessReport::Vacated { incarnation, .. }
            | ProcessReport::Lingered { incarnation, .. }
            | ProcessReport::Sampled { incarnation, .. } => Some(*incarnation),
            ProcessReport::Adopted { .. }
            | ProcessReport::RemnantFound { .. }
            | ProcessReport::NothingFound { .. }
            | ProcessReport::LookFailed { .. } => None,
        },
        Input::Health(report) => Some(report.incarnation),
        Input::Loader(report) => Some(report.incarnation),
        Input::Due(
            Timer::Restart | Timer::Silence | Timer::Drain | Timer::Vitals | Timer::Diagnosis,
            incarnation,
        )
        | Input::Felt(incarnation, _)
        | Input::Tried(incarnation, _)
        | Input::Completed(incarnation, _)
        | Input::Drained(incarnation) => Some(*incarnation),
        // The supervisor's own timers are about no launch.
        Input::Due(Timer::Window | Timer::End, _)
        | Input::Request(..)
        | Input::ShutDown
        | Input::Found(_)
        | Input::ProcessActorLost => None,
    }
}
