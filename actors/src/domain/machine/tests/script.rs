//! How the tests write a story: inputs by short names, one turn after another.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use crate::domain::absence::{Doubt, Leftover, Proof, ScanError};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::{Evidence, Exit, Phase};
use crate::domain::event::EventKind;
use crate::domain::gpu::XidPolicy;
use crate::domain::health::{HealthFailure, Healthy};
use crate::domain::id::Incarnation;
use crate::domain::input::{Asker, Effect, Input, Request, StopMode, Timer};
use crate::domain::listener::ResourceHolder;
use crate::domain::liveness::{Pulse, Trial};
use crate::domain::loading::{LoadNews, ModelLoadProgress};
use crate::domain::machine::{Machine, Resume};
use crate::domain::moment::Moment;
use crate::domain::report::{HealthReport, LoaderReport, ProcessReport, Role, Sample, Work};
use crate::domain::restart::RestartPolicy;
use crate::domain::spec::LaunchPolicy;
use crate::domain::spec::{ExitPolicy, LifecycleMode, ModelId, ServiceSpec};
use crate::domain::state::{ServiceState, State};
use crate::domain::ticket::{Outcome as Answer, Ticket};
use crate::domain::trust::{LaunchMethod, Memory};
use crate::testing::harness::target;

mod launching;
mod outcome;

pub(super) use launching::{launched, launched_again, launched_as};
pub(super) use outcome::Outcome;

/// A machine, and the time as it sees it.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) machine: Machine,
    pub(super) now: Moment,
}

impl Script {
    /// A machine that knows nothing yet.
    pub(super) fn unknown() -> Self {
        Self::with(spec())
    }

    pub(super) fn with(spec: ServiceSpec) -> Self {
        Self { machine: Machine::new(spec, Resume::default()), now: noon() }
    }

    /// Nothing was found.
    pub(super) fn stopped() -> Self {
        let mut script = Self::unknown();
        script.on(nothing_found());
        script
    }

    /// Incarnation 1 is loading.
    pub(super) fn starting() -> Self {
        let mut script = Self::stopped();
        script.on(start());
        script.on(launched(1));
        script
    }

    /// Incarnation 1 serves.
    pub(super) fn running() -> Self {
        let mut script = Self::starting();
        script.on(healthy(1));
        script
    }

    /// Incarnation 1 served, and has been told to stop.
    pub(super) fn ending() -> Self {
        let mut script = Self::running();
        script.on(stop(StopMode::Graceful));
        script.on(drained(1));
        script
    }

    /// Incarnation 1 has ended; something of it may live.
    pub(super) fn crashed() -> Self {
        let mut script = Self::running();
        script.on(exited(1));
        script
    }

    /// A permanent cause has ended it.
    pub(super) fn failed() -> Self {
        let mut script = Self::stopped();
        script.on(start());
        script.on(launch_failed(1, Code::VllmNotFound));
        script
    }

    /// One turn, and that of the log that is read at once where one is to be read.
    pub(super) fn on(&mut self, input: Input) -> Outcome {
        let mut outcome = self.turn(input);
        let read = outcome.effects.iter().find_map(|effect| match effect {
            Effect::Diagnose { incarnation } => Some(incarnation.get()),
            _ => None,
        });
        if let Some(incarnation) = read {
            let then = self.turn(diagnosed(incarnation));
            outcome.path.extend(then.path);
            outcome.effects.extend(then.effects);
            outcome.events.extend(then.events);
            outcome.answers.extend(then.answers);
        }
        outcome
    }

    /// One turn.
    pub(super) fn turn(&mut self, input: Input) -> Outcome {
        let reaction = self.machine.on(input, self.now);
        let events: Vec<EventKind> = reaction.events.into_iter().map(|event| event.kind).collect();
        let path = events.iter().filter_map(state_entered).collect();
        Outcome { path, effects: reaction.effects, events, answers: reaction.answers }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Lets exactly so much time pass.
    pub(super) fn wait_for(&mut self, time: Duration) {
        self.pass(time);
    }

    /// Lets time pass, with the timer of silence ringing in time.
    pub(super) fn wait_in_silence(&mut self, seconds: u64) -> Vec<ServiceState> {
        let end = self.now.monotonic + Duration::from_secs(seconds);
        let mut path = Vec::new();
        while let State::Starting(starting) = self.machine.state()
            && starting.next_look <= end
        {
            let incarnation = starting.incarnation.get();
            self.pass(starting.next_look.saturating_sub(self.now.monotonic));
            path.extend(self.on(silence_due(incarnation)).path);
        }
        self.pass(end.saturating_sub(self.now.monotonic));
        path
    }

    /// Somebody sets the clock of the machine back.
    pub(super) fn set_clock_back(&mut self, time: Duration) {
        self.now.wall -= time;
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    pub(super) fn state(&self) -> ServiceState {
        self.machine.state().tag()
    }

    pub(super) fn last_error(&self) -> Option<Code> {
        self.machine.last_error().map(|cause| cause.code)
    }
}

pub(super) fn state_entered(event: &EventKind) -> Option<ServiceState> {
    match event {
        EventKind::StateChanged { to, .. } => Some(*to),
        _ => None,
    }
}

/// Three restarts a minute, three failed checks, 40 s of silence, 400 s without progress.
pub(super) fn spec() -> ServiceSpec {
    ServiceSpec {
        mode: LifecycleMode::Managed,
        unit: None,
        target: target("org/a"),
        launch: LaunchPolicy::Auto,
        restart: RestartPolicy::default(),
        start_timeout: Duration::from_secs(40),
        model_load_timeout: Duration::from_secs(400),
        grace: Duration::from_secs(10),
        max_consecutive_failures: NonZeroU32::MIN.saturating_add(2),
        on_exit: ExitPolicy::Stop,
        xids: XidPolicy::default(),
    }
}

pub(super) fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

/// A moment that is far from the origin of either clock.
pub(super) fn noon() -> Moment {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Moment { monotonic: Duration::from_secs(10_000), wall }
}

pub(super) fn no(number: u64) -> Incarnation {
    Incarnation::new(number)
}

/// The pid of an incarnation's main process.
pub(super) fn pid(incarnation: u64) -> u32 {
    100 + u32::try_from(incarnation).unwrap()
}

/// A request of somebody whose answer does not matter.
pub(super) fn request(request: Request) -> Input {
    Input::Request(Ticket::default(), request)
}

pub(super) fn start() -> Input {
    request(Request::Start)
}

pub(super) fn ensure() -> Input {
    request(Request::Ensure)
}

pub(super) fn stop(mode: StopMode) -> Input {
    request(Request::Stop(mode))
}

pub(super) fn restart() -> Input {
    request(Request::Restart)
}

/// An operator's wish.
pub(super) fn load(name: &str) -> Input {
    request(Request::Load { wanted: model(name).into(), asker: Asker::Operator })
}

/// A program's wish.
pub(super) fn load_by_program(name: &str) -> Input {
    request(Request::Load { wanted: model(name).into(), asker: Asker::Program })
}

pub(super) fn drained(incarnation: u64) -> Input {
    Input::Drained(no(incarnation))
}

pub(super) fn completed(incarnation: u64, text: &str) -> Input {
    Input::Completed(no(incarnation), Some(text.to_owned()))
}

pub(super) fn launch_failed(incarnation: u64, code: Code) -> Input {
    let cause = Cause::new(code, "it could not be started");
    Input::Process(ProcessReport::LaunchFailed { incarnation: no(incarnation), cause })
}

pub(super) fn exited(incarnation: u64) -> Input {
    Input::Process(ProcessReport::Exited { incarnation: no(incarnation), exit: Exit::Signal(9) })
}

pub(super) fn diagnosed(incarnation: u64) -> Input {
    let last_lines = vec!["the last line".to_owned()];
    found(incarnation, Evidence { last_lines, ..Evidence::default() })
}

pub(super) fn found(incarnation: u64, evidence: Evidence) -> Input {
    Input::Process(ProcessReport::Diagnosed { incarnation: no(incarnation), evidence })
}

pub(super) fn vitals_due(incarnation: u64) -> Input {
    Input::Due(Timer::Vitals, no(incarnation))
}

pub(super) fn felt(incarnation: u64, pulse: Option<Pulse>) -> Input {
    Input::Felt(no(incarnation), pulse)
}

pub(super) fn tried(incarnation: u64, trial: Trial) -> Input {
    Input::Tried(no(incarnation), trial)
}

pub(super) fn diagnosis_due(incarnation: u64) -> Input {
    Input::Due(Timer::Diagnosis, no(incarnation))
}

pub(super) fn vacated(incarnation: u64) -> Input {
    Input::Process(ProcessReport::Vacated { incarnation: no(incarnation), proof: proof() })
}

pub(super) fn lingered(incarnation: u64) -> Input {
    let left = Leftover::Process { pid: pid(incarnation), name: "stuck".to_owned() };
    let doubt = Doubt::Left(vec![left]);
    Input::Process(ProcessReport::Lingered { incarnation: no(incarnation), doubt })
}

/// That nothing is left.
pub(super) fn proof() -> Proof {
    Proof::of(Ok(Vec::new())).unwrap()
}

pub(super) fn member_died(incarnation: u64, role: Role, exit: Exit) -> Input {
    let incarnation = no(incarnation);
    Input::Process(ProcessReport::MemberDied { incarnation, pid: 7, role, exit })
}

pub(super) fn look_failed() -> Input {
    let error = ScanError::new("/proc", &"Too many open files");
    Input::Process(ProcessReport::LookFailed { error })
}

pub(super) fn sampled(incarnation: u64, cpu: Duration) -> Input {
    let sample = Sample { work: Work { cpu, io_bytes: 0 }, ..Sample::default() };
    Input::Process(ProcessReport::Sampled { incarnation: no(incarnation), sample })
}

pub(super) fn moved(incarnation: u64, io_bytes: u64) -> Input {
    let sample = Sample { work: Work { cpu: Duration::ZERO, io_bytes }, ..Sample::default() };
    Input::Process(ProcessReport::Sampled { incarnation: no(incarnation), sample })
}

pub(super) fn adopted(incarnation: u64, name: &str) -> Input {
    adopted_in(Phase::Serving, incarnation, name)
}

/// The same, having come so far.
pub(super) fn adopted_in(phase: Phase, incarnation: u64, name: &str) -> Input {
    let (pid, target) = (pid(incarnation), target(name));
    Input::Process(ProcessReport::Adopted { incarnation: no(incarnation), pid, target, phase })
}

/// Without its main process.
pub(super) fn remnant_found(incarnation: u64) -> Input {
    Input::Process(ProcessReport::RemnantFound { incarnation: no(incarnation), pid: None })
}

/// With its main process, but of other settings.
pub(super) fn stranger_found(incarnation: u64) -> Input {
    let pid = Some(pid(incarnation));
    Input::Process(ProcessReport::RemnantFound { incarnation: no(incarnation), pid })
}

pub(super) fn nothing_found() -> Input {
    Input::Process(ProcessReport::NothingFound { proof: proof() })
}

pub(super) fn healthy(incarnation: u64) -> Input {
    let check = Ok(Healthy { latency: Duration::from_millis(3), models: Vec::new() });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn unhealthy(incarnation: u64) -> Input {
    let (url, limit) = ("http://127.0.0.1:8000/health".to_owned(), Duration::from_secs(5));
    let check = Err(HealthFailure::TimedOut { url, limit });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn unauthorised(incarnation: u64) -> Input {
    let url = "http://127.0.0.1:8000/v1/models".to_owned();
    let check = Err(HealthFailure::Unauthorised { url, status: 401 });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn model_missing(incarnation: u64) -> Input {
    let check = Err(HealthFailure::ModelMissing { wanted: "org/a".to_owned(), listed: Vec::new() });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn port_taken(incarnation: u64) -> Input {
    let holder =
        ResourceHolder { pid: Some(9), command: Some("nc -l".to_owned()), user: "bob".into() };
    let url = "http://127.0.0.1:8000/health".to_owned();
    let check = Err(HealthFailure::PortTaken { url, holder });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn listener_unknown(incarnation: u64) -> Input {
    let url = "http://127.0.0.1:8000/health".to_owned();
    let check = Err(HealthFailure::ListenerUnknown { url, reason: "too many files".to_owned() });
    Input::Health(HealthReport { incarnation: no(incarnation), check })
}

pub(super) fn progress(percent: u8) -> ModelLoadProgress {
    ModelLoadProgress::loading(model("org/a"), percent, noon().wall)
}

pub(super) fn loader(incarnation: u64, news: LoadNews) -> Input {
    Input::Loader(LoaderReport { incarnation: no(incarnation), news })
}

pub(super) fn restart_due(incarnation: u64) -> Input {
    Input::Due(Timer::Restart, no(incarnation))
}

pub(super) fn silence_due(incarnation: u64) -> Input {
    Input::Due(Timer::Silence, no(incarnation))
}
