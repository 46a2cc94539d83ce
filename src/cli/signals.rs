//! Requests to end, as they come from a terminal or a service manager, and other signals.
//!
//! Requests are counted from the beginning, so that one that comes early is not lost: the first
//! ends, the second kills, the third exits at once. No signal that can be caught ends the process
//! behind the back of the supervisor, which would leave vLLM running; but for those by which the
//! processor or the kernel tells of a fault in this program, after which nothing can be relied on.

use std::time::Duration;
use std::{fs, future, io};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::exit::Exit;

/// The request that exits at once.
pub(super) const LAST: usize = 3;

/// How long an exit at once may take: to kill all of vLLM, if that is to be.
pub(super) const LAST_GRACE: Duration = Duration::from_secs(5);

/// The requests. A limit of processor time, a watchdog and a power failure have one message: end
/// while you can.
const REQUESTS: [(libc::c_int, Exit); 7] = [
    (libc::SIGINT, Exit::Interrupted),
    (libc::SIGQUIT, Exit::Quit),
    (libc::SIGTERM, Exit::Terminated),
    (libc::SIGHUP, Exit::Terminated),
    (libc::SIGABRT, Exit::Terminated),
    (libc::SIGXCPU, Exit::Terminated),
    (libc::SIGPWR, Exit::Terminated),
];

/// What would end the process and means nothing here (signal(7)); the real-time signals besides.
const MEANINGLESS: [(libc::c_int, &str); 8] = [
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGXFSZ, "SIGXFSZ"),
];

/// The requests to end that this process got.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    received: watch::Receiver<Vec<Exit>>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    sender: watch::Sender<Vec<Exit>>,
    tasks: JoinSet<()>,
}

impl Listener {
    /// Takes over every signal that would end the process, until the end of the process.
    pub(super) fn start() -> io::Result<Self> {
        let mut listener = Self { sender: watch::Sender::default(), tasks: JoinSet::new() };
        for (number, exit) in REQUESTS {
            // Under `nohup` a closing terminal is none of our business.
            if number != libc::SIGHUP || !ignores_hangup() {
                listener.heed(number, exit)?;
            }
        }
        for (number, name) in MEANINGLESS {
            listener.disregard(number, name.to_owned())?;
        }
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            listener.disregard(number, format!("real-time signal {number}"))?;
        }
        Ok(listener)
    }

    /// What it hears.
    pub(super) fn signals(&self) -> Signals {
        Signals { received: self.sender.subscribe() }
    }

    fn heed(&mut self, number: libc::c_int, exit: Exit) -> io::Result<()> {
        let mut stream = signal(SignalKind::from_raw(number))?;
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            while stream.recv().await.is_some() {
                sender.send_modify(|received| received.push(exit));
                if sender.borrow().len() >= LAST {
                    leave(exit).await;
                }
            }
        });
        Ok(())
    }

    fn disregard(&mut self, number: libc::c_int, name: String) -> io::Result<()> {
        let mut stream = signal(SignalKind::from_raw(number))?;
        self.tasks.spawn(async move {
            while stream.recv().await.is_some() {
                tracing::warn!("{name} is ignored: it has no meaning for vllmd");
            }
        });
        Ok(())
    }
}

impl Signals {
    /// Waits until `count` requests have come in all; returns how the first wants the process to
    /// end.
    pub(super) async fn came(&mut self, count: usize) -> Exit {
        match self.received.wait_for(|received| received.len() >= count).await {
            Ok(received) => received[0],
            // The listener ends with the runtime, and this with it.
            Err(_) => future::pending().await,
        }
    }
}

/// Whether we were started with SIGHUP ignored, as `nohup` does it (`SigIgn` of `proc(5)`).
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (libc::SIGHUP - 1) & 1 == 1)
}

/// Whoever supervises ends by itself at the last request. If it hangs, nothing more can be done.
#[expect(clippy::exit, reason = "the operator has asked three times: nothing may hold this up")]
async fn leave(exit: Exit) {
    tokio::time::timeout(LAST_GRACE, future::pending::<()>()).await.ok();
    std::process::exit(exit.code().into());
}
