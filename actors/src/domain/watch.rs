//! A vLLM that somebody else has in hand: what is seen of it, and nothing that is done about it.
//!
//! Its manager's word on its unit is believed, where there is one to ask; whether it serves is told by
//! checks of health and by its counters, as of one that is ours. The law is that of the machine: the state
//! changes if and only if one `StateChanged` event is emitted.

use std::time::{Duration, SystemTime};

use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Exit;
use crate::domain::event::{EndReason, Event, EventKind};
use crate::domain::gpu::GpuFinding;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::{Effect, Input, Reaction, Timer};
use crate::domain::liveness::Liveness;
use crate::domain::machine::Resume;
use crate::domain::moment::Moment;
use crate::domain::outage::Outage;
use crate::domain::restart::RestartLedger;
use crate::domain::spec::ServiceSpec;
use crate::domain::state::ServiceState;
use crate::domain::target::Target;
use crate::domain::ticket::{CommandError, Goal, OpenTickets, Outcome, Ticket};
use crate::domain::unit::UnitStatus;

mod checks;
mod ends;
mod requests;
mod units;

/// The service, as far as it is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    spec: ServiceSpec,
    view: View,
    /// What its manager said last; `None` before that, and where it cannot be asked.
    unit: Option<UnitStatus>,
    /// The main process of the run that is asked how it is.
    asked: Option<Run>,
    /// The one that was asked last.
    known: Option<Run>,
    /// Numbers the runs that were seen.
    incarnation: Incarnation,
    sequence: Sequence,
    tickets: OpenTickets,
    gpu_findings: Vec<GpuFinding>,
    last_error: Option<Cause>,
    /// Why it is unknown, as was told last: the kind of the reason, and what is to be done.
    told: Option<(Code, String)>,
    /// Why nobody can say what there is.
    obstacle: Option<Cause>,
    outage: Option<Outage>,
    /// The restarts that were seen.
    ledger: RestartLedger,
    cadence: Cadence,
    life: Life,
}

/// A run of the service: its main process, if anybody has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    pid: Option<u32>,
}

/// How the checks are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cadence {
    Eager,
    Steady,
}

/// Whether the supervisor itself goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    GoesOn,
    Ends,
}

/// A state with its data.
#[derive(Clone, Debug)]
enum View {
    Unknown,
    Stopped,
    /// Its manager runs it, and it has not answered yet. So many checks in a row found somebody else.
    Starting {
        since: Moment,
        misses: u32,
    },
    Running(Box<Serving>),
    Stopping,
    Crashed(Box<Fallen>),
    Failed {
        cause: Cause,
    },
}

/// One that serves.
#[derive(Clone, Debug)]
struct Serving {
    since: Moment,
    /// Failed checks in a row.
    failures: u32,
    liveness: Liveness,
    /// When it is looked at next, on the monotonic clock.
    next_look: Duration,
}

/// One that has ended by itself, or is judged dead.
#[derive(Clone, Debug)]
struct Fallen {
    cause: Cause,
    at: SystemTime,
    healthy_for: Option<Duration>,
    /// Its main process, and how that ended.
    exit: Option<(u32, Exit)>,
    follows: Follows,
}

/// What follows an end that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// Its manager has not said yet.
    Undecided,
    /// Its manager starts it again.
    Restart,
    /// Nothing, unless somebody starts it.
    Nothing,
    /// It is there still, and serves again once a check passes.
    Answer,
    /// It is there still, and answers checks though it hangs: a token tells.
    Token,
}

impl View {
    fn tag(&self) -> ServiceState {
        match self {
            Self::Unknown => ServiceState::Unknown,
            Self::Stopped => ServiceState::Stopped,
            Self::Starting { .. } => ServiceState::Starting,
            Self::Running(_) => ServiceState::Running,
            Self::Stopping => ServiceState::Stopping,
            Self::Crashed(_) => ServiceState::Crashed,
            Self::Failed { .. } => ServiceState::Failed,
        }
    }
}

impl Watch {
    /// A service of which nothing is known yet. [`Watch::begin`] looks.
    pub fn new(spec: ServiceSpec, resume: Resume, gpu_findings: Vec<GpuFinding>) -> Self {
        Self {
            view: View::Unknown,
            unit: None,
            asked: None,
            known: None,
            // Without a manager to tell one run from another all of them are one.
            incarnation: if spec.unit.is_some() {
                resume.incarnation
            } else {
                resume.incarnation.next()
            },
            sequence: resume.sequence,
            tickets: OpenTickets::default(),
            gpu_findings,
            last_error: None,
            told: None,
            obstacle: None,
            outage: None,
            ledger: RestartLedger::default(),
            cadence: Cadence::Eager,
            life: Life::GoesOn,
            spec,
        }
    }

    /// The first thing to do: ask whoever answers. A manager tells by itself.
    pub fn begin(&self) -> Reaction {
        let watch = Effect::Watch { incarnation: self.incarnation };
        let effects = if self.is_alone() { vec![watch] } else { Vec::new() };
        Reaction { effects, ..Reaction::default() }
    }

    /// Takes one input. What only a launch of ours can bring is nobody's.
    pub fn on(&mut self, input: Input, now: Moment) -> Reaction {
        let mut turn = Turn { watch: self, now, reaction: Reaction::default() };
        match input {
            Input::Request(ticket, request) => turn.request(ticket, &request),
            Input::ShutDown => turn.shut_down(),
            Input::Health(report) => turn.health(report),
            Input::Felt(incarnation, pulse) => turn.felt(incarnation, pulse),
            Input::Tried(incarnation, trial) => turn.tried(incarnation, trial),
            Input::Found(news) => {
                news.enter(&mut turn.watch.gpu_findings);
                turn.emit(EventKind::from(news));
            }
            Input::Due(Timer::Vitals, incarnation) => turn.vitals_due(incarnation),
            Input::Due(_, _)
            | Input::Process(_)
            | Input::Loader(_)
            | Input::Drained(_)
            | Input::Completed(_, _)
            | Input::ProcessActorLost => {}
        }
        turn.reaction
    }

    /// Nobody waits for the answer to this request any more.
    pub fn forget(&mut self, ticket: Ticket) {
        self.tickets.forget(ticket);
    }

    /// The last event of a supervisor that ends.
    pub fn end(&mut self, reason: EndReason, now: Moment) -> Event {
        self.sequence = self.sequence.next();
        let kind = EventKind::SupervisorEnded { reason };
        Event { sequence: self.sequence, at: now.wall, incarnation: self.incarnation, kind }
    }

    /// The state's public name.
    pub fn state(&self) -> ServiceState {
        self.view.tag()
    }

    /// What it is to serve.
    pub fn target(&self) -> &Target {
        &self.spec.target
    }

    /// The requests that are not answered yet.
    pub fn tickets(&self) -> &OpenTickets {
        &self.tickets
    }

    /// The figures it decides by.
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// What is wrong with the GPUs, in the order in which it was found.
    pub fn gpu_findings(&self) -> &[GpuFinding] {
        &self.gpu_findings
    }

    /// The number of the run that was seen last.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Since when it has served without a break.
    pub fn running_since(&self) -> Option<Moment> {
        if let View::Running(serving) = &self.view { Some(serving.since) } else { None }
    }

    /// Its main process, where its manager tells of one that loads or serves.
    pub fn pid(&self) -> Option<u32> {
        match self.view {
            View::Starting { .. } | View::Running(_) => self.asked?.pid,
            View::Unknown
            | View::Stopped
            | View::Stopping
            | View::Crashed(_)
            | View::Failed { .. } => None,
        }
    }

    /// What its manager said last.
    pub fn unit(&self) -> Option<&UnitStatus> {
        self.unit.as_ref()
    }

    /// The restarts that were seen.
    pub fn ledger(&self) -> &RestartLedger {
        &self.ledger
    }

    /// The last failure; cleared when it serves again.
    pub fn last_error(&self) -> Option<&Cause> {
        self.last_error.as_ref()
    }

    /// Why nobody can say what there is.
    pub fn obstacle(&self) -> Option<&Cause> {
        self.obstacle.as_ref()
    }

    /// Whether anybody is asked how it is, now.
    pub fn is_asked(&self) -> bool {
        match &self.view {
            View::Unknown => self.is_alone() || self.asked.is_some(),
            View::Starting { .. } => self.asked.is_some(),
            View::Running(_) => true,
            View::Crashed(fallen) => matches!(fallen.follows, Follows::Answer | Follows::Token),
            View::Stopped | View::Stopping | View::Failed { .. } => false,
        }
    }

    /// Whether there is no manager to ask.
    fn is_alone(&self) -> bool {
        self.spec.unit.is_none()
    }

    fn not_managed(&self) -> CommandError {
        CommandError::NotManaged { mode: self.spec.mode, unit: self.spec.unit.clone() }
    }
}

/// One input being taken: the watch, the time, and what comes of it.
struct Turn<'a> {
    watch: &'a mut Watch,
    now: Moment,
    reaction: Reaction,
}

impl Turn<'_> {
    fn effect(&mut self, effect: Effect) {
        self.reaction.effects.push(effect);
    }

    fn emit(&mut self, kind: EventKind) {
        let watch = &mut *self.watch;
        self.reaction.tell(&mut watch.sequence, self.now.wall, watch.incarnation, kind);
    }

    /// The only place where the state changes.
    fn enter(&mut self, next: View, cause: Option<Cause>) {
        let (from, to) = (self.watch.view.tag(), next.tag());
        self.watch.view = next;
        if to != ServiceState::Unknown {
            self.watch.told = None;
        }
        if from != to {
            self.emit(EventKind::StateChanged { from, to, cause });
        }
    }

    /// Nobody can say what there is, for this reason. Another reason than before is told.
    fn doubt(&mut self, cause: Cause) {
        let reason = Some((cause.code, cause.remedy().to_owned()));
        let is_news = self.watch.state() == ServiceState::Unknown && self.watch.told != reason;
        self.watch.last_error = Some(cause.clone());
        self.enter(View::Unknown, Some(cause.clone()));
        self.watch.told = reason;
        if is_news {
            self.emit(EventKind::StateExplained { cause: cause.clone() });
        }
        self.disappoint(&CommandError::Failed(cause));
    }

    /// Answers those whose goal this has an answer for.
    fn answer(&mut self, outcome: impl FnMut(&Goal) -> Option<Outcome>) {
        let answers = self.watch.tickets.answer(outcome);
        self.reaction.answers.extend(answers);
    }

    /// Everybody waits in vain.
    fn disappoint(&mut self, missed: &CommandError) {
        self.answer(|_| Some(Err(missed.clone())));
    }

    /// Nobody is to be asked how it is, until it runs again.
    fn cease(&mut self) {
        self.watch.asked = None;
        self.effect(Effect::Disregard);
    }

    fn shut_down(&mut self) {
        self.settle();
        self.watch.life = Life::Ends;
        self.disappoint(&CommandError::SupervisorEnded);
        self.effect(Effect::End);
    }
}

#[cfg(test)]
mod tests;
