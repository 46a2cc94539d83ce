//! What the end of a process says about its cause.

use std::fmt;
use std::path::PathBuf;

use crate::domain::cause::{Cause, Code, RetryClass, TellingLine};
use crate::domain::gpu::{GpuAction, XidClass, XidPolicy};

mod kernel;
mod line;
mod partial;
mod quote;
mod rule;
mod rulebook;
mod rules;
mod scanner;

pub use kernel::{KernelMessage, KernelMessageKind};
pub use quote::Diagnosis;
pub use rulebook::{RuleError, Rulebook};
pub use scanner::Scanner;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exit {
    /// It exited with this status. vLLM's says little: it is 0 when the engine died
    /// (vLLM 0.8 to 0.32, `entrypoints/launcher.py`).
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It is gone, and only its parent could have read how.
    Unknown,
}

impl Exit {
    /// Whether it may have been ended by a person or the kernel: by SIGINT, SIGKILL or SIGTERM. vLLM sends
    /// them to its own as well, when it is on its way down (0.32, `v1/executor/multiproc_executor.py`):
    /// after another has ended.
    pub fn is_from_outside(self) -> bool {
        const SIGINT: i32 = 2;
        const SIGKILL: i32 = 9;
        const SIGTERM: i32 = 15;
        matches!(self, Self::Signal(SIGINT | SIGKILL | SIGTERM))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    // Linux numbers, the same on x86-64 and arm64.
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// How far an incarnation had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not yet proven healthy: there is nothing to drain, and vLLM swallows one SIGTERM.
    Loading,
    /// It had served.
    Serving,
}

/// `argparse`'s status for arguments it does not accept
/// (vLLM 0.32, `utils/argparse_utils.py`).
const ARGPARSE_ERROR: i32 = 2;

/// What the end of the main process says by itself, before anything that it has written is read.
pub fn judge(exit: Exit, phase: Phase) -> Cause {
    match (phase, exit) {
        (Phase::Loading, Exit::Code(ARGPARSE_ERROR)) => {
            Cause::new(Code::ArgumentsRejected, format!("vLLM ended while loading: {exit}"))
        }
        (Phase::Serving, _) => {
            Cause::new(Code::EngineDied, format!("vLLM ended while serving: {exit}"))
        }
        (Phase::Loading, Exit::Signal(_)) => {
            Cause::new(Code::EngineDied, format!("vLLM ended while loading: {exit}"))
        }
        (Phase::Loading, Exit::Code(_) | Exit::Unknown) => {
            Cause::new(Code::Unrecognised, format!("vLLM ended while loading: {exit}"))
        }
    }
}

/// What a launch has written by the time it ended, and what the kernel says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What all of it says of the cause; `None` if it says that nothing is wrong, or cannot be read.
    pub diagnosis: Option<Diagnosis>,
    /// Its last lines, oldest first, secrets masked.
    pub last_lines: Vec<String>,
    /// The file that it is in.
    pub log: Option<PathBuf>,
    /// How many processes the kernel has killed for want of memory, where vLLM lives, since the last look
    /// but one: ten seconds while it serves, half of a timeout at most while it loads; `None` if nobody
    /// can say.
    pub memory_kills: Option<u64>,
    /// What the kernel has said of processes, oldest first, since the last look but one, as above; `None`
    /// if nobody can say.
    pub kernel: Option<Vec<KernelMessage>>,
}

impl Evidence {
    /// With no other words of the kernel than these.
    #[must_use]
    pub fn heeding(mut self, words: impl FnMut(&KernelMessage) -> bool) -> Self {
        if let Some(said) = &mut self.kernel {
            said.retain(words);
        }
        self
    }
}

/// The cause of an end, from what was known at once, from what was written until then, and from what the
/// kernel says of the launch's processes. `exit` is how a process of its own accord ended; `None` where we
/// have judged one that lived. `xids` says what an Xid error means.
pub fn explain(known: Cause, exit: Option<Exit>, evidence: Evidence, xids: &XidPolicy) -> Cause {
    let Evidence { diagnosis, last_lines, log, memory_kills, kernel } = evidence;
    let kernel = kernel.unwrap_or_default();
    let for_memory = killed_for_memory(exit, memory_kills, &kernel);
    let is_for_memory = for_memory.is_some();
    let known = match for_memory {
        Some(said) => Cause::new(Code::KilledForMemory, format!("{}; {said}", known.summary)),
        None => known,
    };
    let cause = match diagnosis {
        None => known,
        Some(said) => {
            let is_cause = !is_for_memory && overrules(&said, exit);
            let line = TellingLine { number: said.line_number, text: said.line };
            let cause = if is_cause {
                let cause = Cause::new(said.code, said.summary).with_remedy(said.remedy);
                Cause { retry: said.class, ..cause }
            } else {
                known
            };
            if line.number > 0 { cause.with_line(line) } else { cause }
        }
    };
    let cause = match exit {
        Some(exit) => with_faults(cause, exit, &kernel, xids),
        None => cause,
    };
    cause.with_last_lines(last_lines).with_log(log)
}

/// What is said of who was killed for want of memory, if somebody was: he has not said so himself.
fn killed_for_memory(
    exit: Option<Exit>,
    kills: Option<u64>,
    kernel: &[KernelMessage],
) -> Option<String> {
    let killed = kernel.iter().find(|it| it.kind == KernelMessageKind::KilledForMemory);
    if let (Some(_), Some(KernelMessage { pid, .. })) = (exit, killed) {
        return Some(format!("the kernel has killed process {pid} for want of memory"));
    }
    let may_be = matches!(exit, Some(Exit::Signal(9) | Exit::Unknown));
    (may_be && kills.is_some_and(|kills| kills > 0))
        .then(|| "the kernel has lately killed for want of memory where vLLM lives".to_owned())
}

/// What faults of its processes have to do with an end that nothing else explains. Who was ended from
/// outside did not die of what a restart cures; and a process that is killed amid its work leaves an Xid
/// too.
fn with_faults(cause: Cause, exit: Exit, kernel: &[KernelMessage], xids: &XidPolicy) -> Cause {
    if !matches!(cause.code, Code::EngineDied | Code::Unrecognised) {
        return cause;
    }
    let fault = |message: &KernelMessage| match message.kind {
        KernelMessageKind::Xid(xid) => match xids.class(xid) {
            XidClass::Ignored | XidClass::Fault(GpuAction::None) => None,
            XidClass::Fault(action) => Some((action, xid, message.pid)),
        },
        KernelMessageKind::KilledForMemory | KernelMessageKind::Fault(_) => None,
    };
    let worst = kernel.iter().filter_map(fault).max();
    if let Some((action, xid, pid)) = worst
        && (action.blocks() || !exit.is_from_outside())
    {
        let retry = if action.blocks() { RetryClass::Permanent } else { RetryClass::Transient };
        let explained =
            Cause::new(Code::GpuFault, format!("Xid {xid} of process {pid}; {}", cause.summary));
        let explained = match cause.line() {
            Some(line) => explained.with_line(line.clone()),
            None => explained,
        };
        return Cause { retry, ..explained };
    }
    if exit.is_from_outside() || !matches!(exit, Exit::Signal(_)) {
        return cause;
    }
    let place = kernel.iter().find_map(|it| match &it.kind {
        KernelMessageKind::Fault(place) => place.as_ref(),
        KernelMessageKind::KilledForMemory | KernelMessageKind::Xid(_) => None,
    });
    let Some(place) = place else { return cause };
    let summary = format!("{}, in {place}", cause.summary);
    Cause { summary, ..cause }
}

/// Whether what vLLM says of its end is its cause. What we have judged was said by us; and that it has
/// failed, or that its engine is dead, is no news. Who was ended by a signal has not said why: what was
/// written before may be of something that was survived, and is not to end the service for good.
fn overrules(said: &Diagnosis, exit: Option<Exit>) -> bool {
    let is_news = !matches!(said.code, Code::Unrecognised | Code::EngineDied);
    let is_final = said.class == RetryClass::Permanent;
    match exit {
        None => false,
        Some(exit) if exit.is_from_outside() => matches!(
            said.code,
            Code::KilledForMemory
                | Code::EngineHung
                | Code::GpuFault
                | Code::InterconnectFailed
                | Code::InsufficientGpuMemory
        ),
        Some(Exit::Signal(_) | Exit::Unknown) => {
            // A SIGBUS is what a full `/dev/shm` comes to.
            is_news
                && (!is_final || matches!(said.code, Code::SharedMemoryTooSmall | Code::GpuFault))
        }
        Some(Exit::Code(_)) => is_news,
    }
}

#[cfg(test)]
mod tests;
