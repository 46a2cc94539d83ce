//! Who is said to have ended with a launch, and what the kernel says of them.

use super::crashing::recorded;
use super::script::{
    Script, adopted, exited, found, launched, member_died, no, pid, start, stop, vacated,
};
use crate::domain::cause::Code;
use crate::domain::diagnosis::{Evidence, Exit, KernelMessage};
use crate::domain::incident::{Incident, ProcessExit};
use crate::domain::input::{Input, StopMode};
use crate::domain::report::{ProcessReport, Role};

const SEGV: Exit = Exit::Signal(11);
const KILLED: Exit = Exit::Signal(9);

fn main_exited(incarnation: u64, exit: Exit) -> Input {
    Input::Process(ProcessReport::Exited { incarnation: no(incarnation), exit })
}

/// What is kept of the first launch, which has crashed, where the kernel says this.
fn judged(s: &mut Script, kernel: Option<Vec<KernelMessage>>) -> Incident {
    let evidence = Evidence { kernel, ..Evidence::default() };
    recorded(&s.turn(found(1, evidence)).events).clone()
}

/// The one that [`member_died`] is about has the pid 7.
fn oom(pid: u32) -> KernelMessage {
    let text = format!("Out of memory: Killed process {pid} (python3) total-vm:1kB");
    KernelMessage::read(&text).expect("such a message")
}

#[test]
fn an_incident_has_the_ends_of_all_processes_in_their_order_but_for_those_that_we_kill() {
    let mut s = Script::starting();
    s.on(launched(1));
    s.turn(member_died(1, Role::Helper, Exit::Code(1)));
    s.turn(member_died(1, Role::Untitled, Exit::Code(0)));
    s.turn(member_died(1, Role::EngineCore, Exit::Code(1)));
    s.turn(main_exited(1, Exit::Code(0)));
    s.turn(member_died(1, Role::Worker, SEGV));
    s.turn(member_died(1, Role::Worker, Exit::Signal(9)));
    let exits = judged(&mut s, None).exits;
    let expected = [
        ProcessExit::new(7, Role::EngineCore, Exit::Code(1)),
        ProcessExit::new(pid(1), Role::ApiServer, Exit::Code(0)),
        ProcessExit::new(7, Role::Worker, SEGV),
    ];
    assert_eq!(exits[..], expected);
}

#[test]
fn an_incident_has_what_the_kernel_says_of_those_that_have_ended_and_of_nobody_else() {
    let told = |kernel: Option<Vec<KernelMessage>>| {
        let mut s = Script::running();
        s.turn(member_died(1, Role::Worker, KILLED));
        let incident = judged(&mut s, kernel);
        (incident.cause.code, incident.kernel)
    };
    let both = Some(vec![oom(6), oom(7)]);
    assert_eq!(told(both), (Code::KilledForMemory, Some(vec![oom(7).text])));
    assert_eq!(told(Some(vec![oom(6)])), (Code::EngineDied, Some(Vec::new())));
    assert_eq!(told(None), (Code::EngineDied, None));
}

/// They may have been killed by us, or not; that the kernel has done it is said by the kernel.
#[test]
fn whoever_the_kernel_says_to_have_killed_is_not_taken_to_have_been_killed_by_us() {
    let told = |kernel: Vec<KernelMessage>| {
        let mut s = Script::running();
        s.turn(main_exited(1, Exit::Code(0)));
        s.turn(member_died(1, Role::EngineCore, KILLED));
        let incident = judged(&mut s, Some(kernel));
        (incident.cause.code, incident.exits.len())
    };
    assert_eq!(told(vec![oom(7)]), (Code::KilledForMemory, 2));
    assert_eq!(told(Vec::new()), (Code::EngineDied, 1));
}

#[test]
fn who_has_ended_long_before_has_no_part_in_it() {
    let told = |seconds: u64| {
        let mut s = Script::running();
        s.turn(member_died(1, Role::Helper, KILLED));
        s.wait(seconds);
        s.turn(main_exited(1, Exit::Code(1)));
        let incident = judged(&mut s, Some(vec![oom(7)]));
        (incident.cause.code, incident.exits.len(), incident.kernel.map(|said| said.len()))
    };
    assert_eq!(told(10), (Code::KilledForMemory, 2, Some(1)));
    assert_eq!(told(11), (Code::EngineDied, 1, Some(0)));
}

/// The front has ten seconds to say why, and says nothing.
#[test]
fn whoever_the_end_of_a_load_is_put_down_to_is_among_those_that_have_ended() {
    let mut s = Script::starting();
    s.on(launched(1));
    s.turn(member_died(1, Role::EngineCore, Exit::Code(1)));
    s.wait(11);
    s.turn(main_exited(1, Exit::Code(1)));
    let incident = judged(&mut s, Some(vec![oom(7)]));
    let exits: Vec<_> = incident.exits.iter().map(|it| it.role).collect();
    assert_eq!(exits, [Role::EngineCore, Role::ApiServer]);
    assert_eq!(incident.kernel.map(|said| said.len()), Some(1));
}

/// It is killed amid its work, which the driver tells an error of.
#[test]
fn what_is_said_of_whom_we_have_killed_explains_nothing() {
    let xid =
        KernelMessage::read("NVRM: Xid (PCI:0000:3b:00): 119, pid=7, name=python3, x").unwrap();
    for killed in [KILLED, Exit::Unknown] {
        let mut s = Script::running();
        s.turn(main_exited(1, Exit::Code(1)));
        s.turn(member_died(1, Role::Worker, killed));
        let incident = judged(&mut s, Some(vec![xid.clone()]));
        assert_eq!(incident.cause.code, Code::EngineDied, "{killed:?}");
        assert_eq!((incident.exits.len(), incident.kernel), (1, Some(Vec::new())), "{killed:?}");
    }
    let mut s = Script::running();
    s.turn(member_died(1, Role::Worker, SEGV));
    assert_eq!(judged(&mut s, Some(vec![xid])).cause.code, Code::GpuFault);
}

#[test]
fn a_launch_has_no_part_in_the_ends_of_the_one_before() {
    let mut s = Script::running();
    s.turn(member_died(1, Role::Helper, SEGV));
    s.on(stop(StopMode::Graceful));
    s.on(vacated(1));
    s.on(start());
    s.turn(member_died(1, Role::Helper, SEGV));
    s.on(launched(2));
    let events = s.on(exited(2)).events;
    assert_eq!(
        recorded(&events).exits,
        [ProcessExit::new(pid(2), Role::ApiServer, Exit::Signal(9))]
    );
}

#[test]
fn of_many_ends_the_latest_are_kept() {
    let mut s = Script::running();
    for _ in 0..100 {
        s.turn(member_died(1, Role::Helper, SEGV));
    }
    let events = s.on(exited(1)).events;
    let exits = &recorded(&events).exits;
    assert_eq!(exits.len(), 32);
    assert_eq!(exits.last().map(|it| it.role), Some(Role::ApiServer));
}

#[test]
fn an_adoption_while_a_crash_is_judged_forgets_nobody() {
    let mut s = Script::running();
    s.turn(member_died(1, Role::Worker, SEGV));
    s.turn(adopted(1, "org/a"));
    assert_eq!(judged(&mut s, None).exits, [ProcessExit::new(7, Role::Worker, SEGV)]);
}
