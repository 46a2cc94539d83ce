//! The machine in service: with a clock, with whoever waits for it, and with its present published.

use std::time::SystemTime;

use ractor::RpcReplyPort;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::event::EventKind;
use crate::domain::goal::Goal;
use crate::domain::gpu::Gpu;
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::input::{Effect, Input, Reaction, StopMode};
use crate::domain::machine::Machine;
use crate::domain::moment::Moment;
use crate::domain::report::{GpuReport, HealthReport};
use crate::domain::restart::RESTART_WINDOW;
use crate::domain::spec::{LifecycleMode, OnExit};
use crate::domain::state::{ServiceState, State};
use crate::root::RootArgs;
use crate::root::message::Answer;
use crate::root::publish::Publisher;
use crate::root::snapshot::{GpuView, HealthNote, LaunchKind, RestartCount, Snapshot};

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    machine: Machine,
    publisher: Publisher,
    snapshots: watch::Sender<Snapshot>,
    /// The origin of the monotonic clock.
    origin: Instant,
    /// Callers whose goal is neither reached nor missed yet.
    waiting: Vec<(Goal, Answer)>,
    ending: Ending,
    launch: Option<LaunchKind>,
    health: Option<(Incarnation, HealthNote)>,
    listed_models: Vec<String>,
    gpus: GpuView,
    sequence: Sequence,
}

/// How far the supervisor is on its own way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It has not been asked to end.
    No,
    /// Once vLLM is down.
    AfterStop,
    /// As soon as possible.
    Now,
    /// The children are being ended.
    Begun,
}

impl Service {
    pub(super) fn new(args: RootArgs) -> Self {
        Self {
            machine: Machine::new(args.spec, args.resume),
            publisher: Publisher::new(args.adapters.journal, args.events),
            snapshots: args.snapshots,
            origin: Instant::now(),
            waiting: Vec::new(),
            ending: Ending::No,
            launch: None,
            health: None,
            listed_models: Vec::new(),
            gpus: GpuView::Pending,
            sequence: args.resume.sequence,
        }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn now(&self) -> Moment {
        Moment { monotonic: self.origin.elapsed(), wall: SystemTime::now() }
    }

    pub(super) fn begin(&mut self) -> Vec<Effect> {
        self.machine.begin().effects
    }

    /// Takes an input; publishes what happened, answers who waited, and returns what to do.
    pub(super) fn take(&mut self, input: Input) -> Vec<Effect> {
        let Reaction { effects, events } = self.machine.on(input, self.now());
        self.note_launch(&effects);
        let mut visited = Vec::new();
        for event in events {
            if let EventKind::StateChanged { to, .. } = event.kind {
                visited.push(to);
            }
            self.sequence = self.publisher.publish(event);
        }
        // The present is published before anybody is told that it has come.
        self.publish_snapshot();
        self.answer(&visited);
        for effect in &effects {
            if let Effect::Record(record) = effect {
                self.publisher.journal().restart(record);
            }
        }
        effects
    }

    /// Keeps a caller until its goal is reached or missed.
    pub(super) fn wait(&mut self, goal: Goal, reply: Answer) {
        self.waiting.push((goal, reply));
        self.answer(&[]);
    }

    fn answer(&mut self, visited: &[ServiceState]) {
        let waiting = std::mem::take(&mut self.waiting);
        for (goal, reply) in waiting {
            match goal.outcome(&self.machine, visited) {
                // A caller that gave up waiting needs no answer.
                Some(outcome) => drop(reply.send(outcome)),
                None if reply.is_closed() => {}
                None => self.waiting.push((goal, reply)),
            }
        }
    }

    /// Begins the way down; returns what the machine must be told first, if anything.
    pub(super) fn shut_down(&mut self) -> Option<Input> {
        if self.ending != Ending::No {
            return None;
        }
        match (self.machine.spec().on_exit, self.machine.state()) {
            (OnExit::Detach, _) | (OnExit::Stop, State::Stopped | State::Failed { .. }) => {
                self.ending = Ending::Now;
                None
            }
            (OnExit::Stop, _) => {
                self.ending = Ending::AfterStop;
                Some(Input::Stop(StopMode::Graceful))
            }
        }
    }

    /// Ends as soon as possible; whoever holds the process stops or keeps it.
    pub(super) fn end_now(&mut self) {
        if self.ending != Ending::Begun {
            self.ending = Ending::Now;
        }
    }

    /// Whether commands other than a stop come too late.
    pub(super) fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    /// True once, when the children may be ended.
    pub(super) fn may_wind_down(&mut self) -> bool {
        let ready = match self.ending {
            Ending::No | Ending::Begun => false,
            Ending::Now => true,
            Ending::AfterStop => match self.machine.state() {
                State::Stopped | State::Failed { .. } => true,
                // What outlives SIGKILL will not be waited for.
                State::Unknown(unknown) => {
                    unknown.incarnation.is_some() && self.machine.last_error().is_some()
                }
                State::Starting(_) | State::Running(_) | State::Stopping(_) | State::Crashed(_) => {
                    false
                }
            },
        };
        if ready {
            self.ending = Ending::Begun;
        }
        ready
    }

    pub(super) fn note_health(&mut self, report: &HealthReport) {
        if self.machine.state().incarnation() != Some(report.incarnation) {
            return;
        }
        let note = HealthNote {
            at: SystemTime::now(),
            latency: report.check.as_ref().ok().map(|healthy| healthy.latency),
            error: report.check.as_ref().err().map(ToString::to_string),
        };
        if let Ok(healthy) = &report.check {
            self.listed_models.clone_from(&healthy.models);
        }
        self.health = Some((report.incarnation, note));
    }

    pub(super) fn note_gpus(&mut self, report: GpuReport) {
        self.gpus = match report {
            GpuReport::Sampled(snapshot) => GpuView::Seen(snapshot.gpus),
            GpuReport::Unavailable { reason } => {
                tracing::info!(reason, "no GPU to watch");
                GpuView::Unavailable(reason)
            }
            GpuReport::Stalled { silent_for } => {
                tracing::warn!(?silent_for, "the GPU driver does not answer");
                GpuView::Stalled(self.last_gpus())
            }
        };
        self.publish_snapshot();
    }

    fn last_gpus(&self) -> Vec<Gpu> {
        self.gpus.gpus().to_vec()
    }

    fn note_launch(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Launch { .. } => self.launch = Some(LaunchKind::Cold),
                Effect::Attend { .. } => self.launch = Some(LaunchKind::Adopted),
                Effect::Adopt
                | Effect::Settle { .. }
                | Effect::Probe { .. }
                | Effect::Disregard
                | Effect::Stop { .. }
                | Effect::Clear { .. }
                | Effect::SampleWork { .. }
                | Effect::Schedule { .. }
                | Effect::Record(_) => {}
            }
        }
    }

    pub(super) fn answer_snapshot(&self, reply: RpcReplyPort<Snapshot>) {
        drop(reply.send(self.snapshot()));
    }

    fn publish_snapshot(&self) {
        self.snapshots.send_replace(self.snapshot());
    }

    fn snapshot(&self) -> Snapshot {
        let (machine, now) = (&self.machine, self.now());
        let state = machine.state();
        let (running_since, progress) = match state {
            State::Running(running) => (Some(running.since.wall), None),
            State::Starting(starting) => (None, starting.progress.clone()),
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => (None, None),
        };
        let health = self.health.as_ref().filter(|(of, _)| Some(*of) == state.incarnation());
        Snapshot {
            state: state.tag(),
            mode: LifecycleMode::Managed,
            model: machine.model().clone(),
            pid: state.pid(),
            incarnation: machine.incarnation(),
            running_since,
            launch: self.launch.filter(|_| state.pid().is_some()),
            last_health_check: health.map(|(_, note)| note.clone()),
            listed_models: running_since.map_or_else(Vec::new, |_| self.listed_models.clone()),
            restarts: self.restarts(now),
            progress,
            gpus: self.gpus.clone(),
            last_error: machine.last_error().cloned(),
            sequence: self.sequence,
        }
    }

    fn restarts(&self, now: Moment) -> RestartCount {
        let (ledger, policy) = (self.machine.ledger(), &self.machine.spec().restart);
        RestartCount {
            in_window: ledger.in_window(now),
            cap: policy.max_restarts.get(),
            window: RESTART_WINDOW,
            reset_at: ledger.until_reset(now).map(|left| now.wall + left),
            total: ledger.total(),
        }
    }
}
