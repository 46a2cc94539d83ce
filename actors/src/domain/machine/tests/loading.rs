//! From a launch to health, and every way in which that fails.

use std::time::Duration;

use super::script::{
    Script, adopted, healthy, launched, launched_again, listener_unknown, loader, model,
    model_missing, moved, port_taken, progress, sampled, silence_due, start, unhealthy,
};
use crate::domain::cause::Code;
use crate::domain::course::Course;
use crate::domain::event::EventKind;
use crate::domain::input::{Effect, Timer};
use crate::domain::loading::{LoadNews, LoadStatus, ModelLoadProgress};
use crate::domain::state::ServiceState;
use crate::domain::trust::{LaunchMethod, Memory};

#[test]
fn a_launch_that_passes_a_check_runs_and_is_fully_loaded() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Progressed(progress(55))));
    let outcome = s.on(healthy(1));
    assert_eq!(outcome.path, [ServiceState::Running]);
    let loaded = last_progress(&outcome.events);
    assert_eq!((loaded.percent, loaded.status), (100, LoadStatus::Loaded));
    assert_eq!(loaded.completed_at, Some(s.now.wall));
}

#[test]
fn an_answer_before_our_process_exists_is_somebody_elses() {
    let mut s = Script::stopped();
    s.on(start());
    assert!(s.on(healthy(1)).is_nothing());
    s.on(launched(1));
    assert_eq!(s.on(healthy(1)).path, [ServiceState::Running]);
}

#[test]
fn a_server_that_does_not_answer_yet_is_no_failure() {
    let mut s = Script::starting();
    for _ in 0..100 {
        assert!(s.on(unhealthy(1)).is_nothing());
    }
}

#[test]
fn a_server_that_is_up_without_the_model_fails_after_as_many_checks() {
    let mut s = Script::starting();
    for check in [model_missing(1), model_missing(1), unhealthy(1), model_missing(1)] {
        assert!(s.on(check).is_nothing());
    }
    s.on(model_missing(1));
    assert_eq!(s.on(model_missing(1)).path, [ServiceState::Crashed]);
    let said = "no code is for a server that has come up and does not have its model";
    assert_eq!(s.last_error(), Some(Code::Unrecognised), "{said}");
}

#[test]
fn a_port_that_somebody_took_before_vllm_did_is_a_failure_at_once() {
    let mut s = Script::starting();
    assert_eq!(s.on(port_taken(1)).path, [ServiceState::Crashed]);
    assert_eq!(s.last_error(), Some(Code::PortInUse));
    assert!(last_error_says(&s, "`nc -l` (pid 9, user bob)"));
}

#[test]
fn that_it_cannot_be_told_who_listens_is_never_held_against_vllm() {
    for mut s in [Script::starting(), Script::running()] {
        for _ in 0..100 {
            assert!(s.on(listener_unknown(1)).is_nothing());
        }
    }
}

#[test]
fn silence_before_the_first_output_is_bounded_by_the_start_timeout() {
    let mut s = Script::starting();
    assert!(s.wait_in_silence(39).is_empty());
    assert_eq!(s.wait_in_silence(3), [ServiceState::Crashed]);
    assert_eq!(s.last_error(), Some(Code::LoadTimedOut));
    assert!(last_error_says(&s, "lifecycle.start_timeout"));
}

#[test]
fn what_the_checks_saw_is_told_of_a_load_that_comes_to_nothing() {
    let mut s = Script::starting();
    s.on(unhealthy(1));
    s.wait_in_silence(42);
    assert_eq!(s.last_error(), Some(Code::LoadTimedOut));
    assert!(last_error_says(&s, "; no answer from http://"));
}

#[test]
fn silence_after_the_first_output_is_bounded_by_the_model_load_timeout() {
    let mut s = Script::starting();
    s.wait_in_silence(30);
    s.on(loader(1, LoadNews::Began));
    assert!(s.wait_in_silence(399).is_empty());
    // It is looked at every quarter.
    assert_eq!(s.wait_in_silence(100), [ServiceState::Crashed]);
    assert!(last_error_says(&s, "lifecycle.model_load_timeout"));
}

#[test]
fn silence_is_asked_about_four_times_within_the_timeout_that_applies() {
    let mut s = Script::starting();
    let asked = s.on(silence_due(1));
    assert_eq!(asked.scheduled(Timer::Silence), Some(Duration::from_secs(10)));
    assert!(asked.effects.iter().any(|effect| matches!(effect, Effect::Sample { .. })));
    s.on(loader(1, LoadNews::Began));
    assert_eq!(s.on(silence_due(1)).scheduled(Timer::Silence), Some(Duration::from_secs(100)));
}

#[test]
fn a_tree_at_work_is_given_time_and_an_idle_one_is_not() {
    assert_eq!(after_three_timeouts(Duration::from_secs(5)), ServiceState::Starting);
    assert_eq!(after_three_timeouts(Duration::from_millis(10)), ServiceState::Crashed);
    assert_eq!(after_three_timeouts(Duration::ZERO), ServiceState::Crashed);
}

/// The state after two minutes without a word, when the tree uses `cpu` in every ten seconds.
fn after_three_timeouts(cpu: Duration) -> ServiceState {
    let mut s = Script::starting();
    for turn in 1..=12 {
        s.wait_in_silence(10);
        s.on(sampled(1, cpu * turn));
    }
    s.state()
}

#[test]
fn a_load_that_only_keeps_processors_busy_is_ended_some_day() {
    let mut s = Script::starting();
    let mut waited = 0;
    while s.state() == ServiceState::Starting {
        waited += 10;
        assert!(waited <= 170, "it may be silent for four timeouts of 40 s");
        s.wait_in_silence(10);
        s.on(sampled(1, Duration::from_secs(waited)));
    }
    assert!(waited > 120, "it was ended after {waited} s, though it worked");
    assert_eq!(s.last_error(), Some(Code::LoadTimedOut));
}

#[test]
fn bytes_that_move_are_progress_however_long_it_takes() {
    let mut s = Script::starting();
    for turn in 1..100 {
        s.wait_in_silence(10);
        s.on(moved(1, turn << 20));
    }
    assert_eq!(s.state(), ServiceState::Starting);
}

/// A supervisor that is suspended hears nothing; that says nothing of vLLM.
#[test]
fn a_standstill_of_ours_is_not_taken_for_vllms_silence() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Began));
    s.wait_in_silence(100);
    s.wait(3600);
    let woken = s.on(silence_due(1));
    assert!(woken.path.is_empty(), "{woken:?}");
    assert!(woken.effects.iter().any(|effect| matches!(effect, Effect::Sample { .. })));
    assert!(s.wait_in_silence(250).is_empty());
    assert_eq!(s.wait_in_silence(200), [ServiceState::Crashed]);
}

#[test]
fn progress_counts_as_a_sign_and_standing_still_does_not() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Progressed(progress(20))));
    s.wait_in_silence(399);
    s.on(loader(1, LoadNews::Progressed(progress(30))));
    assert!(s.wait_in_silence(399).is_empty());
    s.on(loader(1, LoadNews::Stands(progress(30))));
    assert_eq!(s.wait_in_silence(100), [ServiceState::Crashed]);
}

#[test]
fn a_load_that_fails_says_so_where_it_stood() {
    let mut s = Script::starting();
    s.on(loader(1, LoadNews::Progressed(progress(55))));
    let outcome = s.on(super::script::exited(1));
    let failed = last_progress(&outcome.events);
    assert_eq!((failed.percent, failed.status), (55, LoadStatus::Failed));
    assert_eq!(failed.model, model("org/a"));
}

#[test]
fn the_word_that_it_listens_is_checked_at_once() {
    let mut s = Script::starting();
    let effects = s.on(loader(1, LoadNews::Listens)).effects;
    assert!(matches!(effects[..], [Effect::Probe { .. }]), "{effects:?}");
}

fn last_progress(events: &[EventKind]) -> &ModelLoadProgress {
    let progress = events.iter().rev().find_map(|event| match event {
        EventKind::LoadProgressed { progress } => Some(progress),
        EventKind::StateChanged { .. }
        | EventKind::RestartScheduled { .. }
        | EventKind::IncidentRecorded { .. }
        | EventKind::LaunchTimed { .. }
        | EventKind::LaunchDistrusted { .. }
        | EventKind::StateExplained { .. }
        | EventKind::ServiceRecovered { .. }
        | EventKind::GpuFindingRaised { .. }
        | EventKind::GpuFindingCleared { .. }
        | EventKind::HealthChanged { .. }
        | EventKind::ModelWanted { .. }
        | EventKind::CleanupBlocked { .. }
        | EventKind::SupervisorEnded { .. }
        | EventKind::Orphaned { .. }
        | EventKind::ModelSwitched { .. } => None,
    });
    progress.unwrap_or_else(|| panic!("no progress among {events:?}"))
}

fn last_error_says(s: &Script, text: &str) -> bool {
    s.machine.last_error().is_some_and(|cause| cause.summary.contains(text))
}

/// 20 % after 10 s, all of it after 100 s.
fn course() -> Course {
    let seconds = Duration::from_secs;
    Course::new(vec![(20, seconds(10)), (80, seconds(90))], seconds(100)).unwrap()
}

#[test]
fn a_load_is_told_by_the_clock_of_the_one_before() {
    let mut s = Script::stopped();
    s.on(start());
    s.on(launched_again(1, course()));
    s.wait(5);
    let told = s.on(loader(1, LoadNews::Stands(progress(0))));
    let told = last_progress(&told.events);
    assert_eq!((told.percent, told.time_left), (5, Some(Duration::from_secs(95))));
    s.wait(3);
    let told = s.on(loader(1, LoadNews::Progressed(progress(80))));
    let told = last_progress(&told.events);
    assert_eq!((told.percent, told.time_left), (90, Some(Duration::from_secs(10))));
    // A loader that takes the place of a dead one begins anew.
    assert!(s.on(loader(1, LoadNews::Progressed(progress(20)))).is_nothing());
}

#[test]
fn the_course_of_a_load_is_kept_once_it_serves() {
    let mut s = Script::stopped();
    s.on(start());
    s.on(launched(1));
    s.wait(10);
    s.on(loader(1, LoadNews::Progressed(progress(20))));
    s.wait(80);
    s.on(loader(1, LoadNews::Progressed(progress(80))));
    s.wait(10);
    let serves = s.on(healthy(1));
    assert!(
        serves.memories().into_iter().any(|it| *it == Memory::Course(LaunchMethod::Cold, course()))
    );
    let mut found = Script::unknown();
    found.on(start());
    found.on(adopted(1, "org/a"));
    found.on(loader(1, LoadNews::Progressed(progress(20))));
    found.wait(10);
    let serves = found.on(healthy(1));
    let is_course = |it: &Memory| matches!(it, Memory::Course(..));
    assert!(!serves.memories().into_iter().any(is_course), "nobody saw where it began");
}
