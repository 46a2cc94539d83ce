//! GPUs that fail, and what becomes of vLLM on them.

use std::time::Duration;

use super::crashing::recorded;
use super::script::{
    Script, adopted, diagnosed, felt, healthy, launched, member_died, nothing_found, restart_due,
    start, tried, vacated, vitals_due,
};
use crate::domain::cause::{Code, RetryClass};
use crate::domain::diagnosis::Exit;
use crate::domain::event::EventKind;
use crate::domain::gpu::{FindingKind, FindingNews, GpuAction, GpuFinding};
use crate::domain::input::{Effect, Input, Timer};
use crate::domain::liveness::{Pulse, Rest, Trial};
use crate::domain::report::Role;
use crate::domain::state::ServiceState;
use crate::domain::ticket::CommandError;

/// An Xid of a GPU that vLLM uses.
pub(super) fn xid(number: u32, action: GpuAction) -> GpuFinding {
    let kind = FindingKind::Xid(number);
    let finding = GpuFinding::new(0, "GPU-0", kind, action, format!("Xid {number}"));
    GpuFinding { is_ours: true, ..finding }
}

fn raised(finding: GpuFinding) -> Input {
    Input::Found(FindingNews::Raised(finding))
}

fn cleared(finding: GpuFinding) -> Input {
    Input::Found(FindingNews::Cleared(finding))
}

/// A worker has ended by a fault of its own.
fn died(incarnation: u64) -> Input {
    member_died(incarnation, Role::Worker, Exit::Signal(11))
}

fn faulty() -> GpuFinding {
    xid(31, GpuAction::RestartApplication)
}

fn broken() -> GpuFinding {
    xid(79, GpuAction::Reboot)
}

fn others(finding: GpuFinding) -> GpuFinding {
    GpuFinding { is_ours: false, ..finding }
}

fn is_launch(effect: &Effect) -> bool {
    matches!(effect, Effect::Launch { .. })
}

#[test]
fn a_finding_is_told_when_it_comes_and_when_it_goes() {
    let mut s = Script::running();
    let told = s.on(raised(others(broken())));
    assert!(told.path.is_empty() && told.effects.is_empty(), "another's GPU is not ours");
    assert!(matches!(&told.events[..], [EventKind::GpuFindingRaised { finding }]
        if **finding == others(broken())));
    assert_eq!(s.machine.gpu_findings(), [others(broken())]);
    let told = s.on(cleared(others(broken())));
    assert!(matches!(&told.events[..], [EventKind::GpuFindingCleared { .. }]));
    assert!(s.machine.gpu_findings().is_empty());
}

#[test]
fn what_grows_worse_is_known_once() {
    let mut s = Script::running();
    s.on(raised(others(xid(119, GpuAction::RestartApplication))));
    s.on(raised(others(xid(119, GpuAction::ResetGpu))));
    assert_eq!(s.machine.gpu_findings(), [others(xid(119, GpuAction::ResetGpu))]);
}

#[test]
fn a_gpu_that_must_be_reset_ends_vllm_for_good() {
    for mut s in [Script::running(), Script::starting()] {
        let ended = s.on(raised(broken()));
        assert_eq!(ended.path, [ServiceState::Crashed]);
        assert!(ended.effects.iter().any(|it| matches!(it, Effect::Clear { .. })));
        let failed = s.on(vacated(1));
        assert_eq!(failed.path, [ServiceState::Failed]);
        let cause = s.machine.last_error().expect("it has failed");
        assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Permanent));
        assert!(cause.summary.starts_with("GPU 0: Xid 79"), "{cause}");
        assert!(cause.remedy().starts_with("reboot"), "{}", cause.remedy());
    }
}

#[test]
fn nothing_is_launched_on_it_before_it_is_well() {
    let mut s = Script::stopped();
    assert!(s.on(raised(broken())).path.is_empty());
    let refused = s.on(start());
    assert_eq!(refused.path, [ServiceState::Starting, ServiceState::Crashed, ServiceState::Failed]);
    assert!(!refused.effects.iter().any(is_launch));
    assert!(matches!(&refused.answers[..], [(_, Err(CommandError::Failed(cause)))]
        if cause.code == Code::GpuFault));
    s.on(cleared(broken()));
    let launched = s.on(start());
    assert_eq!(launched.path, [ServiceState::Starting]);
    assert!(launched.effects.iter().any(is_launch));
}

#[test]
fn what_an_earlier_supervisor_has_found_holds() {
    let mut s = Script::unknown();
    s.machine = s.machine.clone().with_gpu_findings(vec![broken()]);
    s.on(nothing_found());
    assert!(!s.on(start()).effects.iter().any(is_launch));
    assert_eq!(s.last_error(), Some(Code::GpuFault));
}

#[test]
fn what_runs_on_it_is_not_taken_over() {
    let mut s = Script::unknown();
    s.on(raised(broken()));
    let found = s.on(adopted(1, "org/a"));
    assert_eq!(found.path, [ServiceState::Starting, ServiceState::Crashed]);
    assert!(found.effects.iter().any(|it| matches!(it, Effect::Clear { .. })));
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Failed]);
}

#[test]
fn a_finding_goes_by_the_gpus_identity_wherever_it_stands() {
    let (unnamed, moved) =
        (GpuFinding { uuid: String::new(), ..broken() }, GpuFinding { index: 3, ..broken() });
    for (before, after) in [(unnamed, broken()), (broken(), moved)] {
        let mut s = Script::stopped();
        s.on(raised(before));
        s.on(cleared(after));
        assert!(s.machine.gpu_findings().is_empty());
    }
    let mut s = Script::stopped();
    s.on(raised(broken()));
    s.on(cleared(GpuFinding { uuid: "GPU-7".to_owned(), ..broken() }));
    assert_eq!(s.machine.gpu_findings(), [broken()], "that was another");
}

#[test]
fn who_is_killed_has_not_died_of_what_a_restart_cures() {
    let mut s = Script::running();
    s.on(raised(faulty()));
    let ended = s.on(member_died(1, Role::Worker, Exit::Signal(9)));
    assert_eq!(recorded(&ended.events).cause.code, Code::EngineDied);
}

#[test]
fn what_an_application_does_to_itself_is_not_held_against_its_gpu() {
    let mut s = Script::running();
    for launch in 1..=5 {
        s.on(raised(faulty()));
        let ended = s.on(died(launch));
        assert_eq!(recorded(&ended.events).cause.retry, RetryClass::Transient, "{launch}");
        s.on(vacated(launch));
        s.wait(300);
        s.on(restart_due(launch));
        s.on(launched(launch + 1));
        s.on(healthy(launch + 1));
    }
    assert_eq!(s.state(), ServiceState::Running);
}

#[test]
fn faults_that_end_it_again_and_again_are_not_cured_by_restarts() {
    let mut s = Script::running();
    for launch in 1..=3 {
        s.on(raised(xid(94, GpuAction::RestartApplication)));
        let ended = s.on(died(launch));
        let retry = recorded(&ended.events).cause.retry;
        let expected = if launch < 3 { RetryClass::Transient } else { RetryClass::Permanent };
        assert_eq!(retry, expected, "{launch}");
        s.on(vacated(launch));
        s.wait(300);
        if launch < 3 {
            s.on(restart_due(launch));
            s.on(launched(launch + 1));
            s.on(healthy(launch + 1));
        }
    }
    assert_eq!(s.state(), ServiceState::Failed);
}

#[test]
fn a_gpu_that_fails_while_a_restart_is_waited_for_forbids_it() {
    let mut s = Script::crashed();
    s.on(vacated(1));
    assert!(s.on(raised(broken())).path.is_empty());
    s.wait(2);
    let due = s.on(restart_due(1));
    assert_eq!(due.path, [ServiceState::Starting, ServiceState::Crashed, ServiceState::Failed]);
    assert!(!due.effects.iter().any(is_launch));
}

#[test]
fn a_fault_that_a_restart_cures_has_vllm_asked_whether_it_lives() {
    let mut s = Script::running();
    let asked = s.on(raised(faulty()));
    assert!(asked.path.is_empty());
    assert!(matches!(&asked.effects[..], [Effect::AskForToken { .. }]));
    assert!(s.on(tried(1, Trial::Made)).path.is_empty());
    let mut s = Script::running();
    s.on(raised(faulty()));
    let pulse = Pulse { requests: 1, mark: 7, rest: Rest::Awake, connections: Some(1) };
    s.on(felt(1, Some(pulse)));
    let mut asked = 1;
    let hung = loop {
        for _ in 0..2 {
            s.wait(5);
            s.on(vitals_due(1));
        }
        let hung = s.on(tried(1, Trial::None));
        if !hung.path.is_empty() {
            break hung;
        }
        s.on(felt(1, Some(pulse)));
        asked += 1;
        assert!(asked < 4, "it hangs");
    };
    assert_eq!(hung.path, [ServiceState::Crashed]);
    let cause = &recorded(&hung.events).cause;
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Transient));
    assert!(cause.summary.starts_with("GPU 0: Xid 31"), "{cause}");
    assert_eq!(hung.scheduled(Timer::Restart), Some(Duration::from_secs(2)));
}

#[test]
fn an_end_amid_a_fault_is_told_as_the_fault() {
    let mut s = Script::running();
    s.on(raised(faulty()));
    let ended = s.on(died(1));
    let cause = &recorded(&ended.events).cause;
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Transient));
    assert!(cause.summary.contains("Xid 31") && cause.summary.contains("died"), "{cause}");
    let mut s = Script::running();
    s.on(raised(others(faulty())));
    let ended = s.on(died(1));
    assert_eq!(recorded(&ended.events).cause.code, Code::EngineDied, "another's GPU");
}

#[test]
fn a_fault_that_is_told_of_just_after_the_end_counts_too() {
    let mut s = Script::running();
    s.turn(died(1));
    s.turn(raised(broken()));
    let judged = s.turn(diagnosed(1));
    let cause = &recorded(&judged.events).cause;
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Permanent));
    assert_eq!(s.on(vacated(1)).path, [ServiceState::Failed]);
}
