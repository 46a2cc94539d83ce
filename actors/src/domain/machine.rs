//! The whole of the lifecycle: what is told in [`Input`], what is done in [`Effect`], what is said
//! in [`Event`].
//!
//! The law: the state changes if and only if one `StateChanged` event is emitted, and every event
//! has the number after that of the event before it. `machine/tests` hold the exhaustive table,
//! the properties and an exploration of everything reachable.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::domain::cause::Cause;
use crate::domain::event::{EndReason, Event, EventKind};
use crate::domain::gpu::GpuFinding;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::{Effect, Input, Reaction};
use crate::domain::moment::Moment;
use crate::domain::outage::Outage;
use crate::domain::phases::Stopwatch;
use crate::domain::report::{LaunchKind, Work};
use crate::domain::restart::RestartLedger;
use crate::domain::spec::ServiceSpec;
use crate::domain::state::{
    Announcement, Cleanup, Crashed, FirstOutput, GivenUp, Loss, Next, Obstacle, Origin,
    Postponement, Running, ServiceState, Silence, Stage, Starting, State, Stopping, Then,
    Undecided, Unknown,
};
use crate::domain::switch::Models;
use crate::domain::target::{Target, Wanted};
use crate::domain::ticket::{CommandError, Goal, OpenTickets, Outcome, Ticket};
use crate::domain::trust::{LaunchMethod, Recall, Trusts};

mod checks;
mod ending;
mod exits;
mod failing;
mod gpus;
mod loads;
mod outage;
mod reports;
mod requests;
mod timers;
mod trusting;
mod vitals;

use ending::Ending;
use exits::Exits;

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
    models: Models,
    ledger: RestartLedger,
    trusts: Trusts,
    last_error: Option<Cause>,
    incarnation: Incarnation,
    /// How the last launch came to be, once that is known.
    launch: Option<(Incarnation, LaunchKind)>,
    sequence: Sequence,
    tickets: OpenTickets,
    ending: Ending,
    /// What is wrong with the GPUs.
    gpu_findings: Vec<GpuFinding>,
    /// When a fault of a GPU has ended vLLM, lately.
    gpu_faults: Vec<Duration>,
    /// Who has ended of the current launch.
    exits: Exits,
    /// Until it runs, or somebody stops it.
    outage: Option<Outage>,
}

impl Machine {
    /// A service of which nothing is known yet. [`Machine::begin`] looks.
    pub fn new(spec: ServiceSpec, resume: Resume) -> Self {
        Self {
            models: Models::new(spec.target.clone()),
            trusts: Trusts::new(spec.launch),
            spec,
            state: State::Unknown(Unknown {
                incarnation: None,
                then: Then::AsFound,
                obstacle: Obstacle::None,
            }),
            ledger: RestartLedger::default(),
            last_error: None,
            incarnation: resume.incarnation,
            launch: None,
            sequence: resume.sequence,
            tickets: OpenTickets::default(),
            ending: Ending::No,
            gpu_findings: Vec::new(),
            gpu_faults: Vec::new(),
            exits: Exits::default(),
            outage: None,
        }
    }

    /// The same, where this is known to be wrong with the GPUs from the start.
    #[must_use]
    pub fn with_gpu_findings(self, gpu_findings: Vec<GpuFinding>) -> Self {
        Self { gpu_findings, ..self }
    }

    /// The first thing to do: look for what an earlier supervisor left.
    pub fn begin(&self) -> Reaction {
        Reaction { effects: vec![Effect::Adopt], ..Reaction::default() }
    }

    /// Takes one input.
    pub fn on(&mut self, input: Input, now: Moment) -> Reaction {
        let before = self.state.tag();
        let mut turn = Turn { machine: self, now, reaction: Reaction::default() };
        match input {
            Input::Request(ticket, request) => turn.request(ticket, request),
            Input::ShutDown => turn.shut_down(),
            Input::Process(report) => {
                turn.note_exit(&report);
                turn.process(report);
            }
            Input::Health(report) => turn.health(report),
            Input::Loader(report) => turn.loader(report),
            Input::Drained(incarnation) => turn.drained(incarnation),
            Input::Felt(incarnation, pulse) => turn.felt(incarnation, pulse),
            Input::Tried(incarnation, trial) => turn.tried(incarnation, trial),
            Input::Completed(incarnation, text) => turn.completed(incarnation, text),
            Input::Found(news) => turn.found(news),
            Input::Due(timer, incarnation) => turn.due(timer, incarnation),
            Input::ProcessActorLost => turn.process_actor_lost(),
        }
        turn.end_if_ready();
        let after = turn.machine.state.tag();
        if after != before && matches!(after, ServiceState::Stopped | ServiceState::Failed) {
            turn.effect(Effect::Rest);
        }
        turn.reaction
    }

    /// Nobody waits for the answer to this request any more. What it asked for stays asked for.
    pub fn forget(&mut self, ticket: Ticket) {
        self.tickets.forget(ticket);
    }

    /// The last event of a supervisor that ends.
    pub fn end(&mut self, reason: EndReason, now: Moment) -> Event {
        self.sequence = self.sequence.next();
        Event {
            sequence: self.sequence,
            at: now.wall,
            incarnation: self.state.incarnation().unwrap_or(self.incarnation),
            kind: EventKind::SupervisorEnded { reason },
        }
    }

    /// The state and its data.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is served, or would be at the next launch.
    pub fn target(&self) -> &Target {
        self.models.wanted()
    }

    /// What is meant by this: where nothing is said of arguments it is as what is served, or was last
    /// proven to be, else as configured.
    pub fn resolve(&self, wanted: &Wanted) -> Target {
        let known = [self.models.wanted(), self.models.proven()];
        let configured = || Target {
            model: wanted.model.clone(),
            arguments: match &wanted.arguments {
                Some(arguments) => arguments.clone(),
                None => self.spec.target.arguments.clone(),
            },
        };
        known.into_iter().find(|target| wanted.is(target)).cloned().unwrap_or_else(configured)
    }

    /// What vLLM is told instead of what is configured; `None` where it is as configured.
    pub fn switched_arguments(&self, target: &Target) -> Option<Vec<String>> {
        let is_other = target.arguments != self.spec.target.arguments;
        is_other.then(|| target.arguments.words().to_vec())
    }

    /// The models, and the switch between them if one is under way.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The requests that are not answered yet.
    pub fn tickets(&self) -> &OpenTickets {
        &self.tickets
    }

    /// What is wrong with the GPUs, in the order in which it was found.
    pub fn gpu_findings(&self) -> &[GpuFinding] {
        &self.gpu_findings
    }

    /// Why nothing can be launched though it should be: something of an earlier launch cannot be
    /// removed, or the system does not let us look for it.
    pub fn blocked(&self) -> Option<&Cause> {
        match &self.state {
            State::Unknown(Unknown { obstacle, .. }) => match obstacle {
                Obstacle::None => None,
                Obstacle::Unseen(cause) | Obstacle::Lingering(cause) => Some(cause),
            },
            State::Crashed(Crashed {
                cleanup: Cleanup::Blocked(cause) | Cleanup::Unseen(cause),
                ..
            }) => Some(cause),
            State::Crashed(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => None,
        }
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

    /// How the process that runs came to be; `None` where there is none.
    pub fn launch(&self) -> Option<LaunchKind> {
        let (incarnation, kind) = self.launch?;
        let is_present = self.state.incarnation() == Some(incarnation);
        (is_present && self.state.pid().is_some()).then_some(kind)
    }

    /// The number of the last launch.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
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
        let incarnation = machine.state.incarnation().unwrap_or(machine.incarnation);
        self.reaction.tell(&mut machine.sequence, self.now.wall, incarnation, kind);
    }

    /// The only place where the state changes.
    fn enter(&mut self, next: State, cause: Option<Cause>) {
        let (from, to) = (self.machine.state.tag(), next.tag());
        debug_assert_ne!(from, to, "a state is changed by an event, and the event names two");
        self.machine.state = next;
        self.emit(EventKind::StateChanged { from, to, cause });
    }

    /// Answers those whose goal this has an answer for.
    fn answer(&mut self, outcome: impl FnMut(&Goal) -> Option<Outcome>) {
        let answers = self.machine.tickets.answer(outcome);
        self.reaction.answers.extend(answers);
    }

    /// Everybody who waits for something to run waits in vain.
    fn disappoint(&mut self, missed: &CommandError) {
        self.answer(|goal| goal.wants_up().then(|| Err(missed.clone())));
    }

    /// Changes what is to be served, and says so.
    fn models(&mut self, change: impl FnOnce(&mut Models)) {
        let from = self.machine.models.wanted().clone();
        change(&mut self.machine.models);
        let to = self.machine.models.wanted().clone();
        if from != to {
            let extra_args = self.machine.switched_arguments(&to);
            self.emit(EventKind::ModelWanted { from: from.model, to: to.model, extra_args });
        }
    }

    fn launch(&mut self, origin: Origin) {
        let incarnation = self.machine.incarnation.next();
        self.machine.incarnation = incarnation;
        let target = self.machine.models.wanted().clone();
        let method = self.machine.trusts.method(&target);
        self.enter(self.starting(incarnation, None, target.clone(), origin), None);
        if let Some(cause) = self.forbidden_by_gpu() {
            return self.fail_to_launch(incarnation, cause);
        }
        self.machine.models.settle();
        self.effect(Effect::Launch { incarnation, target, method });
        self.schedule_silence(incarnation, self.machine.spec.start_timeout);
    }

    /// Takes over what an earlier supervisor, or process actor, left running.
    fn watch(&mut self, incarnation: Incarnation, pid: u32, target: Target) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        // One that we launched is found again after the loss of a process actor.
        if self.machine.launch.is_none_or(|(known, _)| known != incarnation) {
            self.machine.launch = Some((incarnation, LaunchKind::Adopted));
        }
        self.enter(self.starting(incarnation, Some(pid), target, Origin::Found), None);
        if let Some(cause) = self.forbidden_by_gpu() {
            return self.fail(incarnation, cause, None);
        }
        self.effect(Effect::Watch { incarnation });
        self.schedule_silence(incarnation, self.machine.spec.start_timeout);
    }

    fn starting(
        &self,
        incarnation: Incarnation,
        pid: Option<u32>,
        target: Target,
        origin: Origin,
    ) -> State {
        State::Starting(Starting {
            incarnation,
            pid,
            origin,
            method: match origin {
                Origin::Asked | Origin::Restart => self.machine.trusts.method(&target),
                // Whoever has made it did not ask us how.
                Origin::Found => LaunchMethod::Cold,
            },
            target,
            recall: Recall::default(),
            since: self.now,
            first_output: FirstOutput::Awaited,
            last_sign: self.now,
            last_busy: self.now,
            next_look: self.now.monotonic,
            silence: Silence::Borne,
            work: (self.now, Work::default()),
            loss: None,
            pace: Box::default(),
            progress: None,
            misses: 0,
            announcement: Announcement::Awaited,
            stopwatch: Box::new(Stopwatch::begin(self.now.monotonic)),
            last_failure: None,
        })
    }

    /// Nothing is alive, and nobody wanted it otherwise.
    fn rest(&mut self) {
        self.enter(State::Stopped, None);
        self.answer(|goal| (*goal == Goal::Down).then_some(Ok(())));
    }

    /// Nothing is alive: does what was wished for.
    fn proceed(&mut self, then: Then) {
        self.rest();
        match then {
            Then::Launch(origin) if self.machine.ending == Ending::No => self.launch(origin),
            Then::Replace if self.machine.ending == Ending::No => self.launch(Origin::Asked),
            Then::Launch(_) | Then::Replace | Then::Rest | Then::AsFound => {}
        }
    }

    fn max_failures(&self) -> NonZeroU32 {
        self.machine.spec.max_consecutive_failures
    }
}

#[cfg(test)]
mod tests;
