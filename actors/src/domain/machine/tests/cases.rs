//! The rows and columns of the table: every kind of input, and every situation that a state with
//! its data amounts to.

use std::num::NonZeroU32;
use std::time::Duration;

use super::script::{
    about, adopted, exited, healthy, launch_failed, launched, lingered, load, loader,
    model_missing, no, noon, nothing_found, pid, progress, remnant_found, restart_due, sampled,
    silence_due, spec, unhealthy, vacated,
};
use crate::domain::cause::{Cause, Code};
use crate::domain::health::HealthFailure;
use crate::domain::id::Sequence;
use crate::domain::input::{Effect, Input, StopMode, Timer};
use crate::domain::loading::LoadNews;
use crate::domain::machine::{Machine, Resume};
use crate::domain::report::{HealthReport, LoaderReport, ProcessReport, Work};
use crate::domain::spec::ServiceSpec;
use crate::domain::state::{
    Crashed, Next, Remains, Running, Starting, State, Stopping, Then, Unknown, Voice,
};

/// An enum that cannot forget one of its own in `ALL`.
macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($variant),* }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

listed! {
    /// A state with as much of its data as decides what follows.
    ///
    /// `Look…` is unknown before the first look, `Lost…` unknown since the process actor was lost,
    /// `Hang…` unknown because something outlives SIGKILL, `End…` stopping, `Clear…` crashed with something left, `Seek…` crashed with perhaps something
    /// left that is being looked for, `Backoff` crashed with nothing left.
    /// `…Idle`, `…Rest` and `…Up` are [`Then::Settle`], [`Then::Rest`] and [`Then::Launch`].
    Situation {
        LookIdle, LookRest, LookUp, LostIdle, LostRest, LostUp, HangIdle, HangRest, HangUp,
        Stopped, Failed, Silent, Loading, Running, EndIdle, EndRest, EndUp,
        ClearAt, ClearNow, ClearGive, SeekAt, SeekNow, SeekGive, Backoff,
    }
}

listed! {
    /// An input, about incarnation 1 where it is about one.
    Kind {
        Start, Ensure, StopGraceful, StopImmediate, Restart, LoadSame, LoadOther,
        Adopted, RemnantFound, NothingFound,
        Launched, LaunchFailed, Exited, Vacated, Lingered, Sampled,
        Healthy, Unhealthy, ModelMissing, Began, Progressed, Stands, Listens,
        RestartDue, SilenceDue, ProcessActorLost,
    }
}

/// An effect without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Adopt,
    Launch,
    Attend,
    Settle,
    Probe,
    Disregard,
    Stop,
    Clear,
    SampleWork,
    Schedule,
    Record,
}

/// The situation that a state amounts to.
pub(super) fn situation(state: &State) -> Situation {
    match state {
        State::Unknown(Unknown { incarnation: None, then, .. }) => match then {
            Then::Settle => Situation::LookIdle,
            Then::Rest => Situation::LookRest,
            Then::Launch => Situation::LookUp,
        },
        State::Unknown(Unknown { incarnation: Some(_), then, lingering: None }) => match then {
            Then::Settle => Situation::LostIdle,
            Then::Rest => Situation::LostRest,
            Then::Launch => Situation::LostUp,
        },
        State::Unknown(Unknown { incarnation: Some(_), then, lingering: Some(_) }) => match then {
            Then::Settle => Situation::HangIdle,
            Then::Rest => Situation::HangRest,
            Then::Launch => Situation::HangUp,
        },
        State::Stopped => Situation::Stopped,
        State::Starting(Starting { pid: None, .. }) => Situation::Silent,
        State::Starting(Starting { pid: Some(_), .. }) => Situation::Loading,
        State::Running(_) => Situation::Running,
        State::Stopping(Stopping { then, .. }) => match then {
            Then::Settle => Situation::EndIdle,
            Then::Rest => Situation::EndRest,
            Then::Launch => Situation::EndUp,
        },
        State::Crashed(Crashed { remains, next, .. }) => match (remains, next) {
            (Remains::Clearing, Next::RestartAt(_)) => Situation::ClearAt,
            (Remains::Clearing, Next::RestartNow) => Situation::ClearNow,
            (Remains::Clearing, Next::GiveUp(_)) => Situation::ClearGive,
            (Remains::Sought, Next::RestartAt(_)) => Situation::SeekAt,
            (Remains::Sought, Next::RestartNow) => Situation::SeekNow,
            (Remains::Sought, Next::GiveUp(_)) => Situation::SeekGive,
            (Remains::Gone, Next::RestartAt(_)) => Situation::Backoff,
            (Remains::Gone, Next::RestartNow | Next::GiveUp(_)) => {
                panic!("with nothing left, a crash goes on at once")
            }
        },
        State::Failed { .. } => Situation::Failed,
    }
}

/// A machine in this situation, whose last launch was incarnation 1. One failed check is enough.
pub(super) fn machine_in(situation: Situation) -> Machine {
    let spec = ServiceSpec { max_consecutive_failures: NonZeroU32::MIN, ..spec() };
    let resume = Resume { sequence: Sequence::NONE, incarnation: no(1) };
    Machine { state: state_in(situation), ..Machine::new(spec, resume) }
}

fn state_in(situation: Situation) -> State {
    let unknown =
        |incarnation, then| State::Unknown(Unknown { incarnation, then, lingering: None });
    let hanging = |then| {
        let lingering = Some(Cause::new(Code::EngineHung, "it outlives SIGKILL"));
        State::Unknown(Unknown { incarnation: Some(no(1)), then, lingering })
    };
    let stopping = |then| State::Stopping(Stopping { incarnation: no(1), then });
    let crashed = |remains, next| {
        let cause = Cause::new(Code::EngineDied, "it died");
        State::Crashed(Crashed { incarnation: no(1), cause, remains, next })
    };
    let limit = Cause::new(Code::RestartLimitReached, "too often");
    match situation {
        Situation::LookIdle => unknown(None, Then::Settle),
        Situation::LookRest => unknown(None, Then::Rest),
        Situation::LookUp => unknown(None, Then::Launch),
        Situation::LostIdle => unknown(Some(no(1)), Then::Settle),
        Situation::LostRest => unknown(Some(no(1)), Then::Rest),
        Situation::LostUp => unknown(Some(no(1)), Then::Launch),
        Situation::HangIdle => hanging(Then::Settle),
        Situation::HangRest => hanging(Then::Rest),
        Situation::HangUp => hanging(Then::Launch),
        Situation::Stopped => State::Stopped,
        Situation::Failed => State::Failed { cause: limit },
        Situation::Silent => State::Starting(starting(None)),
        Situation::Loading => State::Starting(starting(Some(pid(1)))),
        Situation::Running => {
            let (incarnation, pid, since) = (no(1), pid(1), noon());
            State::Running(Running { incarnation, pid, since, failures: 0 })
        }
        Situation::EndIdle => stopping(Then::Settle),
        Situation::EndRest => stopping(Then::Rest),
        Situation::EndUp => stopping(Then::Launch),
        Situation::ClearAt => crashed(Remains::Clearing, Next::RestartAt(noon().wall)),
        Situation::ClearNow => crashed(Remains::Clearing, Next::RestartNow),
        Situation::ClearGive => crashed(Remains::Clearing, Next::GiveUp(limit)),
        Situation::SeekAt => crashed(Remains::Sought, Next::RestartAt(noon().wall)),
        Situation::SeekNow => crashed(Remains::Sought, Next::RestartNow),
        Situation::SeekGive => crashed(Remains::Sought, Next::GiveUp(limit)),
        Situation::Backoff => crashed(Remains::Gone, Next::RestartAt(noon().wall)),
    }
}

fn starting(pid: Option<u32>) -> Starting {
    Starting {
        incarnation: no(1),
        pid,
        since: noon(),
        voice: Voice::Silent,
        last_sign: noon(),
        work: (noon(), Work::default()),
        progress: None,
        misses: 0,
    }
}

/// The kind of an input.
pub(super) fn kind(input: &Input) -> Kind {
    match input {
        Input::Start => Kind::Start,
        Input::Ensure => Kind::Ensure,
        Input::Stop(StopMode::Graceful) => Kind::StopGraceful,
        Input::Stop(StopMode::Immediate) => Kind::StopImmediate,
        Input::Restart => Kind::Restart,
        Input::Load(model) if *model == spec().model => Kind::LoadSame,
        Input::Load(_) => Kind::LoadOther,
        Input::Process(report) => kind_of_process_report(report),
        Input::Health(HealthReport { check, .. }) => match check {
            Ok(_) => Kind::Healthy,
            Err(HealthFailure::ModelMissing { .. }) => Kind::ModelMissing,
            Err(
                HealthFailure::Unreachable { .. }
                | HealthFailure::PortTaken { .. }
                | HealthFailure::ListenerUnknown { .. }
                | HealthFailure::TimedOut { .. }
                | HealthFailure::Refused { .. }
                | HealthFailure::NotVllm { .. },
            ) => Kind::Unhealthy,
        },
        Input::Loader(LoaderReport { news, .. }) => match news {
            LoadNews::Began => Kind::Began,
            LoadNews::Progressed(_) => Kind::Progressed,
            LoadNews::Stands(_) => Kind::Stands,
            LoadNews::Listens => Kind::Listens,
        },
        Input::Due(Timer::Restart, _) => Kind::RestartDue,
        Input::Due(Timer::Silence, _) => Kind::SilenceDue,
        Input::ProcessActorLost => Kind::ProcessActorLost,
    }
}

fn kind_of_process_report(report: &ProcessReport) -> Kind {
    match report {
        ProcessReport::Launched { .. } => Kind::Launched,
        ProcessReport::LaunchFailed { .. } => Kind::LaunchFailed,
        ProcessReport::Exited { .. } => Kind::Exited,
        ProcessReport::Vacated { .. } => Kind::Vacated,
        ProcessReport::Lingered { .. } => Kind::Lingered,
        ProcessReport::Sampled { .. } => Kind::Sampled,
        ProcessReport::Adopted { .. } => Kind::Adopted,
        ProcessReport::RemnantFound { .. } => Kind::RemnantFound,
        ProcessReport::NothingFound => Kind::NothingFound,
    }
}

/// An input of this kind, about incarnation 1 where it is about one.
pub(super) fn input(kind: Kind) -> Input {
    input_about(1, kind)
}

/// The same input about an incarnation of long ago, where it is about one.
pub(super) fn about_the_past(kind: Kind) -> Option<Input> {
    let stale = input_about(0, kind);
    about(&stale).is_some().then_some(stale)
}

fn input_about(incarnation: u64, kind: Kind) -> Input {
    match kind {
        Kind::Start => Input::Start,
        Kind::Ensure => Input::Ensure,
        Kind::StopGraceful => Input::Stop(StopMode::Graceful),
        Kind::StopImmediate => Input::Stop(StopMode::Immediate),
        Kind::Restart => Input::Restart,
        Kind::LoadSame => load("org/a"),
        Kind::LoadOther => load("org/b"),
        Kind::Adopted => adopted(incarnation, "org/a"),
        Kind::RemnantFound => remnant_found(incarnation),
        Kind::NothingFound => nothing_found(),
        Kind::Launched => launched(incarnation),
        Kind::LaunchFailed => launch_failed(incarnation, Code::PortInUse),
        Kind::Exited => exited(incarnation),
        Kind::Vacated => vacated(incarnation),
        Kind::Lingered => lingered(incarnation),
        Kind::Sampled => sampled(incarnation, Duration::from_secs(1)),
        Kind::Healthy => healthy(incarnation),
        Kind::Unhealthy => unhealthy(incarnation),
        Kind::ModelMissing => model_missing(incarnation),
        Kind::Began => loader(incarnation, LoadNews::Began),
        Kind::Progressed => loader(incarnation, LoadNews::Progressed(progress(50))),
        Kind::Stands => loader(incarnation, LoadNews::Stands(progress(50))),
        Kind::Listens => loader(incarnation, LoadNews::Listens),
        Kind::RestartDue => restart_due(incarnation),
        Kind::SilenceDue => silence_due(incarnation),
        Kind::ProcessActorLost => Input::ProcessActorLost,
    }
}

/// The kind of an effect.
pub(super) fn act(effect: &Effect) -> Act {
    match effect {
        Effect::Adopt => Act::Adopt,
        Effect::Launch { .. } => Act::Launch,
        Effect::Attend { .. } => Act::Attend,
        Effect::Settle { .. } => Act::Settle,
        Effect::Probe { .. } => Act::Probe,
        Effect::Disregard => Act::Disregard,
        Effect::Stop { .. } => Act::Stop,
        Effect::Clear { .. } => Act::Clear,
        Effect::SampleWork { .. } => Act::SampleWork,
        Effect::Schedule { .. } => Act::Schedule,
        Effect::Record(_) => Act::Record,
    }
}
