//! The state of each situation.

use super::*;
use crate::domain::liveness::Liveness;
use crate::domain::phases::Stopwatch;
use crate::domain::state::Differed;
use crate::domain::trust::{LaunchMethod, Recall};

pub(super) fn state_in(situation: Situation) -> State {
    let stopping = |stage, then| State::Stopping(Stopping { incarnation: no(1), stage, then });
    let (until, postponement) = (noon().monotonic, Postponement::Left);
    let draining = Stage::Draining { phase: Phase::Serving, until, postponement };
    match situation {
        Situation::LookIdle
        | Situation::LookRest
        | Situation::LookUp
        | Situation::LookAnew
        | Situation::LostIdle
        | Situation::LostRest
        | Situation::LostUp
        | Situation::LostAnew
        | Situation::HangIdle
        | Situation::HangRest
        | Situation::HangUp
        | Situation::HangAnew
        | Situation::DarkIdle
        | Situation::DarkRest
        | Situation::DarkUp
        | Situation::DarkAnew
        | Situation::BlindIdle
        | Situation::BlindRest
        | Situation::BlindUp
        | Situation::BlindAnew => unknown_in(situation),
        Situation::Stopped => State::Stopped,
        Situation::Failed => {
            State::Failed { cause: Cause::new(Code::RestartLimitReached, "too often") }
        }
        Situation::Silent => State::Starting(starting(None)),
        Situation::Loading => State::Starting(starting(Some(pid(1)))),
        Situation::Quiet => quiet(),
        Situation::Doomed => doomed(),
        Situation::Running => State::Running(running()),
        Situation::DrainRest => stopping(draining, Then::Rest),
        Situation::DrainUp => stopping(draining, UP),
        Situation::EndIdle => stopping(Stage::Ending, Then::AsFound),
        Situation::EndRest => stopping(Stage::Ending, Then::Rest),
        Situation::EndUp => stopping(Stage::Ending, UP),
        Situation::ClearAt
        | Situation::ClearNow
        | Situation::ClearGive
        | Situation::StuckAt
        | Situation::StuckNow
        | Situation::StuckGive
        | Situation::SeekAt
        | Situation::SeekNow
        | Situation::SeekGive
        | Situation::BlankAt
        | Situation::BlankNow
        | Situation::BlankGive
        | Situation::Backoff
        | Situation::ClearOpen
        | Situation::StuckOpen
        | Situation::SeekOpen
        | Situation::BlankOpen
        | Situation::DoneOpen => crashed_in(situation),
    }
}

fn quiet() -> State {
    let long_ago = Moment { monotonic: Duration::ZERO, ..noon() };
    let (last_sign, silence) = (long_ago, Silence::Questioned);
    let last_busy = last_sign;
    State::Starting(Starting { last_sign, last_busy, silence, ..starting(Some(pid(1))) })
}

fn doomed() -> State {
    let (cause, exit) = (Cause::new(Code::EngineDied, "it died"), Exit::Code(1));
    let loss = Some(Box::new(Loss { cause, exit }));
    State::Starting(Starting { loss, ..starting(Some(pid(1))) })
}

fn unknown_in(situation: Situation) -> State {
    let unknown =
        |incarnation, then| State::Unknown(Unknown { incarnation, then, obstacle: Obstacle::None });
    let blind = |incarnation, then| {
        let obstacle = Obstacle::Unseen(Cause::new(Code::Unrecognised, "nobody can look"));
        State::Unknown(Unknown { incarnation, then, obstacle })
    };
    let hanging = |then| {
        let obstacle = Obstacle::Lingering(Cause::new(Code::EngineHung, "it outlives SIGKILL"));
        State::Unknown(Unknown { incarnation: Some(no(1)), then, obstacle })
    };
    match situation {
        Situation::LookIdle => unknown(None, Then::AsFound),
        Situation::LookRest => unknown(None, Then::Rest),
        Situation::LookUp => unknown(None, UP),
        Situation::LookAnew => unknown(None, Then::Replace),
        Situation::LostIdle => unknown(Some(no(1)), Then::AsFound),
        Situation::LostRest => unknown(Some(no(1)), Then::Rest),
        Situation::LostUp => unknown(Some(no(1)), UP),
        Situation::LostAnew => unknown(Some(no(1)), Then::Replace),
        Situation::HangIdle => hanging(Then::AsFound),
        Situation::HangRest => hanging(Then::Rest),
        Situation::HangUp => hanging(UP),
        Situation::HangAnew => hanging(Then::Replace),
        Situation::DarkIdle => blind(None, Then::AsFound),
        Situation::DarkRest => blind(None, Then::Rest),
        Situation::DarkUp => blind(None, UP),
        Situation::DarkAnew => blind(None, Then::Replace),
        Situation::BlindIdle => blind(Some(no(1)), Then::AsFound),
        Situation::BlindRest => blind(Some(no(1)), Then::Rest),
        Situation::BlindUp => blind(Some(no(1)), UP),
        Situation::BlindAnew => blind(Some(no(1)), Then::Replace),
        other => panic!("{other:?} is not unknown"),
    }
}

fn crashed_in(situation: Situation) -> State {
    let stuck = || Cleanup::Blocked(Cause::new(Code::Unrecognised, "it outlives SIGKILL"));
    let unseen = || Cleanup::Unseen(Cause::new(Code::Unrecognised, "nobody can look"));
    let now = Next::RestartNow(Origin::Restart);
    let crashed = |cleanup, next| {
        let cause = Cause::new(Code::EngineDied, "it died");
        State::Crashed(Crashed { incarnation: no(1), cause, cleanup, next })
    };
    let limit = Cause::new(Code::RestartLimitReached, "too often");
    match situation {
        Situation::ClearAt => crashed(Cleanup::Underway, Next::RestartAt(noon().monotonic)),
        Situation::ClearNow => crashed(Cleanup::Underway, now),
        Situation::ClearGive => crashed(Cleanup::Underway, Next::GiveUp(limit)),
        Situation::StuckAt => crashed(stuck(), Next::RestartAt(noon().monotonic)),
        Situation::StuckNow => crashed(stuck(), now),
        Situation::StuckGive => crashed(stuck(), Next::GiveUp(limit)),
        Situation::SeekAt => crashed(Cleanup::Searching, Next::RestartAt(noon().monotonic)),
        Situation::SeekNow => crashed(Cleanup::Searching, now),
        Situation::SeekGive => crashed(Cleanup::Searching, Next::GiveUp(limit)),
        Situation::BlankAt => crashed(unseen(), Next::RestartAt(noon().monotonic)),
        Situation::BlankNow => crashed(unseen(), now),
        Situation::BlankGive => crashed(unseen(), Next::GiveUp(limit)),
        Situation::Backoff => crashed(Cleanup::Done, Next::RestartAt(noon().monotonic)),
        Situation::ClearOpen => crashed(Cleanup::Underway, undecided()),
        Situation::StuckOpen => crashed(stuck(), undecided()),
        Situation::SeekOpen => crashed(Cleanup::Searching, undecided()),
        Situation::BlankOpen => crashed(unseen(), undecided()),
        Situation::DoneOpen => crashed(Cleanup::Done, undecided()),
        other => panic!("{other:?} is no crash"),
    }
}

fn undecided() -> Next {
    Next::Undecided(Box::new(Undecided {
        at: noon().wall,
        exit: Some(Exit::Signal(9)),
        has_run: true,
        model: spec().target.model,
        healthy_for: None,
        origin: Origin::Restart,
        given_up: None,
    }))
}

fn starting(pid: Option<u32>) -> Starting {
    Starting {
        incarnation: no(1),
        pid,
        target: spec().target,
        origin: Origin::Restart,
        method: LaunchMethod::Tree,
        recall: Recall::NotCompared,
        since: noon(),
        first_output: FirstOutput::Awaited,
        last_sign: noon(),
        last_busy: noon(),
        next_look: noon().monotonic,
        silence: Silence::Borne,
        work: (noon(), Work::default()),
        loss: None,
        pace: Box::default(),
        progress: None,
        misses: 0,
        announcement: Announcement::Awaited,
        stopwatch: Box::new(Stopwatch::begin(noon().monotonic)),
        last_failure: None,
    }
}

fn running() -> Running {
    Running {
        incarnation: no(1),
        target: spec().target,
        pid: pid(1),
        since: noon(),
        phases: None,
        method: LaunchMethod::Tree,
        recall: Recall::NotCompared,
        differed: Differed::Never,
        failures: 0,
        liveness: Liveness::begin(noon().monotonic),
        next_look: noon().monotonic,
    }
}
