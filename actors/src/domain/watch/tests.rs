//! Somebody else's service, seen by checks alone, and by its manager's word.

use std::time::{Duration, SystemTime};

use super::*;
use crate::domain::cause::Code;
use crate::domain::health::{HealthFailure, Healthy};
use crate::domain::input::{Asker, Request, StopMode};
use crate::domain::liveness::{Pulse, Rest, Trial};
use crate::domain::report::HealthReport;
use crate::domain::spec::LifecycleMode;
use crate::domain::unit::{Activity, UnitReading};
use crate::testing::harness::Plan;

mod alone;
mod unit;

/// A watch, with its clock and all that came of it.
struct Script {
    watch: Watch,
    now: Moment,
    events: Vec<EventKind>,
    effects: Vec<Effect>,
    answers: Vec<(Ticket, Outcome)>,
    ticket: Ticket,
    state: ServiceState,
}

impl Script {
    fn of(mode: LifecycleMode, unit: Option<&str>) -> Self {
        let plan = Plan::new(crate::domain::spec::ExitPolicy::Detach);
        let spec = ServiceSpec { mode, unit: unit.map(str::to_owned), ..plan.spec };
        let resume = Resume { incarnation: Incarnation::new(7), ..Resume::default() };
        let watch = Watch::new(spec, resume, Vec::new());
        let monotonic = Duration::from_secs(10_000);
        let now = Moment { monotonic, wall: SystemTime::UNIX_EPOCH };
        let effects = watch.begin().effects;
        Self {
            watch,
            now,
            events: Vec::new(),
            effects,
            answers: Vec::new(),
            ticket: Ticket::default(),
            state: ServiceState::Unknown,
        }
    }

    fn take(&mut self, reaction: Reaction) {
        for event in &reaction.events {
            if let EventKind::StateChanged { from, to, .. } = event.kind {
                assert_eq!(from, self.state, "{:?}", self.events);
                assert_ne!(from, to);
                self.state = to;
            }
        }
        assert_eq!(self.state, self.watch.state(), "{:?}", self.events);
        self.events.extend(reaction.events.into_iter().map(|event| event.kind));
        self.effects.extend(reaction.effects);
        self.answers.extend(reaction.answers);
    }

    fn on(&mut self, input: Input) {
        let reaction = self.watch.on(input, self.now);
        self.take(reaction);
    }

    fn hear(&mut self, reading: UnitReading) {
        let reaction = self.watch.hear(reading, self.now);
        self.take(reaction);
    }

    fn wait(&mut self, time: Duration) {
        self.now.monotonic += time;
    }

    fn passes(&mut self) {
        let incarnation = self.watch.incarnation();
        let healthy = Healthy { latency: Duration::from_millis(2), models: Vec::new() };
        self.on(Input::Health(HealthReport { incarnation, check: Ok(healthy) }));
    }

    fn fails(&mut self, failure: HealthFailure) {
        let incarnation = self.watch.incarnation();
        self.on(Input::Health(HealthReport { incarnation, check: Err(failure) }));
    }

    fn fails_times(&mut self, times: u32, failure: &HealthFailure) {
        for _ in 0..times {
            self.fails(failure.clone());
        }
    }

    fn ask(&mut self, request: Request) -> Ticket {
        self.ticket = self.ticket.next();
        self.on(Input::Request(self.ticket, request));
        self.ticket
    }

    fn answer(&self, ticket: Ticket) -> Option<&Outcome> {
        let mut answers = self.answers.iter().filter(|(of, _)| *of == ticket);
        let answer = answers.next().map(|(_, outcome)| outcome);
        assert!(answers.next().is_none(), "answered twice");
        answer
    }

    /// Takes what was to be done so far.
    fn done(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn incidents(&self) -> Vec<&crate::domain::incident::Incident> {
        let mut found = Vec::new();
        for event in &self.events {
            if let EventKind::IncidentRecorded { incident } = event {
                found.push(&**incident);
            }
        }
        found
    }

    fn code(&self) -> Option<Code> {
        self.watch.last_error().map(|cause| cause.code)
    }

    fn beats(&mut self, requests: u64, mark: u64) {
        let rest = Rest::Awake;
        let pulse = Pulse { requests, mark, rest, connections: None };
        self.on(Input::Felt(self.watch.incarnation(), Some(pulse)));
    }

    fn looks(&mut self) {
        self.wait(Duration::from_secs(5));
        self.on(Input::Due(Timer::Vitals, self.watch.incarnation()));
    }
}

fn nobody() -> HealthFailure {
    HealthFailure::Unreachable { url: "http://h/health".into(), reason: "refused".into() }
}

fn late() -> HealthFailure {
    HealthFailure::TimedOut { url: "http://h/health".into(), limit: Duration::from_secs(5) }
}

fn other_model() -> HealthFailure {
    HealthFailure::ModelMissing { wanted: "org/first".into(), listed: vec!["org/other".into()] }
}

#[test]
fn what_is_not_ours_to_do_is_refused_and_the_mode_named() {
    for (mode, unit) in [
        (LifecycleMode::External, None),
        (LifecycleMode::Monitored, None),
        (LifecycleMode::Monitored, Some("vllm.service")),
    ] {
        let mut s = Script::of(mode, unit);
        let other = crate::testing::harness::model("org/other");
        for request in [
            Request::Start,
            Request::Restart,
            Request::Stop(StopMode::Graceful),
            Request::Load { wanted: other.into(), asker: Asker::Operator },
        ] {
            let ticket = s.ask(request);
            let Some(Err(refusal @ CommandError::NotManaged { .. })) = s.answer(ticket) else {
                panic!("{:?}", s.answers);
            };
            assert!(refusal.to_string().contains(mode.as_str()), "{refusal}");
            assert_eq!(unit.is_some(), refusal.to_string().contains("vllm.service"), "{refusal}");
        }
        assert!(s.done().iter().all(|it| matches!(it, Effect::Watch { .. })));
    }
}

#[test]
fn nothing_is_done_at_the_end_but_to_end() {
    let mut s = Script::of(LifecycleMode::External, None);
    s.passes();
    let waits = s.ask(Request::Ensure);
    s.done();
    s.on(Input::ShutDown);
    assert_eq!(s.done(), [Effect::End]);
    assert_eq!(s.answer(waits), Some(&Ok(())));
    let late = s.ask(Request::Ensure);
    assert_eq!(s.answer(late), Some(&Err(CommandError::SupervisorEnded)));
}
