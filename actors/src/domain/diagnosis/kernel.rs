//! What the kernel's log says of a process that has ended.

/// A message of the kernel that names a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMessage {
    /// The process, by its number in the initial pid namespace. Of a fault it is the thread that
    /// made it: the process's own number if that is its first.
    pub pid: u32,
    /// What happened to it.
    pub kind: KernelMessageKind,
    /// The message.
    pub text: String,
}

/// See [`KernelMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelMessageKind {
    /// It was killed for want of memory (Linux, `mm/oom_kill.c`, `__oom_kill_process`).
    KilledForMemory,
    /// It did what the processor does not allow (Linux, `arch/x86/mm/fault.c`, `show_signal_msg`;
    /// `arch/x86/kernel/traps.c`, `show_signal`; `arch/arm64/kernel/traps.c`, `arm64_show_signal`), in
    /// this file.
    Fault(Option<String>),
    /// NVIDIA's driver tells an error of a GPU, of this number, that it was the user of.
    Xid(u32),
}

impl KernelMessage {
    /// Reads a message; `None` if it says nothing of the kind.
    pub fn read(text: &str) -> Option<Self> {
        let (pid, kind) = killed(text).or_else(|| faulted(text)).or_else(|| errored(text))?;
        Some(Self { pid, kind, text: text.to_owned() })
    }
}

/// `Memory cgroup out of memory: Killed process 7 (VLLM::EngineCor) total-vm:…kB, anon-rss:…`. Before
/// Linux 5.0 the second part stands alone.
fn killed(text: &str) -> Option<(u32, KernelMessageKind)> {
    let (before, after) = text.split_once("Killed process ")?;
    let is_killer = ["", "Out of memory", "Memory cgroup out of memory"]
        .iter()
        .any(|whose| before.trim_end_matches(": ").split(" (").next() == Some(whose));
    let (pid, after) = number(after)?;
    let is_victim = after.starts_with(" (") && after.contains("total-vm:");
    (is_killer && is_victim).then_some((pid, KernelMessageKind::KilledForMemory))
}

/// `python3[7]: segfault at 0 ip … sp … error 4 in libc.so.6[28000,7f…+188000] likely on CPU 1`,
/// `traps: python3[7] trap invalid opcode ip:… sp:… error:0 in libtorch_cpu.so[7f…+1000]`.
fn faulted(text: &str) -> Option<(u32, KernelMessageKind)> {
    const LONGEST_NAME: usize = 15;
    const FAULTS: [&str; 4] =
        ["segfault at ", "general protection", "trap ", "unhandled exception"];
    let said = text.strip_prefix("traps: ").unwrap_or(text);
    // A name may have brackets of its own.
    let ends = said.match_indices('[').filter(|(at, _)| *at <= LONGEST_NAME);
    let (pid, after) = ends.filter_map(|(at, _)| in_brackets(&said[at + 1..])).next_back()?;
    let after = after.strip_prefix(':').unwrap_or(after).trim_start();
    if !FAULTS.iter().any(|fault| after.starts_with(fault)) {
        return None;
    }
    let place = after.split_once(" in ").and_then(|(_, place)| place.split_once('['));
    Some((pid, KernelMessageKind::Fault(place.map(|(file, _)| file.to_owned()))))
}

/// `NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=python3, Ch 00000008, …`; the number stands in quotes in
/// some versions, and is `'<unknown>'` where nobody used it.
fn errored(text: &str) -> Option<(u32, KernelMessageKind)> {
    let (_, after) = text.strip_prefix("NVRM: Xid (")?.split_once("): ")?;
    let (xid, after) = number(after)?;
    let after = after.strip_prefix(", pid=")?;
    let (pid, _) = number(after.strip_prefix('\'').unwrap_or(after))?;
    Some((pid, KernelMessageKind::Xid(xid)))
}

fn in_brackets(text: &str) -> Option<(u32, &str)> {
    let (number, after) = number(text)?;
    Some((number, after.strip_prefix(']')?))
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at(end);
    Some((digits.parse().ok()?, after))
}
