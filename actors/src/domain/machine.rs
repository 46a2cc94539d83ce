//! The whole of the lifecycle: what is told in [`Input`], what is done in [`Effect`], what is said
//! in [`Event`].
//!
//! The law: the state changes if and only if one `StateChanged` event is emitted, and every event
//! has the number after that of the event before it. `machine/tests` hold the exhaustive table,
//! the properties and an exploration of everything reachable.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::domain::cause::Cause;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::{Effect, Input, Reaction, RestartRecord, Timer};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::moment::Moment;
use crate::domain::report::Work;
use crate::domain::restart::{RestartLedger, Verdict};
use crate::domain::spec::{ModelId, ServiceSpec};
use crate::domain::state::{
    Crashed, Next, Remains, Running, Starting, State, Stopping, Then, Unknown, Voice,
};

mod commands;
mod reports;

/// Where numbering goes on from, after an earlier supervisor with the same journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The last event's number.
    pub sequence: Sequence,
    /// The last launch's number.
    pub incarnation: Incarnation,
}

/// The service, as far as the rules are concerned.
#[derive(Clone, Debug)]
pub struct Machine {
    spec: ServiceSpec,
    state: State,
    /// What is served, or would be at the next launch.
    model: ModelId,
    /// What to bring back if the switch under way fails.
    fallback: Option<ModelId>,
    ledger: RestartLedger,
    last_error: Option<Cause>,
    incarnation: Incarnation,
    sequence: Sequence,
    /// How many switches ended with the old model brought back.
    reverted_switches: u64,
}

impl Machine {
    /// A service of which nothing is known yet. [`Machine::begin`] looks.
    pub fn new(spec: ServiceSpec, resume: Resume) -> Self {
        Self {
            model: spec.model.clone(),
            spec,
            state: State::Unknown(Unknown {
                incarnation: None,
                then: Then::Settle,
                lingering: None,
            }),
            fallback: None,
            ledger: RestartLedger::default(),
            last_error: None,
            incarnation: resume.incarnation,
            sequence: resume.sequence,
            reverted_switches: 0,
        }
    }

    /// The first thing to do: look for what an earlier supervisor left.
    pub fn begin(&self) -> Reaction {
        Reaction { effects: vec![Effect::Adopt], events: Vec::new() }
    }

    /// Takes one input.
    pub fn on(&mut self, input: Input, now: Moment) -> Reaction {
        let mut turn = Turn { machine: self, now, reaction: Reaction::default() };
        match input {
            Input::Start => turn.start(),
            Input::Ensure => turn.ensure(),
            Input::Stop(mode) => turn.stop(mode),
            Input::Restart => turn.restart(),
            Input::Load(model) => turn.load(model),
            Input::Process(report) => turn.process(report),
            Input::Health(report) => turn.health(report),
            Input::Loader(report) => turn.loader(report),
            Input::Due(timer, incarnation) => turn.due(timer, incarnation),
            Input::ProcessActorLost => turn.process_actor_lost(),
        }
        turn.reaction
    }

    /// The state and its data.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is served, or would be at the next launch.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// The figures it decides by.
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// The restarts so far.
    pub fn ledger(&self) -> &RestartLedger {
        &self.ledger
    }

    /// The last failure; cleared when the service is healthy again or an operator starts it. The
    /// history keeps all of them.
    pub fn last_error(&self) -> Option<&Cause> {
        self.last_error.as_ref()
    }

    /// The number of the last launch.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How many switches ended with the old model brought back.
    pub fn reverted_switches(&self) -> u64 {
        self.reverted_switches
    }
}

/// One input being taken: the machine, the time, and what comes of it.
struct Turn<'a> {
    machine: &'a mut Machine,
    now: Moment,
    reaction: Reaction,
}

impl Turn<'_> {
    fn effect(&mut self, effect: Effect) {
        self.reaction.effects.push(effect);
    }

    fn emit(&mut self, kind: EventKind) {
        let machine = &mut *self.machine;
        machine.sequence = machine.sequence.next();
        self.reaction.events.push(Event {
            sequence: machine.sequence,
            at: self.now.wall,
            incarnation: machine.state.incarnation().unwrap_or(machine.incarnation),
            kind,
        });
    }

    /// The only place where the state changes.
    fn enter(&mut self, next: State, cause: Option<Cause>) {
        let (from, to) = (self.machine.state.tag(), next.tag());
        debug_assert_ne!(from, to, "a state is changed by an event, and the event names two");
        self.machine.state = next;
        self.emit(EventKind::StateChanged { from, to, cause });
    }

    fn launch(&mut self) {
        let incarnation = self.machine.incarnation.next();
        self.machine.incarnation = incarnation;
        let model = self.machine.model.clone();
        self.enter(self.starting(incarnation, None), None);
        self.effect(Effect::Launch { incarnation, model });
        self.schedule_silence(incarnation, self.machine.spec.start_timeout);
    }

    /// Takes over what an earlier supervisor, or process actor, left running.
    fn attend(&mut self, incarnation: Incarnation, pid: u32, model: ModelId) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.machine.model = model;
        self.enter(self.starting(incarnation, Some(pid)), None);
        self.effect(Effect::Attend { incarnation });
        self.schedule_silence(incarnation, self.machine.spec.start_timeout);
    }

    fn starting(&self, incarnation: Incarnation, pid: Option<u32>) -> State {
        State::Starting(Starting {
            incarnation,
            pid,
            since: self.now,
            voice: Voice::Silent,
            last_sign: self.now,
            work: (self.now, Work::default()),
            progress: None,
            misses: 0,
        })
    }

    /// Asks again after a quarter of the timeout, so that a stall is found at most a quarter late.
    fn schedule_silence(&mut self, incarnation: Incarnation, timeout: Duration) {
        let after = timeout / 4;
        self.effect(Effect::Schedule { timer: Timer::Silence, incarnation, after });
    }

    /// Nothing is alive: does what was wished for.
    fn settle(&mut self, then: Then) {
        self.enter(State::Stopped, None);
        match then {
            Then::Launch => self.launch(),
            Then::Rest | Then::Settle => {}
        }
    }

    /// The current launch failed: judges the failure and says what follows.
    fn fail(&mut self, incarnation: Incarnation, cause: Cause, remains: Remains) {
        let (healthy_for, progress) = self.what_it_had_come_to();
        let model = self.machine.model.clone();
        self.machine.last_error = Some(cause.clone());
        self.effect(Effect::Disregard);
        if remains == Remains::Clearing {
            self.effect(Effect::Clear { incarnation });
        }
        let restored = if healthy_for.is_none() { self.machine.fallback.take() } else { None };
        let machine = &mut *self.machine;
        let verdict = if let Some(model) = restored {
            machine.model = model;
            machine.reverted_switches += 1;
            None
        } else {
            let policy = &machine.spec.restart;
            Some(machine.ledger.judge(policy, &cause, healthy_for, self.now))
        };
        self.record(incarnation, model, &cause, healthy_for, verdict.as_ref());
        if let Some(progress) = progress {
            let progress = progress.failed();
            self.emit(EventKind::LoadProgressed { progress });
        }
        self.crash(incarnation, cause, remains, verdict.as_ref());
    }

    fn crash(
        &mut self,
        incarnation: Incarnation,
        cause: Cause,
        remains: Remains,
        verdict: Option<&Verdict>,
    ) {
        let next = match verdict {
            None => Next::RestartNow,
            Some(Verdict::Restart { delay, .. }) => Next::RestartAt(self.now.wall + *delay),
            Some(Verdict::GiveUp(last)) => Next::GiveUp(last.clone()),
        };
        let crashed = Crashed { incarnation, cause: cause.clone(), remains, next };
        self.enter(State::Crashed(crashed), Some(cause));
        if let Some(&Verdict::Restart { attempt, delay }) = verdict {
            let restarts_in_window = self.machine.ledger.in_window(self.now);
            self.emit(EventKind::RestartScheduled { attempt, delay, restarts_in_window });
            let timer = Timer::Restart;
            self.effect(Effect::Schedule { timer, incarnation, after: delay });
        }
        self.follow_crash();
    }

    /// Goes on from a crash once nothing is left of it.
    fn follow_crash(&mut self) {
        let State::Crashed(crashed) = &self.machine.state else { return };
        if crashed.remains != Remains::Gone {
            return;
        }
        match crashed.next.clone() {
            Next::RestartAt(_) => {}
            Next::RestartNow => {
                self.machine.ledger.launched(self.now);
                self.launch();
            }
            Next::GiveUp(cause) => {
                self.machine.last_error = Some(cause.clone());
                self.enter(State::Failed { cause: cause.clone() }, Some(cause));
            }
        }
    }

    fn record(
        &mut self,
        incarnation: Incarnation,
        model: ModelId,
        cause: &Cause,
        healthy_for: Option<Duration>,
        verdict: Option<&Verdict>,
    ) {
        let restart_after = match verdict {
            None => Some(Duration::ZERO),
            Some(Verdict::Restart { delay, .. }) => Some(*delay),
            Some(Verdict::GiveUp(_)) => None,
        };
        self.effect(Effect::Record(RestartRecord {
            at: self.now.wall,
            incarnation,
            model,
            cause: cause.clone(),
            healthy_for,
            restart_after,
        }));
    }

    /// How long it was healthy, and how far it had loaded if it never was.
    fn what_it_had_come_to(&self) -> (Option<Duration>, Option<ModelLoadProgress>) {
        match &self.machine.state {
            State::Running(running) => (Some(self.now.since(running.since)), None),
            State::Starting(starting) => (None, starting.progress.clone()),
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => (None, None),
        }
    }

    fn max_failures(&self) -> NonZeroU32 {
        self.machine.spec.max_consecutive_failures
    }
}

#[cfg(test)]
mod tests;
