//! What the end of a process says, and what it has written before.

use std::path::Path;
use std::sync::Arc;

use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::diagnosis::{
    Evidence, Exit, KernelMessage, Phase, Rulebook, Scanner, explain as explain_by, judge,
};
use crate::domain::gpu::{GpuAction, XidPolicy};

fn explain(known: Cause, exit: Option<Exit>, evidence: Evidence) -> Cause {
    explain_by(known, exit, evidence, &XidPolicy::default())
}

#[test]
fn an_exit_status_of_zero_while_serving_is_still_a_death() {
    let cause = judge(Exit::Code(0), Phase::Serving);
    assert_eq!((cause.code, cause.retry), (Code::EngineDied, RetryClass::Transient));
}

#[test]
fn rejected_arguments_are_permanent_and_quote_vllm() {
    let log = b"usage: vllm serve [model_tag] [options]\n\
                vllm serve: error: unrecognized arguments: --nope\n";
    let known = judge(Exit::Code(2), Phase::Loading);
    assert_eq!((known.code, known.retry), (Code::ArgumentsRejected, RetryClass::Permanent));
    let cause = explain(known, Some(Exit::Code(2)), evidence(log));
    assert_eq!((cause.code, cause.retry), (Code::ArgumentsRejected, RetryClass::Permanent));
    assert!(cause.to_string().contains("--nope"), "{cause}");
    assert_eq!(cause.line().unwrap().number, 2);
}

#[test]
fn a_signal_is_named() {
    let cause = judge(Exit::Signal(9), Phase::Loading);
    assert!(cause.summary.contains("SIGKILL"), "{cause}");
}

fn evidence(log: &[u8]) -> Evidence {
    let mut scanner = Scanner::new(&Arc::new(Rulebook::new().unwrap()));
    scanner.feed(log);
    let diagnosis = scanner.finish();
    let last_lines = vec!["the last".to_owned()];
    Evidence {
        diagnosis,
        last_lines,
        log: Some("/a.log".into()),
        memory_kills: Some(0),
        kernel: Some(Vec::new()),
    }
}

#[test]
fn what_was_written_explains_an_end_and_nothing_that_we_have_judged() {
    let log = b"INFO vLLM API server version 0.32.0\n\
        (EngineCore_0 pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n";
    let worker = || Cause::new(Code::EngineDied, "worker 7 died");
    for (exit, code) in [
        (Some(Exit::Code(1)), Code::InsufficientGpuMemory),
        (Some(Exit::Code(0)), Code::InsufficientGpuMemory),
        (Some(Exit::Signal(6)), Code::InsufficientGpuMemory),
        (Some(Exit::Unknown), Code::InsufficientGpuMemory),
        // vLLM has ended it, on its way down.
        (Some(Exit::Signal(9)), Code::InsufficientGpuMemory),
        (None, Code::EngineDied),
    ] {
        let cause = explain(worker(), exit, evidence(log));
        assert_eq!(cause.code, code, "{exit:?}");
        assert_eq!(cause.retry, code.retry_class());
        assert_eq!(cause.line().map(|it| it.number), Some(2));
        assert_eq!(
            (&cause.last_lines[..], cause.log()),
            (&["the last".to_owned()][..], Some(Path::new("/a.log")))
        );
    }
}

#[test]
fn an_exception_that_nobody_knows_is_told_and_leaves_the_cause_what_it_was() {
    let log = b"INFO vLLM API server version 0.32.0\nZeroDivisionError: by a plugin\n";
    let exit = Exit::Code(1);
    let cause = explain(judge(exit, Phase::Loading), Some(exit), evidence(log));
    assert_eq!(cause.code, Code::Unrecognised, "it is a plugin's own");
    let said = "VLM-099: vLLM ended while loading: exit status 1 (ZeroDivisionError: by a plugin)";
    assert_eq!(cause.to_string(), said);
}

#[test]
fn who_was_killed_when_the_kernel_killed_for_want_of_memory_was_killed_for_it() {
    let worker = || Cause::new(Code::EngineDied, "worker 7 died: signal 9 (SIGKILL)");
    let of = |exit, kills| {
        let evidence =
            Evidence { memory_kills: kills, ..evidence(b"INFO vLLM API server version 1\n") };
        explain(worker(), Some(exit), evidence).code
    };
    assert_eq!(of(Exit::Signal(9), Some(1)), Code::KilledForMemory);
    assert_eq!(of(Exit::Unknown, Some(1)), Code::KilledForMemory);
    // What was survived before does not speak against it.
    let log = b"INFO vLLM API server version 1\ntorch.OutOfMemoryError: CUDA out of memory.\n";
    let evidence = Evidence { memory_kills: Some(1), ..evidence(log) };
    let cause = explain(worker(), Some(Exit::Signal(9)), evidence);
    assert_eq!(cause.code, Code::KilledForMemory);
    assert!(cause.line().is_some());
    assert_eq!(of(Exit::Signal(9), Some(0)), Code::EngineDied);
    assert_eq!(of(Exit::Signal(9), None), Code::EngineDied);
    assert_eq!(of(Exit::Signal(11), Some(1)), Code::EngineDied);
    assert_eq!(of(Exit::Code(1), Some(1)), Code::EngineDied);
}

#[test]
fn a_line_that_was_survived_does_not_end_the_service_for_good_when_a_signal_ends_it() {
    let log = b"INFO vLLM API server version 0.32.0\n\
        ImportError: libcuda.so.1: cannot open shared object file: No such file or directory\n";
    let worker = || Cause::new(Code::EngineDied, "worker 7 died");
    let class_of = |exit| explain(worker(), Some(exit), evidence(log)).retry;
    assert_eq!(class_of(Exit::Code(1)), RetryClass::Permanent);
    for exit in
        [Exit::Signal(2), Exit::Signal(9), Exit::Signal(11), Exit::Signal(15), Exit::Unknown]
    {
        assert_eq!(class_of(exit), RetryClass::Transient, "{exit:?}");
    }
}

fn said_by_the_kernel(messages: &[&str], log: &[u8]) -> Evidence {
    let kernel = messages.iter().map(|text| KernelMessage::read(text).unwrap()).collect();
    Evidence { kernel: Some(kernel), memory_kills: None, ..evidence(log) }
}

const QUIET: &[u8] = b"INFO vLLM API server version 1\n";

#[test]
fn whom_the_kernel_says_to_have_killed_was_killed_for_want_of_memory() {
    let oom =
        "Out of memory: Killed process 7 (VLLM::Worker_TP) total-vm:41112kB, anon-rss:30332kB";
    let worker = || Cause::new(Code::EngineDied, "worker 7 died: signal 9 (SIGKILL)");
    // Whoever saw it first may have ended in another way.
    for exit in [Exit::Signal(9), Exit::Code(1), Exit::Unknown] {
        let cause = explain(worker(), Some(exit), said_by_the_kernel(&[oom], QUIET));
        assert_eq!(cause.code, Code::KilledForMemory, "{exit:?}");
        assert!(cause.summary.contains("process 7"), "{cause}");
    }
    let judged = explain(worker(), None, said_by_the_kernel(&[oom], QUIET));
    assert_eq!(judged.code, Code::EngineDied, "it was ended by us");
    let of_another = said_by_the_kernel(&[oom], QUIET).heeding(|it| it.pid == 8);
    assert_eq!(of_another.kernel, Some(Vec::new()));
    assert_eq!(explain(worker(), Some(Exit::Signal(9)), of_another).code, Code::EngineDied);
}

#[test]
fn the_place_of_a_fault_is_told() {
    let fault = "python3[7]: segfault at 0 ip 7f sp 7f error 4 in libtorch_cpu.so[28000,7f+188000]";
    let of = |exit| {
        let worker = Cause::new(Code::EngineDied, "worker 7 died");
        let cause = explain(worker, Some(exit), said_by_the_kernel(&[fault], QUIET));
        assert_eq!(cause.code, Code::EngineDied);
        cause.summary
    };
    assert_eq!(of(Exit::Signal(11)), "worker 7 died, in libtorch_cpu.so");
    for exit in [Exit::Signal(9), Exit::Signal(15), Exit::Code(1), Exit::Unknown] {
        assert_eq!(of(exit), "worker 7 died", "{exit:?}: it did not die of a fault");
    }
}

fn xid(number: u32) -> String {
    format!("NVRM: Xid (PCI:0000:3b:00): {number}, pid=7, name=python3, Ch 00000008")
}

#[test]
fn an_error_of_a_gpu_that_the_driver_blames_on_it_explains_what_nothing_else_does() {
    let worker = || Cause::new(Code::EngineDied, "worker 7 died: signal 6 (SIGABRT)");
    let exit = Some(Exit::Signal(6));
    let cause = explain(worker(), exit, said_by_the_kernel(&[&xid(31)], QUIET));
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Transient));
    assert_eq!(cause.summary, "Xid 31 of process 7; worker 7 died: signal 6 (SIGABRT)");
    let cause = explain(worker(), exit, said_by_the_kernel(&[&xid(31), &xid(79)], QUIET));
    assert_eq!((cause.code, cause.retry), (Code::GpuFault, RetryClass::Permanent));
    let log = b"INFO vLLM API server version 1\n(EngineCore_0 pid=7) torch.OutOfMemoryError: CUDA out of \
        memory. Tried to allocate 2.00 GiB\n";
    let cause = explain(worker(), exit, said_by_the_kernel(&[&xid(31)], log));
    assert_eq!(cause.code, Code::InsufficientGpuMemory);
}

#[test]
fn what_an_error_of_a_gpu_means_is_said_by_the_policy_and_who_was_killed_leaves_one() {
    let worker = || Cause::new(Code::EngineDied, "worker 7 died");
    let of = |number, exit, xids: &XidPolicy| {
        let evidence = said_by_the_kernel(&[&xid(number)], QUIET);
        let cause = explain_by(worker(), Some(exit), evidence, xids);
        (cause.code, cause.retry)
    };
    let died = (Code::EngineDied, RetryClass::Transient);
    let table = XidPolicy::default();
    for (number, exit) in [
        (45, Exit::Signal(9)),
        (45, Exit::Signal(6)),
        (63, Exit::Signal(6)),
        (31, Exit::Signal(9)),
        (31, Exit::Signal(15)),
    ] {
        assert_eq!(of(number, exit, &table), died, "{number} {exit:?}");
    }
    let blocked = (Code::GpuFault, RetryClass::Permanent);
    assert_eq!(of(79, Exit::Signal(9), &table), blocked);
    let own = XidPolicy::with([(79, GpuAction::None), (45, GpuAction::ResetGpu)].into());
    assert_eq!(of(79, Exit::Signal(6), &own), died);
    assert_eq!(of(45, Exit::Signal(6), &own), blocked);
}
