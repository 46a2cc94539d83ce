//! The rows and columns of the table: every kind of input, and every situation that a state with
//! its data amounts to.

use std::num::NonZeroU32;
use std::time::Duration;

use super::gpus::xid;
use super::script::{
    adopted, completed, diagnosed, diagnosis_due, drained, ensure, exited, felt, healthy,
    launch_failed, launched, lingered, listener_unknown, load, load_by_program, loader,
    look_failed, member_died, model_missing, no, noon, nothing_found, pid, port_taken, progress,
    remnant_found, restart, restart_due, sampled, silence_due, spec, start, stop, tried, unhealthy,
    vacated, vitals_due,
};
use super::world::about;
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::{Exit, Phase};
use crate::domain::gpu::{FindingNews, GpuAction};
use crate::domain::health::HealthFailure;
use crate::domain::id::Sequence;
use crate::domain::input::{Asker, Effect, Input, Request, StopMode, Timer};
use crate::domain::liveness::Trial;
use crate::domain::loading::LoadNews;
use crate::domain::machine::{Machine, Resume};
use crate::domain::moment::Moment;
use crate::domain::report::{HealthReport, LoaderReport, ProcessReport, Role, Work};
use crate::domain::spec::ServiceSpec;
use crate::domain::state::{
    Announcement, Cleanup, Crashed, FirstOutput, Loss, Next, Obstacle, Origin, Postponement,
    Running, Silence, Stage, Starting, State, Stopping, Then, Undecided, Unknown,
};

mod states;

use states::state_in;

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
    /// `Doomed` is loading without a process that it needs. `Quiet` is loading and asked for the last time whether it moves. `Look…` is unknown before the first look, `Lost…` unknown since the process actor was lost,
    /// `Hang…` unknown because something outlives SIGKILL, `Dark…` and `Blind…` as `Look…` and `Lost…`
    /// when the look has failed, `Blank…` as `Seek…` when it has, `Drain…` stopping once the requests have
    /// ended, `End…` stopping, `Clear…` crashed with something left, `Stuck…` with something that
    /// outlives SIGKILL, `Seek…` with perhaps something left that is being looked for, `Backoff` crashed with nothing left; `…Open` is crashed and not
    /// judged yet, `DoneOpen` with nothing left.
    /// `…Idle`, `…Rest`, `…Up` and `…Anew` are [`Then::AsFound`], [`Then::Rest`], [`Then::Launch`]
    /// and [`Then::Replace`].
    Situation {
        LookIdle, LookRest, LookUp, LookAnew, LostIdle, LostRest, LostUp, LostAnew, HangIdle, HangRest,
        HangUp, HangAnew, DarkIdle, DarkRest, DarkUp, DarkAnew, BlindIdle, BlindRest, BlindUp, BlindAnew,
        Stopped, Failed, Silent, Loading, Quiet, Doomed, Running, DrainRest, DrainUp, EndIdle, EndRest, EndUp,
        ClearAt, ClearNow, ClearGive, StuckAt, StuckNow, StuckGive, SeekAt, SeekNow, SeekGive,
        BlankAt, BlankNow, BlankGive, Backoff, ClearOpen, StuckOpen, SeekOpen, BlankOpen, DoneOpen,
    }
}

listed! {
    /// An input, about incarnation 1 where it is about one.
    Kind {
        Start, Ensure, StopGraceful, StopImmediate, Restart, LoadSame, LoadOther, NeedSame,
        NeedOther, ShutDown, Drained, Completed, Felt, Tried,
        Adopted, RemnantFound, NothingFound, LookFailed,
        Launched, LaunchFailed, Exited, MemberDied, Diagnosed, Vacated, Lingered, Sampled,
        Healthy, Unhealthy, ModelMissing, PortTaken, ListenerUnknown, Began, Progressed, Stands, Listens,
        GpuBroken, GpuFaulty, GpuWell,
        RestartDue, SilenceDue, DrainDue, VitalsDue, DiagnosisDue, WindowDue, EndDue, ProcessActorLost,
    }
}

/// An effect without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Adopt,
    Launch,
    Watch,
    FinishLoading,
    Probe,
    Disregard,
    Drain,
    Stop,
    Clear,
    Sample,
    FeelPulse,
    AskForToken,
    Schedule,
    Prepare,
    Rest,
    Compare,
    Remember,
    Diagnose,
    End,
}

/// The situation that a state amounts to.
pub(super) fn situation(state: &State) -> Situation {
    match state {
        State::Unknown(unknown) => situation_of_unknown(unknown),
        State::Stopped => Situation::Stopped,
        State::Starting(Starting { pid: None, .. }) => Situation::Silent,
        State::Starting(Starting { loss: Some(_), .. }) => Situation::Doomed,
        State::Starting(Starting { pid: Some(_), silence, .. }) => match silence {
            Silence::Borne => Situation::Loading,
            Silence::Questioned => Situation::Quiet,
        },
        State::Running(_) => Situation::Running,
        State::Stopping(Stopping { stage: Stage::Draining { .. }, then, .. }) => match then {
            Then::Rest => Situation::DrainRest,
            Then::Launch(_) | Then::Replace => Situation::DrainUp,
            Then::AsFound => panic!("what is drained was asked to stop"),
        },
        State::Stopping(Stopping { stage: Stage::Ending, then, .. }) => match then {
            Then::AsFound => Situation::EndIdle,
            Then::Rest => Situation::EndRest,
            Then::Launch(_) | Then::Replace => Situation::EndUp,
        },
        State::Crashed(Crashed { cleanup, next, .. }) => match (cleanup, next) {
            (Cleanup::Underway, Next::Undecided(_)) => Situation::ClearOpen,
            (Cleanup::Blocked(_), Next::Undecided(_)) => Situation::StuckOpen,
            (Cleanup::Searching, Next::Undecided(_)) => Situation::SeekOpen,
            (Cleanup::Unseen(_), Next::Undecided(_)) => Situation::BlankOpen,
            (Cleanup::Done, Next::Undecided(_)) => Situation::DoneOpen,
            (Cleanup::Underway, Next::RestartAt(_)) => Situation::ClearAt,
            (Cleanup::Underway, Next::RestartNow(_)) => Situation::ClearNow,
            (Cleanup::Underway, Next::GiveUp(_)) => Situation::ClearGive,
            (Cleanup::Blocked(_), Next::RestartAt(_)) => Situation::StuckAt,
            (Cleanup::Blocked(_), Next::RestartNow(_)) => Situation::StuckNow,
            (Cleanup::Blocked(_), Next::GiveUp(_)) => Situation::StuckGive,
            (Cleanup::Searching, Next::RestartAt(_)) => Situation::SeekAt,
            (Cleanup::Searching, Next::RestartNow(_)) => Situation::SeekNow,
            (Cleanup::Searching, Next::GiveUp(_)) => Situation::SeekGive,
            (Cleanup::Unseen(_), Next::RestartAt(_)) => Situation::BlankAt,
            (Cleanup::Unseen(_), Next::RestartNow(_)) => Situation::BlankNow,
            (Cleanup::Unseen(_), Next::GiveUp(_)) => Situation::BlankGive,
            (Cleanup::Done, Next::RestartAt(_)) => Situation::Backoff,
            (Cleanup::Done, Next::RestartNow(_) | Next::GiveUp(_)) => {
                panic!("with nothing left, a crash goes on at once")
            }
        },
        State::Failed { .. } => Situation::Failed,
    }
}

fn situation_of_unknown(unknown: &Unknown) -> Situation {
    use Situation as S;
    let [idle, rest, up, anew] = match (&unknown.obstacle, unknown.incarnation) {
        (Obstacle::None, None) => [S::LookIdle, S::LookRest, S::LookUp, S::LookAnew],
        (Obstacle::None, Some(_)) => [S::LostIdle, S::LostRest, S::LostUp, S::LostAnew],
        (Obstacle::Unseen(_), None) => [S::DarkIdle, S::DarkRest, S::DarkUp, S::DarkAnew],
        (Obstacle::Unseen(_), Some(_)) => [S::BlindIdle, S::BlindRest, S::BlindUp, S::BlindAnew],
        (Obstacle::Lingering(_), Some(_)) => [S::HangIdle, S::HangRest, S::HangUp, S::HangAnew],
        (Obstacle::Lingering(_), None) => panic!("what lingers is known"),
    };
    match unknown.then {
        Then::AsFound => idle,
        Then::Rest => rest,
        Then::Launch(_) => up,
        Then::Replace => anew,
    }
}

/// A machine in this situation, whose last launch was incarnation 1. One failed check is enough.
pub(super) fn machine_in(situation: Situation) -> Machine {
    let spec = ServiceSpec { max_consecutive_failures: NonZeroU32::MIN, ..spec() };
    let resume = Resume { sequence: Sequence::NONE, incarnation: no(1) };
    Machine { state: state_in(situation), ..Machine::new(spec, resume) }
}

/// That it is to be up, as somebody asked.
const UP: Then = Then::Launch(Origin::Asked);

/// The kind of an input.
pub(super) fn kind(input: &Input) -> Kind {
    match input {
        Input::Request(_, request) => kind_of_request(request),
        Input::ShutDown => Kind::ShutDown,
        Input::Drained(_) => Kind::Drained,
        Input::Completed(..) => Kind::Completed,
        Input::Felt(..) => Kind::Felt,
        Input::Tried(..) => Kind::Tried,
        Input::Process(report) => kind_of_process_report(report),
        Input::Health(HealthReport { check, .. }) => match check {
            Ok(_) => Kind::Healthy,
            Err(HealthFailure::ModelMissing { .. }) => Kind::ModelMissing,
            Err(HealthFailure::PortTaken { .. }) => Kind::PortTaken,
            Err(HealthFailure::ListenerUnknown { .. }) => Kind::ListenerUnknown,
            Err(
                HealthFailure::Unreachable { .. }
                | HealthFailure::TimedOut { .. }
                | HealthFailure::Refused { .. }
                | HealthFailure::Unauthorised { .. }
                | HealthFailure::NotVllm { .. },
            ) => Kind::Unhealthy,
        },
        Input::Loader(LoaderReport { news, .. }) => match news {
            LoadNews::Began => Kind::Began,
            LoadNews::Progressed(_) => Kind::Progressed,
            LoadNews::Stands(_) => Kind::Stands,
            LoadNews::Listens => Kind::Listens,
        },
        Input::Found(FindingNews::Cleared(_)) => Kind::GpuWell,
        Input::Found(FindingNews::Raised(finding)) if finding.action.blocks() => Kind::GpuBroken,
        Input::Found(FindingNews::Raised(_)) => Kind::GpuFaulty,
        Input::Due(Timer::Restart, _) => Kind::RestartDue,
        Input::Due(Timer::Silence, _) => Kind::SilenceDue,
        Input::Due(Timer::Drain, _) => Kind::DrainDue,
        Input::Due(Timer::Vitals, _) => Kind::VitalsDue,
        Input::Due(Timer::Diagnosis, _) => Kind::DiagnosisDue,
        Input::Due(Timer::Window, _) => Kind::WindowDue,
        Input::Due(Timer::End, _) => Kind::EndDue,
        Input::ProcessActorLost => Kind::ProcessActorLost,
    }
}

fn kind_of_request(request: &Request) -> Kind {
    match request {
        Request::Start => Kind::Start,
        Request::Ensure => Kind::Ensure,
        Request::Stop(StopMode::Graceful) => Kind::StopGraceful,
        Request::Stop(StopMode::Immediate) => Kind::StopImmediate,
        Request::Restart => Kind::Restart,
        Request::Load { wanted, asker: Asker::Operator } if wanted.is(&spec().target) => {
            Kind::LoadSame
        }
        Request::Load { asker: Asker::Operator, .. } => Kind::LoadOther,
        Request::Load { wanted, asker: Asker::Program } if wanted.is(&spec().target) => {
            Kind::NeedSame
        }
        Request::Load { asker: Asker::Program, .. } => Kind::NeedOther,
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
        ProcessReport::NothingFound { .. } => Kind::NothingFound,
        ProcessReport::LookFailed { .. } => Kind::LookFailed,
        ProcessReport::MemberDied { .. } => Kind::MemberDied,
        ProcessReport::Diagnosed { .. } => Kind::Diagnosed,
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
        Kind::Start => start(),
        Kind::Ensure => ensure(),
        Kind::StopGraceful => stop(StopMode::Graceful),
        Kind::StopImmediate => stop(StopMode::Immediate),
        Kind::Restart => restart(),
        Kind::LoadSame => load("org/a"),
        Kind::LoadOther => load("org/b"),
        Kind::NeedSame => load_by_program("org/a"),
        Kind::NeedOther => load_by_program("org/b"),
        Kind::ShutDown => Input::ShutDown,
        Kind::Drained => drained(incarnation),
        Kind::Completed => completed(incarnation, "one"),
        Kind::Adopted => adopted(incarnation, "org/a"),
        Kind::RemnantFound => remnant_found(incarnation),
        Kind::NothingFound => nothing_found(),
        Kind::LookFailed => look_failed(),
        Kind::MemberDied => member_died(incarnation, Role::Worker, Exit::Signal(9)),
        Kind::Launched => launched(incarnation),
        Kind::LaunchFailed => launch_failed(incarnation, Code::PortInUse),
        Kind::Exited => exited(incarnation),
        Kind::Felt => felt(incarnation, None),
        Kind::Tried => tried(incarnation, Trial::None),
        Kind::VitalsDue => vitals_due(incarnation),
        Kind::Diagnosed => diagnosed(incarnation),
        Kind::DiagnosisDue => diagnosis_due(incarnation),
        Kind::Vacated => vacated(incarnation),
        Kind::Lingered => lingered(incarnation),
        Kind::Sampled => sampled(incarnation, Duration::from_secs(1)),
        Kind::Healthy => healthy(incarnation),
        Kind::Unhealthy => unhealthy(incarnation),
        Kind::ModelMissing => model_missing(incarnation),
        Kind::PortTaken => port_taken(incarnation),
        Kind::ListenerUnknown => listener_unknown(incarnation),
        Kind::Began => loader(incarnation, LoadNews::Began),
        Kind::Progressed => loader(incarnation, LoadNews::Progressed(progress(50))),
        Kind::Stands => loader(incarnation, LoadNews::Stands(progress(50))),
        Kind::Listens => loader(incarnation, LoadNews::Listens),
        Kind::GpuBroken => Input::Found(FindingNews::Raised(xid(79, GpuAction::Reboot))),
        Kind::GpuFaulty => {
            Input::Found(FindingNews::Raised(xid(31, GpuAction::RestartApplication)))
        }
        Kind::GpuWell => Input::Found(FindingNews::Cleared(xid(79, GpuAction::Reboot))),
        Kind::RestartDue => restart_due(incarnation),
        Kind::SilenceDue => silence_due(incarnation),
        Kind::DrainDue => Input::Due(Timer::Drain, no(incarnation)),
        Kind::WindowDue => Input::Due(Timer::Window, no(incarnation)),
        Kind::EndDue => Input::Due(Timer::End, no(incarnation)),
        Kind::ProcessActorLost => Input::ProcessActorLost,
    }
}

/// The kind of an effect.
pub(super) fn act(effect: &Effect) -> Act {
    match effect {
        Effect::Adopt => Act::Adopt,
        Effect::Launch { .. } => Act::Launch,
        Effect::Watch { .. } => Act::Watch,
        Effect::FinishLoading { .. } => Act::FinishLoading,
        Effect::Probe { .. } => Act::Probe,
        Effect::Disregard => Act::Disregard,
        Effect::Drain { .. } => Act::Drain,
        Effect::Stop { .. } => Act::Stop,
        Effect::Clear { .. } => Act::Clear,
        Effect::Sample { .. } => Act::Sample,
        Effect::FeelPulse { .. } => Act::FeelPulse,
        Effect::AskForToken { .. } => Act::AskForToken,
        Effect::Schedule { .. } => Act::Schedule,
        Effect::Prepare { .. } => Act::Prepare,
        Effect::Rest => Act::Rest,
        Effect::Compare { .. } => Act::Compare,
        Effect::Remember { .. } => Act::Remember,
        Effect::Diagnose { .. } => Act::Diagnose,
        Effect::End => Act::End,
    }
}
