//! When a wait is over, and what came of it.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use super::*;
use crate::domain::cause::Code;
use crate::domain::diagnosis::Exit;
use crate::domain::event::{Event, EventKind};
use crate::domain::health::Healthy;
use crate::domain::id::Incarnation;
use crate::domain::input::{Input, StopMode};
use crate::domain::machine::Resume;
use crate::domain::moment::Moment;
use crate::domain::report::{HealthReport, ProcessReport};
use crate::domain::restart::RestartPolicy;
use crate::domain::spec::{OnExit, ServiceSpec};

/// A machine, and the states that it went through last.
struct Service {
    machine: Machine,
    visited: Vec<ServiceState>,
}

impl Service {
    fn stopped() -> Self {
        let spec = ServiceSpec {
            model: model("org/a"),
            restart: RestartPolicy::default(),
            start_timeout: Duration::from_secs(30),
            model_load_timeout: Duration::from_secs(300),
            max_consecutive_failures: NonZeroU32::MIN,
            on_exit: OnExit::Stop,
        };
        let machine = Machine::new(spec, Resume::default());
        let mut service = Self { machine, visited: Vec::new() };
        service.process(ProcessReport::NothingFound);
        service
    }

    fn running() -> Self {
        let mut service = Self::stopped();
        service.on(Input::Start);
        service.becomes_healthy(1);
        service
    }

    fn on(&mut self, input: Input) {
        let now = Moment { monotonic: Duration::from_secs(1_000), wall: SystemTime::UNIX_EPOCH };
        let reaction = self.machine.on(input, now);
        let entered = |event: &Event| match event.kind {
            EventKind::StateChanged { to, .. } => Some(to),
            EventKind::LoadProgressed { .. }
            | EventKind::RestartScheduled { .. }
            | EventKind::HealthChanged { .. }
            | EventKind::ModelSwitched { .. }
            | EventKind::CustodyEnded { .. } => None,
        };
        self.visited = reaction.events.iter().filter_map(entered).collect();
    }

    fn process(&mut self, report: ProcessReport) {
        self.on(Input::Process(report));
    }

    fn becomes_healthy(&mut self, number: u64) {
        let incarnation = Incarnation::new(number);
        self.process(ProcessReport::Launched { incarnation, pid: 100 });
        let check = Ok(Healthy { latency: Duration::ZERO, models: Vec::new() });
        self.on(Input::Health(HealthReport { incarnation, check }));
        assert_eq!(self.machine.state().tag(), ServiceState::Running);
    }

    fn exits(&mut self, number: u64) {
        let (incarnation, last_lines) = (Incarnation::new(number), Vec::new());
        self.process(ProcessReport::Exited { incarnation, exit: Exit::Signal(9), last_lines });
    }

    fn is_vacated(&mut self, number: u64) {
        self.process(ProcessReport::Vacated { incarnation: Incarnation::new(number) });
    }

    fn lingers(&mut self, number: u64) {
        let (incarnation, survivors) = (Incarnation::new(number), vec![100]);
        self.process(ProcessReport::Lingered { incarnation, survivors });
    }

    fn outcome(&self, goal: &Goal) -> Option<Result<(), Missed>> {
        goal.outcome(&self.machine, &self.visited)
    }

    fn served(&self) -> Goal {
        Goal::served(&self.machine)
    }
}

fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

#[test]
fn a_model_is_served_when_the_service_runs() {
    let mut service = Service::stopped();
    service.on(Input::Start);
    let goal = service.served();
    assert_eq!(service.outcome(&goal), None);
    service.becomes_healthy(1);
    assert_eq!(service.outcome(&goal), Some(Ok(())));
}

#[test]
fn a_wait_outlasts_a_crash() {
    let mut service = Service::stopped();
    service.on(Input::Start);
    let goal = service.served();
    service.exits(1);
    assert_eq!(service.outcome(&goal), None);
    service.is_vacated(1);
    service.on(Input::Start);
    service.becomes_healthy(2);
    assert_eq!(service.outcome(&goal), Some(Ok(())));
}

#[test]
fn a_service_that_gives_up_says_why() {
    let mut service = Service::stopped();
    service.on(Input::Start);
    let goal = service.served();
    let cause = Cause::new(Code::VllmNotFound, "no vllm on PATH");
    let incarnation = Incarnation::new(1);
    service.process(ProcessReport::LaunchFailed { incarnation, cause: cause.clone() });
    assert_eq!(service.outcome(&goal), Some(Err(Missed::Failed(cause))));
}

#[test]
fn whoever_waits_learns_of_a_stop_at_once() {
    let mut service = Service::stopped();
    service.on(Input::Start);
    let goal = service.served();
    service.on(Input::Stop(StopMode::Graceful));
    assert_eq!(service.outcome(&goal), Some(Err(Missed::Stopped)));
    service.is_vacated(1);
    assert_eq!(service.outcome(&goal), Some(Err(Missed::Stopped)));
}

#[test]
fn a_stop_that_a_start_has_overtaken_is_no_reason_to_give_up() {
    let mut service = Service::running();
    service.on(Input::Stop(StopMode::Graceful));
    service.on(Input::Start);
    assert_eq!(service.outcome(&service.served()), None);
}

#[test]
fn a_restart_is_not_served_by_the_incarnation_that_it_ends() {
    let mut service = Service::running();
    service.on(Input::Restart);
    assert_eq!(service.outcome(&service.served()), None);
}

#[test]
fn another_switch_supersedes_the_wait_for_the_first() {
    let mut service = Service::running();
    service.on(Input::Load(model("org/b")));
    let goal = service.served();
    service.on(Input::Load(model("org/c")));
    let missed = Missed::Superseded { to: model("org/c") };
    assert_eq!(service.outcome(&goal), Some(Err(missed)));
}

#[test]
fn a_switch_that_is_reverted_says_both_models_and_the_cause() {
    let mut service = Service::running();
    service.on(Input::Load(model("org/b")));
    let goal = service.served();
    service.is_vacated(1);
    service.exits(2);
    let Some(Err(Missed::Reverted { wanted, restored, cause })) = service.outcome(&goal) else {
        panic!("{:?}", service.outcome(&goal))
    };
    assert_eq!((wanted, restored), (model("org/b"), model("org/a")));
    assert_eq!(cause.code, Code::EngineDied);
}

#[test]
fn what_was_reverted_before_the_wait_began_does_not_matter() {
    let mut service = Service::running();
    service.on(Input::Load(model("org/b")));
    service.is_vacated(1);
    service.exits(2);
    service.on(Input::Load(model("org/c")));
    let goal = service.served();
    assert_eq!(service.outcome(&goal), None);
    service.on(Input::Load(model("org/d")));
    let missed = Missed::Superseded { to: model("org/d") };
    assert_eq!(service.outcome(&goal), Some(Err(missed)));
}

#[test]
fn it_is_down_when_nothing_is_alive() {
    let mut service = Service::running();
    service.on(Input::Stop(StopMode::Graceful));
    assert_eq!(service.outcome(&Goal::Down), None);
    service.is_vacated(1);
    assert_eq!(service.outcome(&Goal::Down), Some(Ok(())));
}

#[test]
fn it_has_been_down_even_if_a_start_has_begun_already() {
    let mut service = Service::running();
    service.on(Input::Stop(StopMode::Graceful));
    service.on(Input::Start);
    assert_eq!(service.outcome(&Goal::Down), None);
    service.is_vacated(1);
    assert_eq!(service.machine.state().tag(), ServiceState::Starting);
    assert_eq!(service.outcome(&Goal::Down), Some(Ok(())));
}

#[test]
fn what_outlives_sigkill_cannot_be_stopped() {
    let mut service = Service::running();
    service.on(Input::Stop(StopMode::Graceful));
    service.lingers(1);
    let outcome = service.outcome(&Goal::Down);
    assert!(matches!(outcome, Some(Err(Missed::Lingering(_)))), "{outcome:?}");
    service.on(Input::Start);
    service.on(Input::Stop(StopMode::Graceful));
    let again = service.outcome(&Goal::Down);
    assert!(matches!(again, Some(Err(Missed::Lingering(_)))), "{again:?}");
}

#[test]
fn an_old_crash_is_not_taken_for_something_that_outlives_sigkill() {
    let mut service = Service::running();
    service.exits(1);
    service.on(Input::Stop(StopMode::Graceful));
    service.on(Input::ProcessActorLost);
    assert_eq!(service.machine.state().tag(), ServiceState::Unknown);
    assert_eq!(service.outcome(&Goal::Down), None);
}
