//! The kernel's messages, in the words of its versions.

use crate::domain::diagnosis::{KernelMessage, KernelMessageKind};

use KernelMessageKind::{Fault, KilledForMemory, Xid};

fn read(text: &str) -> Option<(u32, KernelMessageKind)> {
    let message = KernelMessage::read(text)?;
    assert_eq!(message.text, text);
    Some((message.pid, message.kind))
}

#[test]
fn who_was_killed_for_want_of_memory_is_read() {
    for text in [
        "Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:41112kB, anon-rss:30332kB, \
         file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:120kB oom_score_adj:0",
        "Memory cgroup out of memory: Killed process 4711 (a) b) total-vm:41112kB, anon-rss:1kB",
        "Out of memory (oom_kill_allocating_task): Killed process 4711 (python3) total-vm:1kB",
        "Memory cgroup out of memory: Killed process 4711 (python3), UID 1000, total-vm:41112kB",
        "Killed process 4711 (python3) total-vm:41112kB, anon-rss:30332kB, file-rss:0kB",
    ] {
        assert_eq!(read(text), Some((4711, KilledForMemory)), "{text}");
    }
}

#[test]
fn who_made_a_fault_is_read_with_the_file_that_it_was_in() {
    let of = |file: Option<&str>| Some((4711, Fault(file.map(str::to_owned))));
    let cases = [
        (
            "python3[4711]: segfault at 0 ip 00007f6d sp 00007ffd error 4 in \
             libc.so.6[28000,7f6d3b628000+188000] likely on CPU 1 (core 1, socket 0)",
            Some("libc.so.6"),
        ),
        ("python3[4711]: segfault at 0 ip 0000000000000000 sp 00007ffd error 14", None),
        (
            "python3[4711]: segfault at 10 ip 7f sp 7f error 6 in libtorch_cpu.so[7f1+10000000]",
            Some("libtorch_cpu.so"),
        ),
        (
            "traps: VLLM::EngineCor[4711] trap invalid opcode ip:7f sp:7f error:0 in \
             _C.abi3.so[7f1,7f+1000]",
            Some("_C.abi3.so"),
        ),
        ("traps: python3[4711] general protection fault ip:7f sp:7f error:0", None),
        ("a[1]b[2][4711]: segfault at 0 ip 0 sp 0 error 14", None),
        (
            "python3[4711]: unhandled exception: DABT (lower EL), ESR 0x92000006, level 2 \
             translation fault in libcuda.so.1[ffff+10]",
            Some("libcuda.so.1"),
        ),
    ];
    for (text, file) in cases {
        assert_eq!(read(text), of(file), "{text}");
    }
}

#[test]
fn whom_the_driver_blames_an_error_on_is_read() {
    let xid = Some((4711, Xid(31)));
    let text = "NVRM: Xid (PCI:0000:3b:00): 31, pid=4711, name=python3, Ch 00000008, intr 00000000. MMU \
                Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f_00000000";
    assert_eq!(read(text), xid);
    assert_eq!(read("NVRM: Xid (PCI:0000:01:00): 31, pid='4711', name=python3, Ch 0000"), xid);
    let unknown = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off \
                   the bus.";
    assert_eq!(read(unknown), None);
}

#[test]
fn whatever_else_is_said_names_nobody() {
    for text in [
        "",
        "oom_reaper: reaped process 4711 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Out of memory: Killed process",
        "Out of memory: Killed process 99999999999 (python3) total-vm:1kB",
        "a service says: Out of memory: Killed process 4711 (python3) total-vm:1kB",
        "python3[4711]: is healthy",
        "python3[4711",
        "usb 1-1[4711]: trapped",
        "NVRM: Xid (PCI:0000:01:00)",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
        "é[4711]: segfaul",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn a_name_of_a_program_cannot_pass_for_a_message() {
    assert_eq!(read("Killed process [4711]: segfault at 0 ip 0"), Some((4711, Fault(None))));
}
